"""Sources and models through `CatalogService`, as two tenants and as nobody."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from adbc_driver_manager import DatabaseError
from connecting import refused
from grpc import StatusCode
from jammi.v1.catalog import catalog_pb2 as catalog


def call(client, method, request_type, **fields):
    request = request_type(**fields)
    return getattr(client.catalog, method)(request, metadata=client.metadata)


def sources(client):
    listed = call(client, "ListSources", catalog.ListSourcesRequest).sources
    return {source.name: source for source in listed}


def describe(client, name):
    return call(client, "DescribeSource", catalog.DescribeSourceRequest, name=name).source


def refresh(client, name):
    return call(client, "RefreshSource", catalog.RefreshSourceRequest, name=name).source


def drop(client, name):
    call(client, "DropSource", catalog.DropSourceRequest, name=name)


@pytest.fixture
def people(client, alice, bob):
    return client(alice), client(bob), client()


# Sources


def test_a_source_is_registered_described_and_dropped(people, unique, tmp_path):
    alice, bob, nobody = people
    file = tmp_path / "inbox.csv"
    file.write_text("id,subject\n1,hello\n")
    answer = alice.add_source(unique, file)
    source = answer.source
    assert (source.name, source.sql_name) == (unique, f"{unique}.public.{unique}")
    assert source.lane == catalog.LANE_TENANT
    assert source.format == catalog.SOURCE_FORMAT_CSV
    assert source.location == f"file://{file}"
    assert source.tenant_column == ""
    assert [(column.name, column.type) for column in source.columns] == [
        ("id", "Int64"), ("subject", "Utf8"),
    ]
    assert source.registered_at_ms == source.refreshed_at_ms > 0
    assert describe(alice, unique) == source
    assert sources(alice)[unique] == source

    # For everybody else it does not exist, in the words for what never did.
    for other in (bob, nobody):
        assert unique not in sources(other)
        for attempt in (describe, refresh, drop):
            with pytest.raises(Exception) as missing:
                attempt(other, unique)
            with pytest.raises(Exception) as never:
                attempt(other, "never")
            assert missing.value.code() is never.value.code() is StatusCode.NOT_FOUND
            assert missing.value.details().replace(unique, "never") == never.value.details()

    drop(alice, unique)
    assert unique not in sources(alice)
    assert file.exists()
    with refused(StatusCode.NOT_FOUND, unique):
        drop(alice, unique)


def test_two_tenants_own_sources_of_one_name(people, unique, tmp_path):
    alice, bob, nobody = people
    for owner, text in ((alice, "of alice"), (bob, "of bob"), (nobody, "of all")):
        file = tmp_path / f"{text}.csv"
        file.write_text(f"text\n{text}\n")
        owner.add_source(unique, file)
        with refused(StatusCode.ALREADY_EXISTS, unique, "choose another name"):
            owner.add_source(unique, file)
    rows = f"SELECT * FROM {unique}.public.{unique}"
    assert alice.rows(rows) == [("of alice",)]
    assert bob.rows(rows) == [("of bob",)]
    assert nobody.rows(rows) == [("of all",)]
    # Behind a tenant's own source is the shared one.
    drop(alice, unique)
    assert alice.rows(rows) == [("of all",)]
    assert sources(alice)[unique].lane == catalog.LANE_GLOBAL


def test_a_shared_source_is_everybodys_to_read_and_nobodys_to_change(people, unique, tmp_path):
    alice, _, nobody = people
    file = tmp_path / "shared.csv"
    file.write_text("a\n1\n")
    answer = nobody.add_source(unique, file)
    assert answer.source.lane == catalog.LANE_GLOBAL
    assert any("every tenant reads every row" in notice for notice in answer.notices)
    assert alice.rows(f"SELECT a FROM {unique}.public.{unique}") == [(1,)]
    for attempt in (refresh, drop):
        with refused(StatusCode.PERMISSION_DENIED, unique):
            attempt(alice, unique)
    drop(nobody, unique)
    assert unique not in sources(alice)


def test_a_source_keeps_its_schema_until_it_is_refreshed(people, unique, tmp_path):
    alice, _, _ = people
    file = tmp_path / "data.parquet"
    pq.write_table(pa.table({"a": [1]}), file)
    registered = alice.add_source(unique, file).source
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), file)
    assert [column.name for column in describe(alice, unique).columns] == ["a"]
    assert alice.rows(f"SELECT * FROM {unique}.public.{unique}") == [(1,)]
    refreshed = refresh(alice, unique)
    assert [column.name for column in refreshed.columns] == ["a", "b"]
    assert refreshed.registered_at_ms == registered.registered_at_ms
    assert refreshed.refreshed_at_ms >= registered.refreshed_at_ms
    assert alice.rows(f"SELECT * FROM {unique}.public.{unique}") == [(1, "x")]


def test_a_tenant_column_is_found_named_or_waived(people, unique, tmp_path):
    alice, _, nobody = people
    rows = {"id": [1, 2], "Tenant_ID": [alice.tenant, None]}
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table(rows), file)
    with refused(StatusCode.INVALID_ARGUMENT, "looks like a tenant column"):
        nobody.add_source(unique, file)
    assert unique not in sources(nobody)
    with refused(StatusCode.INVALID_ARGUMENT, '"owner"', "is not a column of the files"):
        nobody.add_source(unique, file, tenant_column="owner")
    named = nobody.add_source(f"{unique}n", file, tenant_column="Tenant_ID").source
    assert named.tenant_column == "Tenant_ID"
    assert nobody.rows(f"SELECT id FROM {unique}n.public.{unique}n") == [(2,)]
    waived = nobody.add_source(f"{unique}w", file, tenant_column="").source
    assert waived.tenant_column == ""
    assert sorted(nobody.rows(f"SELECT id FROM {unique}w.public.{unique}w")) == [(1,), (2,)]


def test_every_format_is_read(people, unique, tmp_path):
    alice, _, _ = people
    table = pa.table({"id": [1, 2], "text": ["one", "two"]})
    pq.write_table(table, tmp_path / "x.parquet")
    (tmp_path / "x.csv").write_text("id,text\n1,one\n2,two\n")
    (tmp_path / "x.json").write_text(json.dumps(table.to_pylist()))
    (tmp_path / "x.ndjson").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    for ending in ("parquet", "csv", "json", "ndjson"):
        name = f"{unique}{ending}"
        source = alice.add_source(name, tmp_path / f"x.{ending}").source
        assert catalog.SourceFormat.Name(source.format) == f"SOURCE_FORMAT_{ending.upper()}"
        rows = alice.rows(f"SELECT id, text FROM {name}.public.{name} ORDER BY id")
        assert rows == [(1, "one"), (2, "two")], ending


def test_directories_globs_and_partitions_are_read(people, unique, tmp_path):
    alice, bob, nobody = people
    for number, day in enumerate(("2026-01-01", "2026-01-02")):
        directory = tmp_path / "plain"
        directory.mkdir(exist_ok=True)
        pq.write_table(pa.table({"n": [number]}), directory / f"{day}.parquet")
    nobody.add_source(f"{unique}d", tmp_path / "plain")
    nobody.add_source(f"{unique}g", tmp_path / "plain" / "*-01.parquet")
    assert sorted(alice.rows(f"SELECT n FROM {unique}d.public.{unique}d")) == [(0,), (1,)]
    assert alice.rows(f"SELECT n FROM {unique}g.public.{unique}g") == [(0,)]

    for owner, number in ((alice.tenant, 1), (bob.tenant, 2)):
        directory = tmp_path / "hive" / f"tenant_id={owner}"
        directory.mkdir(parents=True)
        pq.write_table(pa.table({"n": [number]}), directory / "part.parquet")
    source = nobody.add_source(f"{unique}h", tmp_path / "hive").source
    assert source.tenant_column == "tenant_id"
    assert [c.name for c in source.columns if c.partition] == ["tenant_id"]
    rows = f"SELECT n, tenant_id FROM {unique}h.public.{unique}h"
    assert alice.rows(rows) == [(1, alice.tenant)]
    assert bob.rows(rows) == [(2, bob.tenant)]
    assert nobody.rows(rows) == []


@pytest.mark.parametrize(
    ("content", "location", "code", "says"),
    [
        ({}, "missing.parquet", StatusCode.INVALID_ARGUMENT, "names no file or directory"),
        ({}, ".", StatusCode.INVALID_ARGUMENT, "holds no"),
        ({}, "", StatusCode.INVALID_ARGUMENT, "is empty"),
        ({}, "ftp://host/x.csv", StatusCode.INVALID_ARGUMENT, "is not served"),
        ({}, "http://169.254.169.254/x.csv", StatusCode.INVALID_ARGUMENT, "is not served"),
        ({"x.txt": "a"}, "x.txt", StatusCode.INVALID_ARGUMENT, "name the format"),
        ({"x.parquet": "no parquet"}, "x.parquet", StatusCode.DATA_LOSS, "cannot be read as parquet"),
        ({"x.json": '[{"a": 1}, {'}, "x.json", StatusCode.DATA_LOSS, "cannot be read as json"),
        ({"x.ndjson": '{"a": 1}\n{"a'}, "x.ndjson", StatusCode.DATA_LOSS, "cannot be read as ndjson"),
        ({"x.csv": "a,b\n1,2\n3\n"}, "x.csv", StatusCode.DATA_LOSS, "cannot be read as csv"),
        ({"x.ndjson": '{"a": 1}\n', "y.csv": "a\n1\n"}, ".", StatusCode.INVALID_ARGUMENT, "holds both"),
    ],
)
def test_what_is_no_source_is_refused_and_leaves_nothing(
    client, alice, unique, tmp_path, content, location, code, says
):
    session = client(alice)
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    if location and "://" not in location:
        location = str(tmp_path / location)
    with refused(code, says):
        session.add_source(unique, location)
    assert sources(session) == {} or unique not in sources(session)


@pytest.mark.parametrize(
    "name", ["", "a.b", "a b", "jammi", "mutable", "x" * 64, "information_schema", "a\n", "Inbox"]
)
def test_what_is_no_name_is_refused(client, alice, tmp_path, name):
    session = client(alice)
    file = tmp_path / "x.csv"
    file.write_text("a\n1\n")
    with refused(StatusCode.INVALID_ARGUMENT, "name"):
        session.add_source(name, file)


def test_a_broken_row_far_into_a_file_is_named(client, alice, unique, tmp_path):
    file = tmp_path / "big.csv"
    with open(file, "w") as lines:
        lines.write("id,text\n")
        lines.writelines(f"{number},x\n" for number in range(200_000))
        lines.write("broken,x\n")
    session = client(alice)
    session.add_source(unique, file)
    with pytest.raises(DatabaseError) as error:
        session.rows(f"SELECT sum(id) FROM {unique}.public.{unique}")
    assert unique in str(error.value)
    assert session.rows("SELECT 1") == [(1,)]


def test_the_servers_own_files_are_no_sources(server, client, unique):
    session = client()
    # Symptom: whoever may register sources read everybody's audit records. Cause: they
    # are files of JSON below the directory. Fix: they are no sources, as databases are not.
    records = next((server.artifact_dir / "audit").glob("*.jsonl"))
    locations = (server.artifact_dir, server.artifact_dir / "system.db", records.parent, records)
    for location in locations:
        for format in (None, catalog.SOURCE_FORMAT_NDJSON):
            with refused(StatusCode.INVALID_ARGUMENT):
                session.add_source(unique, location, format=format)


def test_sources_are_read_in_sql(people, unique, tmp_path):
    alice, bob, nobody = people
    file = tmp_path / "x.csv"
    file.write_text("a\n1\n")
    alice.add_source(unique, file)
    nobody.add_source(f"{unique}s", file)
    mine = f"SELECT name, tenant_id FROM jammi.catalog.sources WHERE name LIKE '{unique}%' ORDER BY name"
    assert alice.rows(mine) == [(unique, alice.tenant), (f"{unique}s", None)]
    assert bob.rows(mine) == [(f"{unique}s", None)]
    assert bob.rows(mine.replace("jammi.catalog.", "")) == [(f"{unique}s", None)]


def test_roots_limit_where_sources_may_be(start, client, alice, unique, tmp_path):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "in.csv").write_text("a\n1\n")
    (tmp_path / "out.csv").write_text("a\n1\n")
    (allowed / "link.csv").symlink_to(tmp_path / "out.csv")
    server = start(env={"JAMMI_SOURCES__ROOTS": str(allowed)})
    session = client(alice, of=server)
    session.add_source(unique, allowed / "in.csv")
    for number, location in enumerate(
        ("/etc/passwd", allowed / ".." / "out.csv", allowed / "link.csv", tmp_path / "out.csv")
    ):
        with refused(StatusCode.PERMISSION_DENIED, "sources.roots"):
            session.add_source(f"{unique}{number}", location)


# Models


def models(client, name=""):
    listed = call(client, "ListModels", catalog.ListModelsRequest, name=name).models
    return [(model.name, model.version, model.lane) for model in listed]


def register_model(client, name, version, **fields):
    fields = {"uri": f"s3://models/{name}/{version}", **fields}
    request = catalog.RegisterModelRequest
    return call(client, "RegisterModel", request, name=name, version=version, **fields).model


def describe_model(client, name, version=""):
    request = catalog.DescribeModelRequest
    return call(client, "DescribeModel", request, name=name, version=version).model


def drop_model(client, name, version):
    call(client, "DropModel", catalog.DropModelRequest, name=name, version=version)


def test_models_belong_to_a_lane(people, unique):
    alice, bob, nobody = people
    model = register_model(alice, unique, "1", metadata='{"rows": 3}')
    assert (model.name, model.version, model.lane) == (unique, "1", catalog.LANE_TENANT)
    assert json.loads(model.metadata) == {"rows": 3}
    register_model(alice, unique, "2")
    register_model(nobody, unique, "1")
    own, shared = catalog.LANE_TENANT, catalog.LANE_GLOBAL
    assert sorted(models(alice, unique)) == sorted(
        [(unique, "1", own), (unique, "2", own), (unique, "1", shared)]
    )
    assert models(bob, unique) == models(nobody, unique) == [(unique, "1", shared)]
    assert describe_model(alice, unique).version == "2"
    assert describe_model(bob, unique).lane == shared
    with refused(StatusCode.NOT_FOUND, unique):
        describe_model(bob, unique, "2")
    with refused(StatusCode.ALREADY_EXISTS, unique):
        register_model(alice, unique, "2")
    rows = f"SELECT version, tenant_id FROM models WHERE name = '{unique}' ORDER BY version, tenant_id"
    assert alice.rows(rows) == [("1", alice.tenant), ("1", None), ("2", alice.tenant)]
    assert bob.rows(rows) == [("1", None)]

    for other in (bob, nobody):
        with refused(StatusCode.NOT_FOUND, unique):
            drop_model(other, unique, "2")
    with refused(StatusCode.PERMISSION_DENIED, unique):
        drop_model(bob, unique, "1")
    drop_model(alice, unique, "2")
    drop_model(alice, unique, "1")
    assert models(alice, unique) == [(unique, "1", shared)]
    drop_model(nobody, unique, "1")
    assert models(alice, unique) == []


@pytest.mark.parametrize("metadata", ["{", "[1]", "3", '"x"'])
def test_metadata_is_a_json_object(client, alice, unique, metadata):
    session = client(alice)
    with refused(StatusCode.INVALID_ARGUMENT, "metadata of model", "JSON"):
        register_model(session, unique, "1", metadata=metadata)
    assert models(session, unique) == []
