"""Writes through ADBC as applications make them, by two tenants at a time."""

import datetime
import decimal
from functools import partial

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from adbc_driver_manager import Error, NotSupportedError, ProgrammingError
from connecting import SESSION_HEADER
from flight_sql import statement_query

in_adbc = partial(pytest.mark.feature, "adbc (Python)")
in_flight = partial(pytest.mark.feature, "pyarrow.flight")


def rows(cursor, sql, parameters=None):
    cursor.execute(sql, parameters)
    return cursor.fetchall()


@pytest.fixture
def tenants(client, alice, bob):
    """A session of each of two tenants, with an empty table `t` of each one's own."""
    sessions = client(alice), client(bob)
    for session in sessions:
        session.rows("CREATE TABLE t (id BIGINT PRIMARY KEY, word TEXT)")
    sessions[1].rows("INSERT INTO t VALUES (1, 'canary')")
    yield sessions
    assert sessions[1].rows("SELECT * FROM t") == [(1, "canary", bob)]


@pytest.fixture
def cursor(tenants):
    with tenants[0].connect() as connection, connection.cursor() as cursor:
        yield cursor


# Statements


@in_adbc("query", "parameters")
def test_statements_write_and_tell_how_many_rows(cursor):
    assert rows(cursor, "INSERT INTO t VALUES (1, 'a'), (2, 'b')") == [(2,)]
    assert rows(cursor, "INSERT INTO t VALUES (?, ?)", (3, "c")) == [(1,)]
    assert rows(cursor, "UPDATE t SET word = upper(word) WHERE id < ?", (3,)) == [(2,)]
    assert rows(cursor, "DELETE FROM t WHERE id = 1 RETURNING word") == [("A",)]
    assert rows(cursor, "SELECT id, word FROM t ORDER BY id") == [(2, "B"), (3, "c")]
    cursor.execute("DROP TABLE t")
    assert cursor.description == []
    with pytest.raises(ProgrammingError, match="table `t` does not exist"):
        rows(cursor, "SELECT * FROM t")
    rows(cursor, "CREATE TABLE t (id BIGINT)")


@in_adbc("query")
def test_what_is_executed_is_done_before_anything_is_fetched(cursor):
    for number in range(30):
        cursor.execute(f"INSERT INTO t (id) VALUES ({number})")
    assert rows(cursor, "SELECT count(*) FROM t") == [(30,)]


@in_adbc("errors")
def test_a_key_that_is_taken_is_named(cursor):
    rows(cursor, "INSERT INTO t VALUES (5, 'a')")
    with pytest.raises(Error, match="id = 5") as error:
        rows(cursor, "INSERT INTO t VALUES (4, 'b'), (5, 'c')")
    assert "ALREADY_EXISTS" in str(error.value)
    assert rows(cursor, "SELECT id FROM t") == [(5,)]


@in_adbc("batch", "prepared")
def test_many_rows_are_bound_to_one_statement(cursor):
    count = 100_000
    table = pa.table({"0": range(count), "1": [str(number) for number in range(count)]})
    cursor.executemany("INSERT INTO t VALUES (?, ?)", table.to_batches(10_000)[0])
    assert cursor.rowcount == 10_000
    cursor.executemany(
        "INSERT INTO t VALUES ($1, $2)",
        pa.RecordBatchReader.from_batches(table.schema, table.slice(10_000).to_batches(10_000)),
    )
    assert cursor.rowcount == count - 10_000
    assert rows(cursor, "SELECT count(*), sum(id) FROM t WHERE word = CAST(id AS TEXT)") == [
        (count, count * (count - 1) // 2)
    ]
    cursor.executemany("UPDATE t SET word = ? WHERE id = ?", [("x", 1), ("y", 2), ("z", -1)])
    assert cursor.rowcount == 2
    cursor.executemany("DELETE FROM t WHERE id = ?", [(1,), (2,)])
    assert rows(cursor, "SELECT count(*) FROM t") == [(count - 2,)]


@in_adbc("batch", "errors", "isolation")
def test_rows_are_written_together_or_not_at_all(cursor, bob):
    taken = [(number, "x") for number in range(5_000)] + [(7, "again")]
    with pytest.raises(Error, match="id = 7"):
        cursor.executemany("INSERT INTO t VALUES (?, ?)", taken)
    with pytest.raises(Error, match="another tenant"):
        cursor.executemany(
            "INSERT INTO t (id, tenant_id) VALUES (?, ?)", [(1, None), (2, bob)]
        )
    with pytest.raises(ProgrammingError, match="parameter 1 is Utf8 where Int64 is expected"):
        cursor.executemany("INSERT INTO t VALUES (?, ?)", [("one", "x")])
    assert rows(cursor, "SELECT count(*) FROM t") == [(0,)]


@in_adbc("ingest", "types")
def test_values_come_back_as_they_went(tenants):
    session, _ = tenants
    table = pa.table(
        {
            "flag": pa.array([True, None]),
            "large": pa.array([2**64 - 1, 0], pa.uint64()),
            "ratio": pa.array([float("nan"), -0.0]),
            "price": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(10, 2)),
            "day": pa.array([datetime.date(2024, 2, 29), None]),
            "at": pa.array([1, -1], pa.timestamp("us", "Europe/Berlin")),
            "blob": pa.array([b"\x00\xff", b""]),
            "list": pa.array([[1, None], []], pa.list_(pa.int32())),
            "pair": pa.array([{"a": 1, "b": "x"}, None]),
        }
    )
    with session.connect() as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("kept", table, mode="create") == 2
        cursor.execute(f"SELECT {', '.join(table.column_names)} FROM kept")
        found = cursor.fetch_arrow_table()
    assert found.schema.types == table.schema.types
    for name in table.column_names:
        assert str(found[name].to_pylist()) == str(table[name].to_pylist())


# Transactions


@in_adbc("transactions", "batch")
def test_a_transaction_is_committed_or_rolled_back(tenants):
    session, _ = tenants
    count = "SELECT count(*) FROM t"
    with session.connect(autocommit=False) as connection, connection.cursor() as cursor:
        rows(cursor, "INSERT INTO t VALUES (1, 'a')")
        cursor.executemany("INSERT INTO t VALUES (?, ?)", [(2, "b"), (3, "c")])
        assert rows(cursor, count) == [(3,)]
        assert session.rows(count) == [(0,)]
        connection.commit()
        assert session.rows(count) == [(3,)]
        # The cursor goes on with the statement that it has prepared.
        assert rows(cursor, count) == [(3,)]
        cursor.executemany("INSERT INTO t VALUES (?, ?)", [(4, "d")])
        rows(cursor, "CREATE TABLE u (id INT)")
        connection.rollback()
        assert rows(cursor, count) == [(3,)]
        with pytest.raises(ProgrammingError, match="`u` does not exist"):
            rows(cursor, "SELECT * FROM u")
        # A statement that fails leaves the rest as it is.
        rows(cursor, "DELETE FROM t WHERE id = 1")
        with pytest.raises(Error, match="id = 2"):
            cursor.executemany("INSERT INTO t VALUES (?, ?)", [(9, "i"), (2, "b")])
        connection.commit()
    assert session.rows("SELECT id FROM t ORDER BY id") == [(2,), (3,)]


@in_adbc("transactions")
def test_autocommit_is_switched(tenants):
    session, _ = tenants
    with session.connect(autocommit=True) as connection, connection.cursor() as cursor:
        rows(cursor, "INSERT INTO t VALUES (1, 'a')")
        connection.adbc_connection.set_autocommit(False)
        rows(cursor, "INSERT INTO t VALUES (2, 'b')")
        connection.adbc_connection.rollback()
        connection.adbc_connection.set_autocommit(True)
        rows(cursor, "INSERT INTO t VALUES (3, 'c')")
    assert session.rows("SELECT id FROM t ORDER BY id") == [(1,), (3,)]


@in_adbc("transactions")
def test_closing_a_connection_rolls_back_its_own_transaction(tenants):
    session, _ = tenants
    first, second = session.connect(autocommit=False), session.connect(autocommit=False)
    with first.cursor() as cursor:
        rows(cursor, "INSERT INTO t VALUES (1, 'a')")
    first.close()
    with second.cursor() as cursor:
        rows(cursor, "INSERT INTO t VALUES (2, 'b')")
    clone = second.adbc_clone()
    clone.close()
    second.commit()
    second.close()
    assert session.rows("SELECT id FROM t") == [(2,)]


@in_adbc("transactions", "errors")
def test_a_conflict_is_told_and_the_transaction_run_again(tenants):
    session, other = tenants
    session.rows("INSERT INTO t VALUES (1, '0')")
    bump = "UPDATE t SET word = CAST(CAST(word AS INT) + 1 AS TEXT)"
    with session.connect(autocommit=False) as one, session.connect(autocommit=False) as two:
        with one.cursor() as first, two.cursor() as second:
            assert rows(first, "SELECT word FROM t") == rows(second, "SELECT word FROM t")
            rows(first, bump)
            one.commit()
            with pytest.raises(Error, match="run it again"):
                rows(second, bump)
            two.rollback()
            rows(second, bump)
            two.commit()
    assert session.rows("SELECT word FROM t") == [("2",)]


@in_adbc("transactions", "session")
def test_sql_text_opens_a_transaction_of_the_session(tenants):
    session, _ = tenants
    with session.connect() as connection, connection.cursor() as cursor:
        rows(cursor, "BEGIN")
        rows(cursor, "INSERT INTO t VALUES (1, 'a')")
        cursor.execute("SAVEPOINT s")
        rows(cursor, "INSERT INTO t VALUES (2, 'b')")
        cursor.execute("ROLLBACK TO s")
        cursor.executemany("INSERT INTO t VALUES (?, ?)", [(3, "c")])
        assert cursor.adbc_ingest("t", pa.table({"id": [4]}), mode="append") == 1
        # Its other connections take part in it.
        assert session.rows("SELECT count(*) FROM t") == [(3,)]
        cursor.execute("COMMIT")
        with pytest.raises(Error, match="send BEGIN first"):
            cursor.execute("ROLLBACK")
    assert session.rows("SELECT id FROM t ORDER BY id") == [(1,), (3,), (4,)]


@in_adbc("transactions", "isolation")
def test_rebinding_rolls_back(tenants, alice, bob):
    session, _ = tenants
    with session.connect(autocommit=False) as connection, connection.cursor() as cursor:
        rows(cursor, "INSERT INTO t VALUES (7, 'x')")
        session.bind(bob)
        with pytest.raises(Error, match="does not exist, or has ended"):
            rows(cursor, "SELECT 1")
        connection.rollback()
        # The new transaction is the new tenant's.
        assert rows(cursor, "SELECT word FROM t") == [("canary",)]
        session.bind(alice)
        connection.rollback()
        assert rows(cursor, "SELECT count(*) FROM t") == [(0,)]


@in_adbc("transactions")
def test_transactions_are_counted(tenants, metric):
    session, _ = tenants
    ended = "jammi_transactions_ended_total"
    committed, closed = metric(ended, how="committed"), metric(ended, how="closed")
    connection = session.connect(autocommit=False)
    with connection.cursor() as cursor:
        rows(cursor, "INSERT INTO t VALUES (1, 'a')")
        assert metric("jammi_transactions") >= 1
    connection.commit()
    connection.close()
    assert metric(ended, how="committed") == committed + 1
    assert metric(ended, how="closed") == closed + 1


@in_adbc("transactions")
def test_a_killed_client_holds_up_nobody(tenants, server):
    import subprocess
    import sys

    session, _ = tenants
    script = f"""
import adbc_driver_flightsql.dbapi, os, sys
options = {{"adbc.flight.sql.rpc.call_header.jammi-session-id": {session.session!r}}}
connection = adbc_driver_flightsql.dbapi.connect({server.url!r}, options)
cursor = connection.cursor()
cursor.executemany("INSERT INTO t VALUES (?, ?)", [(1, "a")])
print("written", flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "written\n", done.stderr
    # Long before the transaction would be given up as idle.
    assert session.rows("INSERT INTO t VALUES (2, 'b')") == [(1,)]
    assert session.rows("SELECT id FROM t") == [(2,)]


# Bulk


@in_adbc("ingest")
def test_rows_are_ingested_in_every_mode(cursor, bob):
    table = pa.table({"id": range(10), "word": [f"w{number}" for number in range(10)]})
    count = 'SELECT count(*), sum(id) FROM "Bulk"'
    with pytest.raises(ProgrammingError, match="table `Bulk` does not exist"):
        cursor.adbc_ingest("Bulk", table, mode="append")
    assert cursor.adbc_ingest("Bulk", table, mode="create") == 10
    with pytest.raises(Error, match="`Bulk` exists already"):
        cursor.adbc_ingest("Bulk", table, mode="create")
    assert cursor.adbc_ingest("Bulk", table, mode="append") == 10
    assert cursor.adbc_ingest("Bulk", table, mode="create_append") == 10
    assert rows(cursor, count) == [(30, 135)]
    assert cursor.adbc_ingest("Bulk", table.slice(3), mode="replace") == 7
    assert rows(cursor, count) == [(7, 42)]
    # By name, and in whatever order.
    assert cursor.adbc_ingest("t", table.select(["word", "id"]), mode="append") == 10
    assert rows(cursor, "SELECT word FROM t WHERE id = 3") == [("w3",)]


@in_adbc("ingest", "isolation")
def test_a_stream_is_ingested_or_leaves_nothing(tenants, alice, bob):
    session, _ = tenants
    schema = pa.schema([("id", pa.int64()), ("word", pa.string()), ("tenant_id", pa.string())])

    def stream(last):
        for number in range(40):
            ids = range(number * 5_000, (number + 1) * 5_000)
            tenants = [alice] * 4_999 + [last if number == 39 else alice]
            yield pa.record_batch([list(ids), ["x" * 100] * 5_000, tenants], schema)

    with session.connect() as connection, connection.cursor() as cursor:
        for mode in ("append", "replace", "create_append"):
            with pytest.raises(Error, match="another tenant"):
                reader = pa.RecordBatchReader.from_batches(schema, stream(bob))
                cursor.adbc_ingest("t", reader, mode=mode)
            assert rows(cursor, "SELECT count(*) FROM t") == [(0,)]
        reader = pa.RecordBatchReader.from_batches(schema, stream(alice))
        assert cursor.adbc_ingest("t", reader, mode="append") == 200_000
        assert rows(cursor, "SELECT count(*), max(id) FROM t") == [(200_000, 199_999)]


@in_adbc("ingest", "transactions")
def test_an_ingest_is_part_of_the_transaction(tenants):
    session, _ = tenants
    table = pa.table({"id": [1, 2]})
    with session.connect(autocommit=False) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("t", table, mode="append")
        cursor.adbc_ingest("made", table, mode="create")
        assert rows(cursor, "SELECT count(*) FROM made") == [(2,)]
        assert session.rows("SELECT count(*) FROM t") == [(0,)]
        connection.rollback()
        assert rows(cursor, "SELECT count(*) FROM t") == [(0,)]
        cursor.adbc_ingest("made", table, mode="create")
        connection.commit()
    assert session.rows("SELECT count(*) FROM made") == [(2,)]


@in_adbc("ingest", "session", "isolation")
def test_temporary_tables_are_ingested_into(client, tenants, alice):
    session, bob = tenants
    other = client(alice)
    table = pa.table({"id": [10, 20], "word": ["x", "y"]})
    count = "SELECT count(*), sum(id) FROM t"
    with session.connect() as connection, connection.cursor() as cursor:
        with pytest.raises(ProgrammingError, match="temporary table `t` does not exist"):
            cursor.adbc_ingest("t", table, mode="append", temporary=True)
        assert cursor.adbc_ingest("t", table, mode="create", temporary=True) == 2
        with pytest.raises(Error, match="`t` exists already"):
            cursor.adbc_ingest("t", table, mode="create", temporary=True)
        assert cursor.adbc_ingest("t", table, mode="append", temporary=True) == 2
        assert cursor.adbc_ingest("t", table, mode="create_append", temporary=True) == 2
        assert rows(cursor, count) == [(6, 90)]
        assert cursor.adbc_ingest("t", table, mode="replace", temporary=True) == 2
        assert rows(cursor, count) == [(2, 30)]
        objects = connection.adbc_get_objects(depth="tables", table_name_filter="t").read_all()
        kinds = [
            table["table_type"]
            for catalog in objects.to_pylist()
            for schema in catalog["catalog_db_schemas"]
            for table in schema["db_schema_tables"]
        ]
        assert kinds == ["LOCAL TEMPORARY"]
        # The table of the tenant is what others see, of this tenant too.
        for unaware in (other, bob):
            with unaware.connect() as sibling, sibling.cursor() as unseeing:
                assert "LOCAL TEMPORARY" not in str(
                    sibling.adbc_get_objects(depth="tables").read_all().to_pylist()
                )
                assert rows(unseeing, "SELECT word FROM t WHERE id > 9") == []
        # Another connection of the session that closes takes nothing along.
        with session.connect() as sibling, sibling.cursor() as again:
            assert rows(again, count) == [(2, 30)]
        assert rows(cursor, count) == [(2, 30)]
    # The driver has closed the session.
    assert session.rows(count) == [(0, None)]


@pytest.mark.parametrize(
    ("options", "table", "says"),
    [
        ({"temporary": True}, {"id": [1]}, "temporary table `t` does not exist"),
        ({"catalog_name": "jammi"}, {"id": [1]}, "leave catalog and schema unset"),
        ({"db_schema_name": "other"}, {"id": [1]}, "leave catalog and schema unset"),
        ({}, {"id": ["1"]}, "column `id` is Utf8 where Int64 is expected"),
        ({}, {"id": [1.5]}, "column `id` is Float64 where Int64 is expected"),
        ({}, {"id": [1], "nope": [1]}, "`nope` does not exist"),
        ({}, {"word": ["x"]}, "column `id` of table `t` cannot be NULL"),
    ],
)
@in_adbc("ingest", "errors")
def test_what_does_not_fit_is_refused(cursor, options, table, says):
    with pytest.raises((ProgrammingError, NotSupportedError)) as error:
        cursor.adbc_ingest("t", pa.table(table), mode="append", **options)
    assert says in str(error.value)
    assert rows(cursor, "SELECT count(*) FROM t") == [(0,)]


# Metadata


@in_adbc("metadata")
def test_a_stored_table_is_described(tenants):
    session, _ = tenants
    with session.connect() as connection:
        schema = connection.adbc_get_table_schema("t")
        assert schema.names == ["id", "word", "tenant_id"]
        assert schema.field("id").metadata[b"ARROW:FLIGHT:SQL:IS_READ_ONLY"] == b"0"
        found = connection.adbc_get_objects(depth="tables", catalog_filter="mutable")
        tables = found.read_all().to_pylist()[0]["catalog_db_schemas"][0]["db_schema_tables"]
        assert [(table["table_name"], table["table_type"]) for table in tables] == [("t", "TABLE")]


@in_flight("query", "errors")
def test_a_ticket_writes_once(tenants, server):
    session, _ = tenants
    header = [(SESSION_HEADER.encode(), session.session.encode())]
    options = flight.FlightCallOptions(headers=header)
    with flight.connect(server.url) as flights:
        command = statement_query("INSERT INTO t VALUES (1, 'a')")
        descriptor = flight.FlightDescriptor.for_command(command)
        announced = flights.get_flight_info(descriptor, options)
        assert flights.get_schema(descriptor, options).schema.names == ["count"]
        ticket = announced.endpoints[0].ticket
        counted = flights.do_get(ticket, options).read_all()
        assert counted.to_pydict() == {"count": [1]}
        with pytest.raises(pa.ArrowException, match="was used before"):
            flights.do_get(ticket, options).read_all()
    assert session.rows("SELECT count(*) FROM t") == [(1,)]
