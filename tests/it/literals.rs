//! Values in the text of statements and in parameters: what SQL has a notation for
//! keeps every digit, and what does not fit is refused with nothing written.

use std::sync::Arc;

use arrow::array::types::{Float32Type, Float64Type};
use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch,
    StringArray,
};
use arrow::datatypes::DataType;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::ProstMessageExt;
use futures::{TryStreamExt, stream};
use tonic::{Code, Status};

use crate::client::{Client, descriptor, prepared};
use crate::writes::{append, columns, prepared_update, refused, world};

const ONE: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
const TWO: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";

#[tokio::test]
async fn a_uuid_is_written_and_found_by_its_text() {
    let (_server, mut alice, mut bob) = world().await;
    for client in [&mut alice, &mut bob] {
        client
            .update("CREATE TABLE t (id UUID PRIMARY KEY, n INT, by UUID DEFAULT uuid())")
            .await
            .unwrap();
    }
    bob.update(&format!("INSERT INTO t (id, n) VALUES ('{ONE}', 77)"))
        .await
        .unwrap();
    let upper = TWO.to_uppercase();
    for (at, value) in [
        format!("'{ONE}'"),
        format!("'{upper}'::uuid"),
        "uuid '018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9c'".to_owned(),
        "CAST('018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9d' AS UUID)".to_owned(),
        "x'018f5a0ec4c87e109c4f3b6f7c5a8e9e'".to_owned(),
        "uuid()".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let insert = format!("INSERT INTO t (id, n) VALUES ({value}, {at})");
        assert_eq!(alice.update(&insert).await.unwrap(), 1, "{insert}");
    }
    // From a query that yields text, with what is already one beside it.
    let copied = "INSERT INTO t (n, id, by) SELECT 6, replace(id::text, '018f', '118f'), id FROM t WHERE n = 0";
    assert_eq!(alice.update(copied).await.unwrap(), 1);
    for condition in [
        format!("id = '{ONE}'"),
        format!("'{ONE}' = id"),
        format!("id = uuid '{ONE}'"),
        format!("id = '{}'", ONE.to_uppercase()),
        format!("id IN ('{ONE}', '{ONE}')"),
        format!("id BETWEEN '{ONE}' AND '{ONE}'"),
        format!("id::varchar = '{ONE}'"),
        format!("TRY_CAST('{ONE}' AS UUID) = id"),
        "id = (SELECT by FROM t WHERE n = 6)".to_owned(),
    ] {
        let found = alice
            .shows(&format!("SELECT n FROM t WHERE {condition}"))
            .await;
        assert_eq!(found, "0", "{condition}");
    }
    assert_eq!(
        alice
            .shows("SELECT id::text AS a, CAST(id AS VARCHAR) AS b FROM t WHERE n = 1")
            .await,
        format!("{TWO}|{TWO}")
    );
    assert_eq!(
        alice
            .shows("SELECT TRY_CAST('x' AS UUID) IS NULL, count(DISTINCT by) FROM t")
            .await,
        "true|7"
    );
    let plan = alice
        .shows(&format!("EXPLAIN SELECT n FROM t WHERE id = '{ONE}'"))
        .await;
    assert!(plan.contains("lookup=[id]"), "{plan}");

    let set = format!("UPDATE t SET by = '{TWO}' WHERE id = '{ONE}'");
    assert_eq!(alice.update(&set).await.unwrap(), 1);
    let merge = format!(
        "MERGE INTO t USING (VALUES ('{ONE}'), ('{ONE}')) AS s(id) ON t.id = s.id::uuid AND false \
         WHEN NOT MATCHED BY SOURCE AND t.n = 0 THEN UPDATE SET by = '{ONE}'"
    );
    assert_eq!(alice.update(&merge).await.unwrap(), 1);
    let conflict = format!(
        "INSERT INTO t (id, n) VALUES ('{ONE}', 9) ON CONFLICT (id) DO UPDATE SET by = '{TWO}'"
    );
    assert_eq!(alice.update(&conflict).await.unwrap(), 1);
    assert_eq!(
        alice.shows("SELECT n, by::text FROM t WHERE n = 0").await,
        format!("0|{TWO}")
    );
    assert_eq!(bob.shows("SELECT n FROM t").await, "77");

    for bad in ["", "018f", "{018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a}"] {
        for sql in [
            format!("INSERT INTO t (id) VALUES ('{bad}')"),
            format!("INSERT INTO t (id) SELECT '{bad}' || ''"),
            format!("UPDATE t SET by = '{bad}'"),
            format!("SELECT * FROM t WHERE id = '{bad}'"),
        ] {
            refused(
                alice.query(&sql).await,
                Code::InvalidArgument,
                "is no UUID: write it as",
            );
        }
    }
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "7");
}

#[tokio::test]
async fn a_uuid_parameter_is_text_or_bytes() {
    let (_server, mut alice, _bob) = world().await;
    alice
        .update("CREATE TABLE t (id UUID PRIMARY KEY, n INT)")
        .await
        .unwrap();
    let bytes = |text: &str| -> ArrayRef {
        let hex = text.replace('-', "");
        let bytes: Vec<u8> = (0..16)
            .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
            .collect();
        Arc::new(FixedSizeBinaryArray::try_from_iter([bytes].into_iter()).unwrap())
    };
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let number = |n: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![n])) };
    let insert = prepared_update(&mut alice, "INSERT INTO t VALUES (?, ?)").await;
    let two = columns(vec![("0", text(ONE)), ("1", number(1))]);
    assert_eq!(alice.put_counted(&insert, two).await.unwrap(), 1);
    let two = columns(vec![("0", bytes(TWO)), ("1", number(2))]);
    assert_eq!(alice.put_counted(&insert, two).await.unwrap(), 1);
    for sql in [
        "SELECT n FROM t WHERE id = ?",
        "SELECT n FROM t WHERE id IN (?)",
        "SELECT n FROM t WHERE id = ?::uuid",
    ] {
        for given in [text(TWO), bytes(TWO)] {
            let handle = alice.prepare(sql).await.unwrap().prepared_statement_handle;
            let row = columns(vec![("0", given)]);
            let handle = alice.bind_row(&handle, row).await.unwrap();
            let found = alice.rows(&prepared(&handle)).await.unwrap();
            assert_eq!(found.num_rows(), 1, "{sql}");
        }
    }
    let bad = columns(vec![("0", text("018f")), ("1", number(3))]);
    refused(
        alice.put_counted(&insert, bad).await,
        Code::InvalidArgument,
        "parameter 1 is Utf8 where UUID is expected: '018f' is no UUID",
    );
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "2");
}

#[tokio::test]
async fn a_column_s_type_is_told_as_it_was_declared() {
    let (_server, mut alice, mut bob) = world().await;
    alice
        .update("CREATE TABLE t (u UUID, j JSON, n INT)")
        .await
        .unwrap();
    bob.update("CREATE TABLE t (canary JSON)").await.unwrap();
    let told = "u|UUID|YES j|JSON|YES n|Int32|YES tenant_id|Utf8|YES";
    for sql in [
        "DESCRIBE t",
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns \
         WHERE table_name = 't' ORDER BY ordinal_position",
    ] {
        assert_eq!(alice.shows(sql).await, told, "{sql}");
    }
}

/// The one value of a query.
async fn value(client: &mut Client, sql: &str) -> ArrayRef {
    match client.query(sql).await {
        Ok(batch) => Arc::clone(batch.column(0)),
        Err(status) => panic!("{sql}: {status:?}"),
    }
}

#[tokio::test]
async fn numbers_next_to_decimals_keep_every_digit() {
    let (_server, mut alice, _bob) = world().await;
    let long = "12345678901234567890.123456789";
    let longest = "1234567890123456789012345678901234567890123456789012345678901234567890.123456";
    alice
        .update(&format!(
            "CREATE TABLE t (id INT PRIMARY KEY, d DECIMAL(38, 9) DEFAULT {long}, \
             e DECIMAL(76, 6), u BIGINT UNSIGNED, UNIQUE (d))"
        ))
        .await
        .unwrap();
    let u = u64::MAX;
    for sql in [
        format!("INSERT INTO t VALUES (1, {long}, {longest}, {u})"),
        format!("INSERT INTO t SELECT 2, -{long}, -{longest}, {u}"),
        format!("INSERT INTO t (id, e) VALUES (3, (({longest})))"),
        "DELETE FROM t WHERE id = 3".to_owned(),
        "INSERT INTO t (id, d) VALUES (3, 0)".to_owned(),
        format!("UPDATE t SET d = d + {long} + 0.000000001 WHERE id = 3"),
        "INSERT INTO t (id, d) VALUES (4, 1)".to_owned(),
        format!(
            "MERGE INTO t USING (SELECT 4 AS id) s ON t.id = s.id \
             WHEN MATCHED THEN UPDATE SET d = {long} - 1, e = {longest}"
        ),
    ] {
        // DEFAULT and the first row have one `d`, which is unique.
        match sql.contains("(id, e)") {
            true => refused(alice.update(&sql).await, Code::AlreadyExists, long),
            false => drop(
                alice
                    .update(&sql)
                    .await
                    .map_err(|status| panic!("{sql}: {status:?}")),
            ),
        }
    }
    assert_eq!(
        alice
            .shows("SELECT id, d, e, u FROM t ORDER BY id LIMIT 2")
            .await,
        format!("1|{long}|{longest}|{u} 2|-{long}|-{longest}|{u}")
    );
    let sum = "12345678901234567890.123456790";
    assert_eq!(alice.shows("SELECT d FROM t WHERE id = 3").await, sum);
    assert_eq!(alice.shows("SELECT e FROM t WHERE id = 4").await, longest);
    for (condition, found) in [
        (format!("d = {long}"), "1"),
        (format!("d = {long}0000"), "1"),
        (format!("{long} = d"), "1"),
        (format!("d > {long} AND d <= {sum}"), "3"),
        (format!("d BETWEEN {sum} AND {sum}"), "3"),
        (format!("d IN (1.5, -{long})"), "2"),
        (format!("d = {long}1"), ""),
        ("d < -12345678901234567890.1234567889999".to_owned(), "2"),
        (format!("e = {longest}"), "1 4"),
        (format!("d + 0.000000001 = {sum}"), "1"),
        (format!("u = {u} AND u < 18446744073709551616"), "1 2"),
    ] {
        let sql = format!("SELECT id FROM t WHERE {condition} ORDER BY id");
        assert_eq!(alice.shows(&sql).await, found, "{sql}");
    }
    let plan = alice
        .shows(&format!("EXPLAIN SELECT id FROM t WHERE d = {long}"))
        .await;
    assert!(plan.contains("lookup=[d]"), "{plan}");
}

#[tokio::test]
async fn numbers_by_themselves_are_doubles_and_integers() {
    let (_server, mut alice, _bob) = world().await;
    for (sql, data_type) in [
        ("SELECT 1.5", DataType::Float64),
        ("SELECT 0.1234567890123456789", DataType::Float64),
        ("SELECT -1e300", DataType::Float64),
        ("SELECT 18446744073709551615", DataType::UInt64),
        ("SELECT 18446744073709551616", DataType::Decimal128(20, 0)),
        ("SELECT -9223372036854775808", DataType::Int64),
    ] {
        assert_eq!(
            value(&mut alice, sql).await.data_type(),
            &data_type,
            "{sql}"
        );
    }
    assert_eq!(
        alice
            .shows("SELECT 123456789012345678901234567890123456789012345678901 - 1")
            .await,
        "123456789012345678901234567890123456789012345678900"
    );
    assert_eq!(
        alice
            .shows("SELECT INTERVAL 1.5 SECOND = INTERVAL '1.5' SECOND")
            .await,
        "true"
    );
    assert_eq!(
        alice.shows("SELECT round(2.5), sqrt(2.25) * 2").await,
        "3.0|3.0"
    );
}

#[tokio::test]
async fn floats_in_sql_are_the_nearest_ones() {
    let (_server, mut alice, _bob) = world().await;
    alice
        .update("CREATE TABLE t (f DOUBLE, r REAL)")
        .await
        .unwrap();
    for text in [
        "0.1",
        "0.30000000000000004",
        "1.7976931348623157e308",
        "5e-324",
        "-0.0",
        "123456789012345678901234567890",
        "0.1000000000000000055511151231257827021181583404541015625",
        "9007199254740993",
        "8.5070591730234615847396907784232501249e37",
    ] {
        alice.update("TRUNCATE t").await.unwrap();
        alice
            .update(&format!("INSERT INTO t VALUES ({text}, 0)"))
            .await
            .unwrap();
        let found = value(&mut alice, "SELECT f FROM t").await;
        let found = found.as_primitive::<Float64Type>().value(0);
        assert_eq!(
            found.to_bits(),
            text.parse::<f64>().unwrap().to_bits(),
            "{text}"
        );
        if text.parse::<f32>().unwrap().is_finite() {
            alice
                .update(&format!("UPDATE t SET r = {text}"))
                .await
                .unwrap();
            alice
                .update(&format!("INSERT INTO t (r) VALUES ({text})"))
                .await
                .unwrap();
            let found = value(&mut alice, "SELECT r FROM t WHERE f IS NULL").await;
            let found = found.as_primitive::<Float32Type>().value(0);
            assert_eq!(
                found.to_bits(),
                text.parse::<f32>().unwrap().to_bits(),
                "{text}"
            );
        }
        let sql = format!("SELECT count(*) FROM t WHERE f = {text}");
        assert_eq!(alice.shows(&sql).await, "1", "{sql}");
    }
    for text in ["NaN", "Infinity", "-Infinity"] {
        alice.update("TRUNCATE t").await.unwrap();
        alice
            .update(&format!(
                "INSERT INTO t VALUES ('{text}'::double, '{text}'::real)"
            ))
            .await
            .unwrap();
        let sql = format!("SELECT count(*) FROM t WHERE f = '{text}'::double");
        assert_eq!(alice.shows(&sql).await, "1", "{sql}");
    }
}

#[tokio::test]
async fn a_decimal_is_rounded_to_its_scale_and_refused_beyond_its_precision() {
    let (_server, mut alice, _bob) = world().await;
    alice
        .update("CREATE TABLE t (id INT, price DECIMAL(5, 2))")
        .await
        .unwrap();
    for (text, kept) in [
        ("1.005", "1.01"),
        ("-1.005", "-1.01"),
        ("1.0049999999999999999", "1.00"),
        ("999.994", "999.99"),
        ("1e2", "100.00"),
    ] {
        alice
            .update(&format!("INSERT INTO t VALUES (1, {text})"))
            .await
            .unwrap();
        assert_eq!(alice.shows("SELECT price FROM t").await, kept, "{text}");
        alice.update("TRUNCATE t").await.unwrap();
    }
    for text in ["1000", "999.995", "-1e3", "12345678901234567890.5"] {
        refused(
            alice
                .update(&format!("INSERT INTO t VALUES (1, 1), (2, {text})"))
                .await,
            Code::InvalidArgument,
            "does not fit column `price`, which is Decimal128(5, 2)",
        );
    }
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
}

/// Symptom: a key had both `0.0` and `-0.0`, of which `=` says that they are equal,
/// and any number of NaNs.
#[tokio::test]
async fn a_key_of_floats_is_by_value() {
    let (_server, mut alice, mut bob) = world().await;
    for client in [&mut alice, &mut bob] {
        client
            .update("CREATE TABLE t (k DOUBLE PRIMARY KEY, r REAL UNIQUE, n INT)")
            .await
            .unwrap();
    }
    bob.update("INSERT INTO t VALUES (0.0, 0.0, 77)")
        .await
        .unwrap();
    let floats = |values: &[f64]| {
        columns(vec![(
            "k",
            Arc::new(Float64Array::from(values.to_vec())) as ArrayRef,
        )])
    };
    let nan = f64::from_bits(f64::NAN.to_bits() | 1);
    let stored = floats(&[-0.0, nan, 1.5]);
    assert_eq!(
        alice
            .put_counted(&append("t"), stored.clone())
            .await
            .unwrap(),
        3
    );
    for taken in [0.0, -0.0, f64::NAN, -f64::NAN, nan, 1.5] {
        refused(
            alice.put_counted(&append("t"), floats(&[7.0, taken])).await,
            Code::AlreadyExists,
            "primary key `t_pkey`",
        );
    }
    let found = value(&mut alice, "SELECT k FROM t WHERE k = 0.0").await;
    assert_eq!(
        found.as_primitive::<Float64Type>().value(0).to_bits(),
        (-0.0_f64).to_bits()
    );
    let plan = alice.shows("EXPLAIN SELECT k FROM t WHERE k = 0.0").await;
    assert!(plan.contains("lookup=[k]"), "{plan}");
    for sql in [
        "INSERT INTO t (k, n) VALUES (0, 1) ON CONFLICT (k) DO UPDATE SET n = 1",
        "INSERT INTO t (k, n) VALUES ('nan'::double, 1) ON CONFLICT (k) DO UPDATE SET n = 1",
        "MERGE INTO t USING (SELECT 0.0 AS k) s ON t.k = s.k \
         WHEN MATCHED THEN UPDATE SET r = -0.0 WHEN NOT MATCHED THEN INSERT (k) VALUES (s.k)",
        "UPDATE t SET k = 0.0 WHERE k = 0.0",
        "UPDATE t SET k = -0.0 WHERE k IN (0.0, 3.5)",
    ] {
        assert_eq!(alice.update(sql).await.unwrap(), 1, "{sql}");
    }
    refused(
        alice.update("UPDATE t SET r = 0 WHERE k = 1.5").await,
        Code::AlreadyExists,
        "unique constraint `t_r_key`",
    );
    let kept = value(
        &mut alice,
        "SELECT k FROM t WHERE k < 1.5 OR isnan(k) ORDER BY k",
    )
    .await;
    assert_eq!(kept.len(), 2);
    let kept = kept.as_primitive::<Float64Type>();
    assert_eq!(kept.value(1).to_bits(), nan.to_bits());
    assert_eq!(alice.shows("SELECT count(*), sum(n) FROM t").await, "3|2");
    assert_eq!(
        bob.shows("SELECT * FROM t").await,
        format!("0.0|0.0|77|{}", crate::client::BOB)
    );
    refused(
        alice
            .update("CREATE TABLE u (a DOUBLE[] PRIMARY KEY)")
            .await,
        Code::InvalidArgument,
        "cannot be in a key",
    );
}

/// Puts `batch` with the bytes of its text `ab` broken on the way.
async fn put_broken(
    client: &mut Client,
    command: &impl ProstMessageExt,
    batch: RecordBatch,
) -> Result<(), Status> {
    let mut messages: Vec<_> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor(command)))
        .build(stream::iter([Ok(batch)]))
        .try_collect()
        .await
        .unwrap();
    let last = messages.last_mut().unwrap();
    let mut body = last.data_body.to_vec();
    let at = body.windows(2).position(|pair| pair == b"ab").unwrap();
    body[at] = 0xff;
    last.data_body = body.into();
    let request = client.request(stream::iter(messages));
    let results = client.flight.do_put(request).await?.into_inner();
    results.try_collect::<Vec<_>>().await.map(drop)
}

/// Values that no column takes, each with what is said of them. Nothing is written
/// of the rows that come with them.
#[tokio::test]
async fn what_does_not_fit_is_refused_whole() {
    let (_server, mut alice, mut bob) = world().await;
    for client in [&mut alice, &mut bob] {
        client
            .update("CREATE TABLE t (id SMALLINT, word TEXT, day DATE, price DECIMAL(5, 2))")
            .await
            .unwrap();
    }
    bob.update("INSERT INTO t (id) VALUES (77)").await.unwrap();
    let ids = |last: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![1, 2, last])) };
    let words = |last: &str| -> ArrayRef { Arc::new(StringArray::from(vec!["x", "y", last])) };

    // In bulk.
    for (name, column, says) in [
        (
            "id",
            ids(40_000),
            "column `id` is Int64 where Int16 is expected, and the value does not fit",
        ),
        (
            "id",
            words("7"),
            "column `id` is Utf8 where Int16 is expected: bind a value of that type",
        ),
        (
            "day",
            ids(3),
            "column `day` is Int64 where Date32 is expected: bind a value",
        ),
        (
            "price",
            ids(1000),
            "column `price` is Int64 where Decimal128(5, 2) is expected, and the value",
        ),
        ("none", ids(3), "column `none` does not exist"),
    ] {
        let rows = columns(vec![(name, column)]);
        refused(
            alice.put_counted(&append("t"), rows).await,
            Code::InvalidArgument,
            says,
        );
    }
    // By parameters.
    let insert = prepared_update(&mut alice, "INSERT INTO t (id, word) VALUES (?, ?)").await;
    for (id, word, says) in [
        (
            ids(40_000),
            words("z"),
            "parameter 1 is Int64 where Int16 is expected, and the value does not fit",
        ),
        (
            words("seven"),
            words("z"),
            "parameter 1 is Utf8 where Int16 is expected",
        ),
        (
            Arc::new(Float64Array::from(vec![1.0, 2.0, 2.5])),
            words("z"),
            "parameter 1 is Float64 where Int16 is expected",
        ),
    ] {
        let rows = columns(vec![("0", id), ("1", word)]);
        refused(
            alice.put_counted(&insert, rows).await,
            Code::InvalidArgument,
            says,
        );
    }
    // Text that is no UTF-8.
    let rows = columns(vec![("id", ids(3)), ("word", words("ab"))]);
    for broken in [
        put_broken(&mut alice, &append("t"), rows.clone()).await,
        put_broken(&mut alice, &insert, rows.clone()).await,
    ] {
        let says = broken.as_ref().unwrap_err().message().to_owned();
        assert!(
            says.contains("column `word`") && says.contains("send text as UTF-8"),
            "{says}"
        );
        refused(
            broken,
            Code::InvalidArgument,
            "cannot be read: Invalid UTF8",
        );
    }
    // By SQL.
    for (sql, says) in [
        (
            "INSERT INTO t (id) VALUES (1), (40000)",
            "a value does not fit column `id`, which is Int16",
        ),
        (
            "INSERT INTO t (id) VALUES (1), ('seven')",
            "a value does not fit column `id`, which is Int16",
        ),
        (
            "INSERT INTO t (id, day) VALUES (1, '2024-13-01')",
            "a value does not fit column `day`, which is Date32",
        ),
        ("INSERT INTO t (id, none) VALUES (1, 2)", "none"),
        (
            "INSERT INTO t (id, word) VALUES (1, true), (2, x'ff')",
            "word",
        ),
    ] {
        let status = alice.update(sql).await.unwrap_err();
        assert!(status.message().contains(says), "{sql}: {status:?}");
    }
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    assert_eq!(bob.shows("SELECT id FROM t").await, "77");
}
