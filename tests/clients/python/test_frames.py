"""Data frames of pandas and polars, read and written through ADBC by two tenants at a time."""

import datetime
from functools import partial

import pandas as pd
import polars as pl
import pytest
from adbc_driver_manager import Error, ProgrammingError

in_pandas = partial(pytest.mark.feature, "pandas")
in_polars = partial(pytest.mark.feature, "polars")

AT = datetime.datetime(2026, 1, 31, 12, 34, 56, 789012)


@pytest.fixture
def tenants(client, alice, bob):
    """A session of each of two tenants, the second of which has a table `frame` of its own."""
    sessions = client(alice), client(bob)
    sessions[1].rows("CREATE TABLE frame (word TEXT)")
    sessions[1].rows("INSERT INTO frame VALUES ('canary')")
    yield sessions
    assert sessions[1].rows("SELECT * FROM frame") == [("canary", bob)]
    assert sessions[1].rows("SELECT name FROM jammi.catalog.tables") == [("frame",)]


@pytest.fixture(params=[True, False], ids=["autocommit", "transaction"])
def autocommit(request):
    return request.param


@pytest.fixture
def connection(tenants, autocommit):
    """A connection of the first tenant."""
    with tenants[0].connect(autocommit=autocommit) as connection:
        yield connection


def count(session):
    """The rows of `frame` as another connection of the session sees them."""
    return session.rows("SELECT count(*) FROM frame")[0][0]


# pandas


@in_pandas("connect", "session", "query", "isolation")
def test_pandas_reads_what_its_tenant_sees(client, tenants, notes):
    sql = f"SELECT id, title FROM {notes} ORDER BY id"
    for session, ids in (*zip(tenants, ([1, 2, 4], [3, 4])), (client(), [4])):
        with session.connect() as connection:
            frame = pd.read_sql(sql, connection, index_col="id")
            assert frame.index.tolist() == ids
            assert frame.columns.tolist() == ["title"]
            assert pd.read_sql(f"{sql} LIMIT 0", connection).empty


@in_pandas("ingest", "isolation")
def test_pandas_writes_in_every_mode(tenants, connection):
    session, _ = tenants
    frame = pd.DataFrame({"id": [1, 2, 3], "word": ["a", "b", "c"]})
    # The other tenant's table of that name is none here. pandas commits by itself.
    assert frame.to_sql("frame", connection, index=False, if_exists="fail") == 3
    assert count(session) == 3
    with pytest.raises(ValueError, match="Table 'frame' already exists"):
        frame.to_sql("frame", connection, index=False, if_exists="fail")
    assert frame.to_sql("frame", connection, index=False, if_exists="append") == 3
    assert count(session) == 6
    assert frame[:2].to_sql("frame", connection, index=False, if_exists="replace") == 2
    assert count(session) == 2
    assert frame[:1].to_sql("frame", connection, index=False, if_exists="delete_rows") == 1
    assert count(session) == 1
    for mode in ("append", "replace"):
        assert frame.to_sql(f"new_{mode}", connection, if_exists=mode) == 3
    found = pd.read_sql_table("new_replace", connection)
    # An index without a name is written under pyarrow's for it.
    assert found.columns.tolist() == ["id", "word", "__index_level_0__", "tenant_id"]
    assert set(found["tenant_id"]) == {session.tenant}


@in_pandas("ingest", "isolation", "errors")
def test_pandas_replaces_in_two_steps(tenants, connection, autocommit, bob):
    session, _ = tenants
    pd.DataFrame({"id": [1]}).to_sql("frame", connection, index=False)
    foreign = pd.DataFrame({"id": [2], "tenant_id": [bob]})
    with pytest.raises(pd.errors.DatabaseError) as error:
        foreign.to_sql("frame", connection, index=False, if_exists="replace")
    assert "another tenant" in str(error.value.__cause__)
    # pandas has dropped the table by then, for good unless that can be rolled back.
    if autocommit:
        assert session.rows("SELECT name FROM jammi.catalog.tables") == []
    else:
        connection.rollback()
        assert session.rows("SELECT id FROM frame") == [(1,)]


@in_pandas("types")
def test_pandas_types_survive(connection):
    at = pd.Series([AT, None], dtype="datetime64[us]")
    frame = pd.DataFrame(
        {
            "id": [1, 2**62 + 1],
            "maybe": pd.array([2**62 + 1, None], "Int64"),
            "ratio": [0.1, None],
            "word": ["ü", None],
            "kind": pd.Categorical(["x", None]),
            "flag": [True, False],
            "at": at,
            "zoned": at.dt.tz_localize("UTC"),
        }
    )
    frame.to_sql("frame", connection, index=False)
    sql = f"SELECT {', '.join(frame)} FROM frame ORDER BY id"
    # Integers with NULLs are floats to pandas, unless it is told to keep them.
    found = pd.read_sql(sql, connection)
    rest = frame.columns.drop("maybe")
    frame["kind"] = frame["kind"].astype("str")
    pd.testing.assert_frame_equal(found[rest], frame[rest])
    kept = pd.read_sql(sql, connection, dtype_backend="pyarrow")
    expected = frame.convert_dtypes(dtype_backend="pyarrow")
    assert kept["maybe"].tolist() == [2**62 + 1, pd.NA]
    for name in frame:
        assert kept[name].dropna().tolist() == expected[name].dropna().tolist(), name
        assert kept[name].isna().tolist() == expected[name].isna().tolist(), name


@in_pandas("errors")
def test_pandas_tells_what_is_wrong(tenants, connection):
    with pytest.raises(pd.errors.DatabaseError, match="table `nope` does not exist"):
        pd.read_sql("SELECT * FROM nope", connection)
    pd.DataFrame({"id": [1]}).to_sql("frame", connection, index=False)
    # What the server said is the cause of what pandas says.
    with pytest.raises(pd.errors.DatabaseError, match="Failed to insert") as error:
        pd.DataFrame({"id": ["x"]}).to_sql("frame", connection, index=False, if_exists="append")
    assert isinstance(error.value.__cause__, ProgrammingError)
    assert "Int64 is expected" in str(error.value.__cause__)
    assert count(tenants[0]) == 1


def test_pandas_has_no_parameters_and_no_chunks_with_adbc(connection):
    with pytest.raises(NotImplementedError, match="'params' is not implemented for ADBC"):
        pd.read_sql("SELECT ?", connection, params=(1,))
    with pytest.raises(NotImplementedError, match="'chunksize' is not implemented for ADBC"):
        pd.read_sql("SELECT 1", connection, chunksize=1)


def test_pandas_takes_a_source_for_a_table_of_its_name(client, alice, notes):
    # It looks for the bare name in every catalog. Nothing is lost by it.
    name = notes.split(".")[0]
    frame = pd.DataFrame({"id": [1]})
    session = client(alice)
    with session.connect() as connection:
        with pytest.raises(ValueError, match="already exists"):
            frame.to_sql(name, connection, index=False)
        for mode in ("append", "replace"):
            with pytest.raises(pd.errors.DatabaseError):
                frame.to_sql(name, connection, index=False, if_exists=mode)
    assert session.rows(f"SELECT count(*) FROM {notes}") == [(3,)]


# polars


@in_polars("connect", "session", "query", "isolation")
def test_polars_reads_what_its_tenant_sees(client, tenants, notes):
    sql = f"SELECT id, title FROM {notes} ORDER BY id"
    for session, ids in (*zip(tenants, ([1, 2, 4], [3, 4])), (client(), [4])):
        with session.connect() as connection:
            frame = pl.read_database(sql, connection)
            assert frame["id"].to_list() == ids
            assert frame.schema == {"id": pl.Int64, "title": pl.String}
            empty = pl.read_database(f"{sql} LIMIT 0", connection)
            assert empty.is_empty() and empty.schema == frame.schema


@in_polars("parameters", "isolation")
def test_polars_binds_parameters(tenants, notes):
    sql = f"SELECT title FROM {notes} WHERE id = ?"
    for session, titles in zip(tenants, (["a1"], [])):
        with session.connect() as connection:
            found = pl.read_database(sql, connection, execute_options={"parameters": (1,)})
            assert found["title"].to_list() == titles


@in_polars("ingest", "isolation")
def test_polars_writes_in_every_mode(tenants, connection):
    session, _ = tenants
    frame = pl.DataFrame({"id": [1, 2, 3], "word": ["a", "b", "c"]})

    def write(frame, name, mode):
        return frame.write_database(name, connection, engine="adbc", if_table_exists=mode)

    # The other tenant's table of that name is none here. polars commits by itself.
    assert write(frame, "frame", "fail") == 3
    assert count(session) == 3
    with pytest.raises(Error, match="`frame` exists already"):
        write(frame, "frame", "fail")
    assert write(frame, "frame", "append") == 3
    assert count(session) == 6
    assert write(frame[:2], "frame", "replace") == 2
    assert count(session) == 2
    for mode in ("append", "replace"):
        assert write(frame, f"new_{mode}", mode) == 3
    found = pl.read_database("SELECT * FROM new_replace", connection)
    assert found.columns == ["id", "word", "tenant_id"]
    assert set(found["tenant_id"]) == {session.tenant}


@in_polars("ingest", "isolation", "errors")
def test_polars_replaces_a_table_or_leaves_it(tenants, connection, bob):
    pl.DataFrame({"id": [1]}).write_database("frame", connection, engine="adbc")
    foreign = pl.DataFrame({"id": [2], "tenant_id": [bob]})
    with pytest.raises(Error, match="another tenant"):
        foreign.write_database("frame", connection, engine="adbc", if_table_exists="replace")
    assert tenants[0].rows("SELECT id FROM frame") == [(1,)]


@in_polars("types")
def test_polars_types_survive(connection):
    frame = pl.DataFrame(
        {
            "id": [1, 2**62 + 1],
            "small": pl.Series([2**32 - 1, None], dtype=pl.UInt32),
            "ratio": [0.1, None],
            "word": ["ü", None],
            "flag": [True, None],
            "day": [AT.date(), None],
            "at": [AT, None],
        }
    ).with_columns(zoned=pl.col("at").dt.replace_time_zone("UTC"))
    frame.write_database("frame", connection, engine="adbc")
    sql = f"SELECT {', '.join(frame.columns)} FROM frame ORDER BY id"
    found = pl.read_database(sql, connection)
    assert found.schema == frame.schema
    assert found.equals(frame)


@in_polars("ingest", "types", "isolation")
def test_polars_categories_are_text(tenants, connection):
    kinds = pl.Series(["x", None, "a kind that is no short text", "x"])
    for name, dtype in (("frame", pl.Categorical), ("of_enum", pl.Enum(["x", kinds[2]]))):
        frame = pl.DataFrame({"id": [1, 2, 3, 4], "kind": kinds.cast(dtype)})
        for mode in ("fail", "append", "replace"):
            frame.write_database(name, connection, engine="adbc", if_table_exists=mode)
        found = pl.read_database(f"SELECT kind FROM {name} ORDER BY id", connection)
        assert found["kind"].equals(kinds.alias("kind"))
    frame = pl.DataFrame({"kind": kinds[2:3].cast(pl.Categorical)})
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM frame WHERE kind = ?", frame.to_arrow())
        assert cursor.fetchall() == [(3,)]


@in_polars("errors")
def test_polars_tells_what_is_wrong(tenants, connection):
    with pytest.raises(ProgrammingError, match="table `nope` does not exist"):
        pl.read_database("SELECT * FROM nope", connection)
    pl.DataFrame({"id": [1]}).write_database("frame", connection, engine="adbc")
    for wrong in (pl.Series(["x"]), pl.Series(["x"], dtype=pl.Categorical)):
        frame = pl.DataFrame({"id": wrong})
        with pytest.raises(ProgrammingError, match="Int64 is expected"):
            frame.write_database("frame", connection, engine="adbc", if_table_exists="append")
    assert count(tenants[0]) == 1


@in_polars("streaming", "cancel")
def test_polars_reads_a_part_of_an_endless_result(tenants, metric):
    cancelled = {"method": "/arrow.flight.protocol.FlightService/DoGet", "code": "CANCELLED"}
    before = metric("jammi_requests_total", **cancelled)
    with tenants[0].connect() as connection:
        sql = "SELECT value FROM generate_series(1, 1000000000000)"
        with connection.cursor() as cursor:
            # `batch_size` is needed and not heeded: the frames are the batches of the server.
            frames = pl.read_database(sql, cursor, iter_batches=True, batch_size=1000)
            assert next(frames)["value"].head(2).to_list() == [1, 2]
            frames.close()
    metric.reaches("jammi_requests_total", before + 1, **cancelled)
