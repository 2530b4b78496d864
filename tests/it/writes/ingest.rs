//! Rows in bulk.

use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;

use super::*;

#[tokio::test]
async fn rows_are_ingested_in_every_mode() {
    let (_server, mut alice, mut bob) = world().await;
    bob.put_counted(&create("Table"), numbers("id", [7]))
        .await
        .unwrap();
    let table = r#"SELECT sum(id), count(*) FROM "Table""#;
    refused(
        alice
            .put_counted(&append("Table"), numbers("id", [1]))
            .await,
        Code::NotFound,
        "table `Table` does not exist",
    );
    assert_eq!(
        alice
            .put_counted(&create("Table"), numbers("id", 0..30_000))
            .await
            .unwrap(),
        30_000
    );
    refused(
        alice
            .put_counted(&create("Table"), numbers("id", [1]))
            .await,
        Code::AlreadyExists,
        "`Table` exists already",
    );
    assert_eq!(alice.shows(table).await, "449985000|30000");
    for command in [append("Table"), create_append("Table")] {
        alice
            .put_counted(&command, numbers("id", [15_000]))
            .await
            .unwrap();
    }
    assert_eq!(alice.shows(table).await, "450015000|30002");
    let words = columns(vec![("word", Arc::new(StringArray::from(vec!["a", "b"])))]);
    alice.put_counted(&replace("Table"), words).await.unwrap();
    assert_eq!(alice.shows(r#"SELECT word FROM "Table""#).await, "a b");
    alice
        .put_counted(&create_append("u"), numbers("id", [1]))
        .await
        .unwrap();
    alice
        .put_counted(&replace("v"), numbers("id", NO_ROWS))
        .await
        .unwrap();
    assert_eq!(alice.shows("SELECT count(*) FROM v").await, "0");
    assert_eq!(bob.shows(table).await, "7|1");
}

#[tokio::test]
async fn columns_are_matched_by_name_and_values_keep_what_they_are() {
    let (_server, mut alice, _) = world().await;
    alice
        .update("CREATE TABLE t (id BIGINT PRIMARY KEY, word TEXT DEFAULT 'none', n INT)")
        .await
        .unwrap();
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let wide: ArrayRef = Arc::new(Int64Array::from(vec![10, 20]));
    let batch = columns(vec![("n", wide), ("id", narrow.clone())]);
    alice.put_counted(&append("t"), batch).await.unwrap();
    assert_eq!(
        alice.shows("SELECT id, word, n FROM t ORDER BY id").await,
        "1|none|10 2|none|20"
    );
    let text: ArrayRef = Arc::new(StringArray::from(vec!["7", "8"]));
    let large: ArrayRef = Arc::new(Int64Array::from(vec![1, i64::MAX]));
    for (column, batch) in [
        ("`id`", columns(vec![("id", text.clone())])),
        ("`n`", columns(vec![("id", narrow.clone()), ("n", large)])),
        (
            "`other`",
            columns(vec![("id", narrow.clone()), ("other", text)]),
        ),
        (
            "`id`",
            columns(vec![("id", narrow.clone()), ("id", narrow.clone())]),
        ),
        ("`id`", columns(vec![("n", narrow)])),
    ] {
        refused(
            alice.put_counted(&append("t"), batch).await,
            Code::InvalidArgument,
            column,
        );
    }
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "2");
    for (command, says) in [
        (
            CommandStatementIngest {
                catalog: Some("jammi".into()),
                ..create("x")
            },
            "mutable.public",
        ),
        (
            CommandStatementIngest {
                schema: Some("other".into()),
                ..create("x")
            },
            "mutable.public",
        ),
        (
            CommandStatementIngest {
                table_definition_options: None,
                ..create("x")
            },
            "does not say",
        ),
    ] {
        let status = alice
            .put_counted(&command, numbers("id", [1]))
            .await
            .unwrap_err();
        assert!(status.message().contains(says), "{status:?}");
    }
}

#[tokio::test]
async fn a_bad_row_in_the_last_batch_leaves_nothing() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    bob.update("INSERT INTO t VALUES (1, 'canary')")
        .await
        .unwrap();
    // Far more than is held in memory before it is written.
    let rows = 150_000;
    let word = "x".repeat(100);
    let made = |last: i64, tenant: &str| {
        let ids = Int64Array::from_iter_values((1..rows).chain([last]));
        let words = StringArray::from_iter_values(std::iter::repeat_n(&word, rows as usize));
        let tenants = (1..rows).map(|_| ALICE).chain([tenant]);
        columns(vec![
            ("id", Arc::new(ids) as ArrayRef),
            ("word", Arc::new(words)),
            (
                "tenant_id",
                Arc::new(StringArray::from_iter_values(tenants)),
            ),
        ])
    };
    for (command, batch, code) in [
        (append("t"), made(rows, BOB), Code::PermissionDenied),
        (append("t"), made(1, ALICE), Code::AlreadyExists),
        (append("t"), made(1 << 40, ALICE), Code::InvalidArgument),
        (create("made"), made(rows, BOB), Code::PermissionDenied),
        (replace("t"), made(rows, BOB), Code::PermissionDenied),
    ] {
        refused(alice.put_counted(&command, batch).await, code, "");
        assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
        refused(alice.query("SELECT * FROM made").await, Code::NotFound, "");
    }
    assert_eq!(bob.shows("SELECT id, word FROM t").await, "1|canary");
    alice
        .put_counted(&append("t"), made(rows, ALICE))
        .await
        .unwrap();
    assert_eq!(
        alice.shows("SELECT count(*), max(id) FROM t").await,
        "150000|150000"
    );
}

/// The messages of a put of `batch`, its schema first.
async fn messages(command: Option<&CommandStatementIngest>, batch: RecordBatch) -> Vec<FlightData> {
    let encoder = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(command.map(crate::client::descriptor))
        .with_schema(batch.schema())
        .build(futures::stream::iter([Ok(batch)]));
    encoder.try_collect().await.unwrap()
}

#[tokio::test]
async fn a_last_batch_of_another_schema_leaves_nothing() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    for client in [&mut alice, &mut bob] {
        client
            .update("INSERT INTO t VALUES (-1, 'canary')")
            .await
            .unwrap();
    }
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["7", "8"]));
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![7, 8]));
    let others = [
        columns(vec![("id", texts.clone())]),
        columns(vec![("id", narrow)]),
        columns(vec![("other", texts.clone())]),
        columns(vec![("id", texts.clone()), ("word", texts)]),
    ];
    let id = alice.begin().await.unwrap();
    let within = CommandStatementIngest {
        transaction_id: Some(id.clone()),
        ..append("t")
    };
    for command in [append("t"), create("made"), replace("t"), within] {
        for other in &others {
            let other = messages(None, other.clone()).await;
            // With its schema before it, and without.
            for last in [&other[..], &other[1..]] {
                let mut sent = messages(Some(&command), numbers("id", 0..100_000)).await;
                sent.extend_from_slice(last);
                let request = alice.request(futures::stream::iter(sent));
                let answer = match alice.flight.do_put(request).await {
                    Ok(results) => results.into_inner().try_collect::<Vec<_>>().await,
                    Err(refused) => Err(refused),
                };
                refused(answer, Code::InvalidArgument, "");
                let found = match &command.transaction_id {
                    Some(id) => alice.query_in("SELECT id FROM t", id).await.unwrap(),
                    None => alice.shows("SELECT id FROM t").await,
                };
                assert_eq!(found, "-1");
                refused(alice.query("SELECT * FROM made").await, Code::NotFound, "");
            }
        }
    }
    alice.commit(&id).await.unwrap();
    assert_eq!(alice.shows("SELECT id, word FROM t").await, "-1|canary");
    assert_eq!(bob.shows("SELECT id, word FROM t").await, "-1|canary");
}

#[tokio::test]
async fn an_ingest_takes_part_in_a_transaction() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let id = alice.begin().await.unwrap();
    let named = CommandStatementIngest {
        transaction_id: Some(id.clone()),
        ..append("t")
    };
    alice.put_counted(&named, numbers("id", [1])).await.unwrap();
    // Of the one transaction that its connection has open, for ADBC names none.
    alice
        .put_counted(&create("made"), numbers("id", [2]))
        .await
        .unwrap();
    refused(alice.query("SELECT * FROM made").await, Code::NotFound, "");
    assert_eq!(
        alice.query_in("SELECT id FROM made", &id).await.unwrap(),
        "2"
    );
    alice.roll_back(&id).await.unwrap();
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    refused(alice.query("SELECT * FROM made").await, Code::NotFound, "");
    alice
        .put_counted(&append("t"), numbers("id", [3]))
        .await
        .unwrap();
    assert_eq!(alice.shows("SELECT id FROM t").await, "3");
}

/// The messages of a put, of which the last never comes.
fn stalled(
    command: &impl ProstMessageExt,
    batches: Vec<RecordBatch>,
) -> impl futures::Stream<Item = arrow_flight::FlightData> + Send + 'static {
    let messages = arrow_flight::encode::FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(crate::client::descriptor(command)))
        .build(futures::stream::iter(batches.into_iter().map(Ok)));
    messages
        .map(Result::unwrap)
        .chain(futures::stream::pending())
}

#[tokio::test]
async fn a_client_that_pauses_for_long_is_sent_away() {
    let server = TestServer::start_with(|config| config.server.put_timeout_ms = 100).await;
    let (_server, mut alice, mut bob) = world_with(server).await;
    with_tables(&mut alice, &mut bob).await;
    let request = alice.request(stalled(&append("t"), vec![numbers("id", [1])]));
    let put = alice.flight.do_put(request).await.map(drop);
    refused(put, Code::Cancelled, "server.put_timeout_ms");
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
}

/// Sends more rows than are held in memory, leaves while the lane waits for the rest
/// of them, and expects the part that was written to be undone.
async fn break_off(alice: &mut Client, bob: &mut Client, command: CommandStatementIngest) {
    let halves = [0..1_500_000, 1_500_000..3_000_000];
    let halves = halves.map(|ids| numbers("id", ids)).to_vec();
    let request = alice.request(stalled(&command, halves));
    let mut leaving = alice.clone();
    let put = tokio::spawn(async move { leaving.flight.do_put(request).await.map(drop) });
    // Until it has the lane's turn to write, which others then wait for in vain.
    while alice.update("DELETE FROM t WHERE id = -1").await.is_ok() {
        assert!(!put.is_finished(), "{:?}", put.await);
    }
    assert_eq!(bob.update("UPDATE t SET word = word").await.unwrap(), 1);
    assert!(!put.is_finished(), "{:?}", put.await);
    put.abort();
    let _ = put.await;
    // A batch that is being written is written to its end before it is undone.
    while let Err(busy) = alice.update("DELETE FROM t WHERE id = -1").await {
        assert_eq!(busy.code(), Code::Unavailable, "{busy:?}");
    }
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn an_ingest_that_breaks_off_leaves_nothing() {
    let server = TestServer::start_with(|config| config.lanes.busy_timeout_ms = 200).await;
    let (_server, mut alice, mut bob) = world_with(server).await;
    with_tables(&mut alice, &mut bob).await;
    bob.update("INSERT INTO t VALUES (1, 'canary')")
        .await
        .unwrap();
    break_off(&mut alice, &mut bob, append("t")).await;
    // A broken ingest ends the transaction that it is part of.
    let id = alice.begin().await.unwrap();
    let named = CommandStatementIngest {
        transaction_id: Some(id.clone()),
        ..create("made")
    };
    break_off(&mut alice, &mut bob, named).await;
    refused(
        alice.commit(&id).await,
        Code::FailedPrecondition,
        "was broken off",
    );
    refused(alice.query("SELECT * FROM made").await, Code::NotFound, "");
    assert_eq!(bob.shows("SELECT id, word FROM t").await, "1|canary");
}

#[tokio::test]
async fn forged_rows_are_refused_and_leave_nothing() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let messages: Vec<_> = arrow_flight::encode::FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(crate::client::descriptor(&append("t"))))
        .build(futures::stream::iter([Ok(numbers("id", 0..100))]))
        .try_collect()
        .await
        .unwrap();
    let count = messages.len();
    for at in 0..messages[count - 1].data_header.len() {
        let mut forged = messages.clone();
        let mut header = forged[count - 1].data_header.to_vec();
        header[at] ^= 0xff;
        forged[count - 1].data_header = header.into();
        let request = alice.request(futures::stream::iter(forged));
        if let Ok(results) = alice.flight.do_put(request).await {
            let _: Vec<_> = results.into_inner().try_collect().await.unwrap();
            alice.update("TRUNCATE t").await.unwrap();
        }
        assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    }
}

/// `rows` for `t` as they are sent compressed, in one message.
async fn compressed(rows: RecordBatch) -> Vec<FlightData> {
    let options = IpcWriteOptions::default()
        .try_with_compression(Some(CompressionType::ZSTD))
        .unwrap();
    FlightDataEncoderBuilder::new()
        .with_options(options)
        .with_max_flight_data_size(usize::MAX)
        .with_flight_descriptor(Some(crate::client::descriptor(&append("t"))))
        .build(futures::stream::iter([Ok(rows)]))
        .try_collect()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_bomb_and_forged_compressed_lengths_are_refused_and_leave_nothing() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    bob.update("INSERT INTO t VALUES (1, 'canary')")
        .await
        .unwrap();
    let put = async |alice: &mut Client, messages: Vec<FlightData>| {
        let request = alice.request(futures::stream::iter(messages));
        let results = alice.flight.do_put(request).await?.into_inner();
        results.try_collect::<Vec<_>>().await.map(drop)
    };
    // A hundred MiB of one number take a few KiB.
    let zeros = Int64Array::from_value(0, 13 << 20);
    let bomb = compressed(columns(vec![("id", Arc::new(zeros))])).await;
    assert!(bomb.iter().all(|message| message.data_body.len() < 1 << 20));
    let status = put(&mut alice, bomb).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let setting = "server.message_bytes_max";
    assert!(status.message().contains(setting), "{status:?}");

    let honest = compressed(numbers("id", 0..1000)).await;
    let body = honest.last().unwrap().data_body.to_vec();
    // A buffer says its length before it was compressed.
    let length = 8_000_i64.to_le_bytes();
    let at = body.windows(8).position(|bytes| bytes == length).unwrap();
    for claimed in [i64::MAX, 1 << 40, 7_999, 8_001, 0, -2, i64::MIN] {
        let mut forged = honest.clone();
        let mut body = body.clone();
        body[at..at + 8].copy_from_slice(&claimed.to_le_bytes());
        forged.last_mut().unwrap().data_body = body.into();
        let status = put(&mut alice, forged).await.unwrap_err();
        assert!(
            matches!(
                status.code(),
                Code::InvalidArgument | Code::ResourceExhausted
            ),
            "{claimed}: {status:?}"
        );
        assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
        assert_eq!(bob.shows("SELECT id, word FROM t").await, "1|canary");
    }
    put(&mut alice, honest).await.unwrap();
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "1000");
    assert_eq!(bob.shows("SELECT id, word FROM t").await, "1|canary");
}
