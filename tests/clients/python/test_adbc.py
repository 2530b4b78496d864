"""The Flight SQL driver of ADBC, through its DB-API, as applications use it."""

import warnings
from functools import partial

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi
import pyarrow as pa
import pyarrow.compute
import pyarrow.flight as flight
import pyarrow.parquet as pq
import pytest
from adbc_driver_manager import NotSupportedError, OperationalError, ProgrammingError
from connecting import ADBC_HEADER
from flight_sql import plan_of_read

in_adbc = partial(pytest.mark.feature, "adbc (Python)")


@pytest.fixture
def cursor(client, alice):
    with client(alice).connect() as connection, connection.cursor() as cursor:
        yield cursor


def rows(cursor, sql, parameters=None):
    cursor.execute(sql, parameters)
    return cursor.fetchall()


# Queries


@in_adbc("query", "types")
def test_rows_come_with_names_and_types(cursor):
    cursor.execute(
        "SELECT 1 AS number, 'x' AS text, true AS flag, NULL AS nothing, DATE '2026-01-31' AS day,"
        " CAST(1.50 AS DECIMAL(10, 2)) AS price, [1, 2] AS list"
    )
    assert [column[0] for column in cursor.description] == [
        "number", "text", "flag", "nothing", "day", "price", "list",
    ]
    table = cursor.fetch_arrow_table()
    assert table.schema.field("number").type == pa.int64()
    assert table.schema.field("text").type == pa.string()
    assert table.schema.field("day").type == pa.date32()
    assert table.schema.field("price").type == pa.decimal128(10, 2)
    assert table.to_pylist()[0]["list"] == [1, 2]
    assert table.num_rows == 1


@in_adbc("query", "isolation")
def test_a_plan_of_substrait_runs_where_it_is_served(server, client, alice, bob, notes):
    plan = plan_of_read(notes.split("."), id=7, title=12)
    with flight.connect(server.url) as flights:
        served = "CreatePreparedSubstraitPlan" in {action.type for action in flights.list_actions()}
    for tenant, titles in ((alice, ["a1", "a2", "shared"]), (bob, ["b1", "shared"])):
        with client(tenant).connect() as connection, connection.cursor() as cursor:
            if served:
                cursor.execute(plan)
                table = cursor.fetch_arrow_table()
                assert table.column_names == ["id", "title"]
                assert sorted(table.column("title").to_pylist()) == titles
            else:
                with pytest.raises(NotSupportedError, match="--features substrait"):
                    cursor.execute(plan)


@in_adbc("query")
def test_an_empty_result_keeps_its_columns(cursor):
    cursor.execute("SELECT 1 AS a, 'x' AS b WHERE false")
    table = cursor.fetch_arrow_table()
    assert table.column_names == ["a", "b"]
    assert table.num_rows == 0


@in_adbc("query")
def test_a_cursor_runs_one_statement_after_the_other(cursor):
    for number in range(20):
        assert rows(cursor, f"SELECT {number}") == [(number,)]


@pytest.mark.parametrize("placeholder", ["?", "$1"])
@in_adbc("parameters", "isolation")
def test_a_parameter_is_bound(cursor, notes, placeholder):
    sql = f"SELECT title FROM {notes} WHERE id = {placeholder}"
    assert rows(cursor, sql, (1,)) == [("a1",)]
    # The same statement again, with another tenant's row and with none.
    assert rows(cursor, sql, (3,)) == []
    assert rows(cursor, sql, (None,)) == []


@in_adbc("parameters")
def test_parameters_are_bound_in_order(cursor):
    assert rows(cursor, "SELECT ?, ?", ("a", "b")) == [("a", "b")]
    assert rows(cursor, "SELECT $2, $1, $2 AS again", ("a", "b")) == [("b", "a", "b")]
    assert rows(cursor, "SELECT 1 + ?, 'x' || ?", (2, "y")) == [(3, "xy")]


@in_adbc("parameters")
def test_parameters_come_as_a_record_batch(cursor, notes):
    batch = pa.record_batch({"0": pa.array([2], pa.int32())})
    assert rows(cursor, f"SELECT title FROM {notes} WHERE id = $1", batch) == [("a2",)]


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        (None, "the statement has 1 parameter"),
        ((1, 2), "the statement has 1 parameter and 2 values are bound"),
        (("many",), "parameter 1 is Utf8 where Int64 is expected"),
        (pa.record_batch({"0": [1, 2]}), "takes one row of parameters"),
    ],
)
@in_adbc("parameters", "errors")
def test_wrong_parameters_are_told_apart(cursor, notes, parameters, says):
    with pytest.raises(ProgrammingError, match="INVALID_ARGUMENT") as error:
        rows(cursor, f"SELECT title FROM {notes} WHERE id = ?", parameters)
    assert says in str(error.value)
    assert rows(cursor, "SELECT 1") == [(1,)]


@in_adbc("prepared", "metadata")
def test_the_schema_of_a_statement_is_known_before_it_runs(cursor, notes):
    schema = cursor.adbc_execute_schema(f"SELECT id, title FROM {notes} WHERE id > ?")
    assert schema.names == ["id", "title"]
    assert schema.types == [pa.int64(), pa.string()]
    assert cursor.adbc_prepare(f"SELECT id FROM {notes} WHERE id > ?").types == [pa.int64()]


@in_adbc("query", "session", "isolation")
def test_partitions_are_read_by_another_connection_of_the_session(client, alice, notes):
    session = client(alice)
    with session.connect() as connection, connection.cursor() as cursor:
        partitions, _ = cursor.adbc_execute_partitions(f"SELECT title FROM {notes} ORDER BY id")
    with session.connect() as connection, connection.cursor() as cursor:
        cursor.adbc_read_partition(partitions[0])
        assert cursor.fetchall() == [("a1",), ("a2",), ("shared",)]
    # And not by another session, of the same tenant or not.
    for other in (client(alice), client()):
        with other.connect() as connection, connection.cursor() as cursor:
            # The driver has no status of its own for FAILED_PRECONDITION.
            with pytest.raises(OperationalError, match="to another session"):
                cursor.adbc_read_partition(partitions[0])


@in_adbc("query", "isolation")
def test_partitions_are_polled(client, alice, bob, notes):
    titles = {alice: ["a1", "a2", "shared"], bob: ["b1", "shared"]}
    for tenant, found in titles.items():
        with client(tenant).connect() as connection, connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.statement.exec.incremental": "true"})
            sql = f"SELECT title FROM {notes} ORDER BY id"
            polled = []
            # Until there are no more.
            while partitions := cursor.adbc_execute_partitions(sql)[0]:
                polled.extend(partitions)
            [partition] = polled
            cursor.adbc_read_partition(partition)
            assert [title for title, in cursor.fetchall()] == found


# Errors


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT * FROM nope", "table `nope` does not exist"),
        ("SELECT * FROM nope.public.nope", "table `nope.public.nope` does not exist"),
        ("SELECT nope FROM jammi.catalog.models", "column nope does not exist: the columns there are jammi.catalog.models.name"),
        ("SELEC 1", "the statement does not parse"),
        ("SELECT 1; SELECT 2", "the text holds more than one statement: send one at a time"),
        ("-- nothing", "the text holds no statement: send one"),
        ("SELECT 1 / 0", "division by zero"),
        ("SELECT CAST('x' AS INT)", "Cannot cast string 'x' to value of Int32 type"),
        ("SELECT no_such_function(1)", "no_such_function"),
        ("SELECT * FROM '/etc/passwd'", "table `/etc/passwd` does not exist"),
    ],
)
@in_adbc("errors")
def test_a_wrong_statement_is_told_what_is_wrong(cursor, sql, says):
    with pytest.raises(ProgrammingError) as error:
        rows(cursor, sql)
    assert says in str(error.value)
    assert rows(cursor, "SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY t TO '/tmp/t.parquet'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "SET datafusion.execution.batch_size = 1",
        "PREPARE p AS SELECT 1",
    ],
)
@in_adbc("errors")
def test_what_is_not_served_is_refused(cursor, sql):
    with pytest.raises((NotSupportedError, ProgrammingError)) as error:
        rows(cursor, sql)
    kind = sql.split()[0]
    if "does not parse" not in str(error.value):
        assert isinstance(error.value, NotSupportedError)
        assert f"{kind}" in str(error.value) and "is not served" in str(error.value)
    assert rows(cursor, "SELECT 1") == [(1,)]


@in_adbc("batch", "errors")
def test_executemany_of_a_query_is_refused_clearly(cursor):
    with pytest.raises(ProgrammingError, match="the statement is a query"):
        cursor.executemany("SELECT ?", [(1,), (2,)])


# Metadata


def walk(objects):
    """The catalogs, schemas, tables and columns in the answer of `adbc_get_objects`."""
    found = set()
    for catalog in objects.read_all().to_pylist():
        found.add((catalog["catalog_name"],))
        for schema in catalog["catalog_db_schemas"] or []:
            found.add((catalog["catalog_name"], schema["db_schema_name"]))
            for table in schema["db_schema_tables"] or []:
                path = (catalog["catalog_name"], schema["db_schema_name"], table["table_name"])
                found.add(path)
                for column in table["table_columns"] or []:
                    found.add((*path, column["column_name"]))
    return found


@in_adbc("metadata")
def test_objects_are_listed_at_every_depth(client, alice, notes):
    name = notes.split(".")[0]
    with client(alice).connect() as connection:
        expected = {(name,)}
        for depth, more in (
            ("catalogs", set()),
            ("db_schemas", {(name, "public")}),
            ("tables", {(name, "public", name)}),
            ("columns", {(name, "public", name, c) for c in ("id", "tenant_id", "title")}),
        ):
            expected |= more
            listed = walk(connection.adbc_get_objects(depth=depth, catalog_filter=name))
            assert listed == expected, depth
        unfiltered = walk(connection.adbc_get_objects(depth="tables"))
        assert expected - more <= unfiltered
        assert ("jammi", "catalog", "models") in unfiltered
        # pandas.read_sql asks with the statement's text for a pattern.
        odd = connection.adbc_get_objects(
            depth="tables", table_name_filter=f"SELECT * FROM {notes} WHERE 'it''s' = $1 %_[\\"
        )
        assert not [path for path in walk(odd) if len(path) == 3]


@in_adbc("metadata", "isolation")
def test_another_tenants_objects_are_not_listed(client, alice, bob, unique, tmp_path):
    file = tmp_path / "own.csv"
    file.write_text("secret_column\n1\n")
    client(alice).add_source(unique, file)
    for other in (client(bob), client()):
        with other.connect() as connection:
            for depth in ("catalogs", "db_schemas", "tables", "columns"):
                listed = walk(connection.adbc_get_objects(depth=depth))
                assert listed and not [path for path in listed if unique in path]
            with pytest.raises(ProgrammingError, match="NOT_FOUND"):
                connection.adbc_get_table_schema(unique)
        with pytest.raises(ProgrammingError) as error:
            other.rows(f"SELECT * FROM {unique}.public.{unique}")
        # Worded as for a table that never was.
        with pytest.raises(ProgrammingError) as never:
            other.rows("SELECT * FROM never.public.never")
        assert str(error.value).replace(unique, "never") == str(never.value)


@in_adbc("metadata")
def test_the_schema_of_a_table(client, alice, notes):
    name = notes.split(".")[0]
    with client(alice).connect() as connection:
        for filters in ({}, {"catalog_filter": name, "db_schema_filter": "public"}):
            schema = connection.adbc_get_table_schema(name, **filters)
            assert schema.names == ["id", "tenant_id", "title"]
            assert schema.types == [pa.int64(), pa.string(), pa.string()]
            metadata = schema.field("id").metadata
            assert metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"] == b"BIGINT"
        with pytest.raises(ProgrammingError, match="NOT_FOUND"):
            connection.adbc_get_table_schema("nope")


@in_adbc("metadata")
def test_table_types_and_information(client, alice):
    with client(alice).connect() as connection:
        assert connection.adbc_get_table_types() == [
            "LOCAL TEMPORARY", "SYSTEM TABLE", "TABLE", "VIEW",
        ]
        info = connection.adbc_get_info()
        assert info["vendor_name"] == "Jammi"
        assert info["vendor_version"]


@in_adbc("session", "metadata")
def test_bare_names_are_looked_up_in_the_current_catalog(client, alice, notes):
    name = notes.split(".")[0]
    session = client(alice)
    with session.connect() as connection, connection.cursor() as cursor:
        assert connection.adbc_current_catalog == "mutable"
        assert connection.adbc_current_db_schema == "public"
        with pytest.raises(ProgrammingError, match="does not exist"):
            rows(cursor, f"SELECT count(*) FROM {name}")
        connection.adbc_current_catalog = name
        assert connection.adbc_current_catalog == name
        assert rows(cursor, f"SELECT count(*) FROM {name}") == [(3,)]
        connection.adbc_current_catalog = "jammi"
        connection.adbc_current_db_schema = "catalog"
        assert connection.adbc_current_db_schema == "catalog"
        assert rows(cursor, "SELECT count(*) FROM models WHERE false") == [(0,)]
    # Another session has its own.
    with client(alice).connect() as connection:
        assert connection.adbc_current_catalog == "mutable"


OPTION = "adbc.flight.sql.session.option."
ERASE = "adbc.flight.sql.session.optionerase."


@in_adbc("session", "isolation")
def test_a_session_option_binds_the_session(client, alice, bob, notes):
    titles = f"SELECT title FROM {notes} ORDER BY id"
    seen = {alice: [("a1",), ("a2",), ("shared",)], bob: [("b1",), ("shared",)]}
    session, other = client(), client(bob)
    with session.connect() as connection:
        options = connection.adbc_connection

        def read():
            # A cursor keeps what it has prepared last.
            with connection.cursor() as cursor:
                return rows(cursor, titles)

        for tenant in (alice, bob, alice):
            options.set_options(**{OPTION + "tenant": tenant.upper()})
            assert options.get_option(OPTION + "tenant") == session.bound() == tenant
            assert read() == seen[tenant]
        for wrong in ("bob", "", "00000000-0000-0000-0000-000000000000"):
            with pytest.raises(ProgrammingError):
                options.set_options(**{OPTION + "tenant": wrong})
        # No other option reaches it.
        for option in ("Tenant", "tenant_id", "jammi.tenant", "datafusion.catalog.tenant"):
            with pytest.raises(ProgrammingError):
                options.set_options(**{OPTION + option: bob})
        assert read() == seen[alice]
        options.set_options(**{ERASE + "tenant": ""})
        assert session.bound() is None
        assert read() == [("shared",)]
    assert other.bound() == bob


@in_adbc("session", "isolation")
def test_a_session_is_bound_by_sql(client, alice, bob, notes):
    titles = f"SELECT title FROM {notes} ORDER BY id"
    seen = {alice: [("a1",), ("a2",), ("shared",)], bob: [("b1",), ("shared",)]}
    session, other = client(), client(bob)
    with session.connect() as connection, connection.cursor() as cursor:
        for tenant in (alice, bob):
            # Prepared, prepared with a value, and as an update.
            for execute in (
                lambda: cursor.execute(f"SET app.current_tenant_id = '{tenant}'"),
                lambda: cursor.execute("SET app.current_tenant_id = ?", (tenant,)),
                lambda: cursor.executemany("SET app.current_tenant_id = ?", [(tenant,)]),
                lambda: cursor.executescript(f"SET SESSION app.current_tenant_id TO '{tenant}'"),
                lambda: cursor.execute(
                    "SELECT set_config('app.current_tenant_id', ?, false)", (tenant,)
                ),
            ):
                execute()
                assert session.bound() == tenant
                assert rows(cursor, titles) == seen[tenant]
                assert rows(cursor, "SHOW app.current_tenant_id") == [(tenant,)]
                assert rows(cursor, "SELECT current_setting('app.current_tenant_id')") == [(tenant,)]
                cursor.execute("RESET app.current_tenant_id")
                assert rows(cursor, "SHOW app.current_tenant_id") == [(None,)]
                assert rows(cursor, titles) == [("shared",)]
        assert rows(
            cursor, "SELECT set_config('app.current_tenant_id', ?, false)", (alice,)
        ) == [(alice,)]
    assert (session.bound(), other.bound()) == (alice, bob)


@in_adbc("session", "transactions", "isolation")
def test_a_transaction_is_left_behind_by_a_binding(client, alice, bob, unique):
    for tenant in (alice, bob):
        with client(tenant).connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {unique} AS SELECT '{tenant}' AS owner")
    session = client(bob)
    with session.connect(autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {unique}")
        cursor.execute(f"SET app.current_tenant_id = '{alice}'")
        with pytest.raises(ProgrammingError, match="has ended: begin another"):
            cursor.execute(f"SELECT owner FROM {unique}")
        connection.rollback()
        assert rows(cursor, f"SELECT owner FROM {unique}") == [(alice,)]
    assert client(bob).rows(f"SELECT owner FROM {unique}") == [(bob,)]


COOKIES = "adbc.flight.sql.rpc.with_cookie_middleware"


@in_adbc("session", "isolation")
def test_a_connection_that_keeps_cookies_is_given_a_session(server, client, alice, bob, notes):
    titles = f"SELECT title FROM {notes} ORDER BY id"
    with_cookies = partial(
        adbc_driver_flightsql.dbapi.connect, server.url, {COOKIES: "true"}, autocommit=True
    )
    with with_cookies() as one, with_cookies() as two, one.cursor() as a, two.cursor() as b:
        # By the statement itself, and by reading an option before.
        a.execute(f"SET app.current_tenant_id = '{alice}'")
        assert two.adbc_current_catalog == "mutable"
        two.adbc_connection.set_options(**{OPTION + "tenant": bob})
        assert rows(a, titles) == [("a1",), ("a2",), ("shared",)]
        assert rows(b, titles) == [("b1",), ("shared",)]
        assert rows(a, "SHOW app.current_tenant_id") == [(alice,)]
    # Without cookies no session is there to be bound, and none is taken for bound.
    with adbc_driver_flightsql.dbapi.connect(
        server.url, autocommit=True
    ) as connection, connection.cursor() as cursor:
        with pytest.raises(OperationalError, match="to another session"):
            cursor.execute(f"SET app.current_tenant_id = '{alice}'")
        with pytest.raises(ProgrammingError, match="jammi-session-id is missing"):
            cursor.executescript(f"SET app.current_tenant_id = '{alice}'")
        with pytest.raises(ProgrammingError, match="jammi-session-id is missing"):
            connection.adbc_connection.set_options(**{OPTION + "tenant": alice})
        assert rows(cursor, titles) == [("shared",)]
    # A header names the session of a connection that keeps cookies too.
    session = client(alice)
    with adbc_driver_flightsql.dbapi.connect(
        server.url, {COOKIES: "true", ADBC_HEADER: session.session}, autocommit=True
    ) as connection, connection.cursor() as cursor:
        assert connection.adbc_current_catalog == "mutable"
        assert rows(cursor, titles) == [("a1",), ("a2",), ("shared",)]


# Connections and sessions


@in_adbc("connect")
def test_connections_open_with_and_without_autocommit(client, alice):
    session = client(alice)
    for autocommit in (True, False):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            connection = session.connect(autocommit=autocommit)
        with connection, connection.cursor() as cursor:
            assert rows(cursor, "SELECT 1") == [(1,)]


@in_adbc("connect", "isolation")
def test_a_connection_without_a_session_reads_what_is_shared(server, notes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connection = adbc_driver_flightsql.dbapi.connect(server.url, autocommit=True)
    with connection, connection.cursor() as cursor:
        assert rows(cursor, f"SELECT title FROM {notes}") == [("shared",)]


@in_adbc("connect", "session")
def test_closing_a_connection_leaves_its_siblings_bound(client, alice, notes):
    session = client(alice)
    first, second = session.connect(), session.connect()
    clone = first.adbc_clone()
    expected = [("a1",), ("a2",), ("shared",)]
    titles = f"SELECT title FROM {notes} ORDER BY id"
    with first.cursor() as cursor:
        assert rows(cursor, titles) == expected
    first.close()
    for sibling in (second, clone):
        with sibling.cursor() as cursor:
            assert rows(cursor, titles) == expected
        sibling.close()
    assert session.bound() == alice
    assert session.rows(titles) == expected


@in_adbc("connect", "session")
def test_a_header_that_is_set_at_several_levels_is_one_header(server, client, alice, bob, notes):
    session, other = client(alice), client(bob)
    titles = f"SELECT title FROM {notes} ORDER BY id"
    options = {ADBC_HEADER: session.session}
    with adbc_driver_flightsql.dbapi.connect(
        server.url, db_kwargs=options, conn_kwargs=options, autocommit=True
    ) as connection, connection.cursor() as cursor:
        cursor.adbc_statement.set_options(**options)
        assert rows(cursor, titles) == [("a1",), ("a2",), ("shared",)]
    # Two sessions at once are none.
    with adbc_driver_flightsql.dbapi.connect(
        server.url, db_kwargs=options, autocommit=True
    ) as connection, connection.cursor() as cursor:
        cursor.adbc_statement.set_options(**{ADBC_HEADER: other.session})
        with pytest.raises(ProgrammingError, match="different values: send one value"):
            rows(cursor, titles)


@in_adbc("connect")
def test_credentials_are_ignored(server, client, alice, notes):
    session = client(alice)
    for credentials in (
        {"adbc.flight.sql.authorization_header": "Bearer None"},
        {"username": "alice", "password": "secret"},
    ):
        options = {ADBC_HEADER: session.session, **credentials}
        with adbc_driver_flightsql.dbapi.connect(
            server.url, options, autocommit=True
        ) as connection, connection.cursor() as cursor:
            assert rows(cursor, f"SELECT count(*) FROM {notes}") == [(3,)]


@in_adbc("session", "prepared", "isolation")
def test_rebinding_ends_what_was_prepared(client, alice, bob, notes):
    session = client(alice)
    titles = f"SELECT title FROM {notes} WHERE id > ? ORDER BY id"
    seen = {
        alice: [("a1",), ("a2",), ("shared",)],
        bob: [("b1",), ("shared",)],
        None: [("shared",)],
    }
    with session.connect() as connection:
        for rebind in (lambda: session.bind(bob), session.clear, lambda: session.bind(alice)):
            with connection.cursor() as cursor:
                assert rows(cursor, titles, (0,)) == seen[session.bound()]
                rebind()
                # The cursor still holds the statement that it prepared.
                with pytest.raises(OperationalError, match="prepare the statement again"):
                    rows(cursor, titles, (0,))
        with connection.cursor() as cursor:
            assert rows(cursor, titles, (0,)) == seen[alice]


# Large results


@in_adbc("streaming")
def test_a_large_result_streams(client, alice):
    with client(alice).connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT value FROM generate_series(1, 3000000)")
        count, total = 0, 0
        for batch in cursor.fetch_record_batch():
            count += batch.num_rows
            total += pa.compute.sum(batch.column(0)).as_py()
        assert (count, total) == (3_000_000, 3_000_000 * 3_000_001 // 2)


@in_adbc("streaming")
def test_a_large_message_stays_below_the_limit_of_grpc(client, alice, unique, tmp_path):
    # 64 rows of 512 KiB: one batch as the file has it, twice what ADBC accepts in a message.
    text = "x" * (512 << 10)
    table = pa.table({"id": range(64), "text": [f"{number}{text}" for number in range(64)]})
    pq.write_table(table, tmp_path / "large.parquet")
    session = client(alice)
    session.add_source(unique, tmp_path / "large.parquet")
    found = session.rows(f"SELECT id, length(text) FROM {unique}.public.{unique}")
    assert len(found) == 64
    with session.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT id, text FROM {unique}.public.{unique}")
        assert cursor.fetch_arrow_table().sort_by("id") == table


@in_adbc("cancel")
def test_a_cancelled_query_ends_on_the_server(cursor, metric):
    cancelled = {"method": "/arrow.flight.protocol.FlightService/DoGet", "code": "CANCELLED"}
    before = metric("jammi_requests_total", **cancelled)
    cursor.execute("SELECT value FROM generate_series(1, 1000000000000)")
    reader = cursor.fetch_record_batch()
    assert reader.read_next_batch().num_rows > 0
    cursor.adbc_cancel()
    with pytest.raises(OSError, match="context canceled"):
        while True:
            reader.read_next_batch()
    metric.reaches("jammi_requests_total", before + 1, **cancelled)
    assert rows(cursor, "SELECT 1") == [(1,)]
