"""Sources on an S3-compatible store, with moto as the store."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from connecting import refused
from grpc import StatusCode
from serving import DEADLINE_SECONDS, Server, environment, jammi

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The URL of a store."""
    port = free_port()
    log = tmp_path_factory.mktemp("moto") / "log"
    with open(log, "w") as lines:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)],
            stdout=lines,
            stderr=lines,
            env=environment(),
        )
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(DEADLINE_SECONDS)


@pytest.fixture(scope="module")
def upload(store, tmp_path_factory):
    """Puts a table or text at a key of the bucket `lake`."""
    options = {name.lower(): value for name, value in CREDENTIALS.items()}
    s3 = boto3.client("s3", endpoint_url=store, region_name="us-east-1", **options)
    s3.create_bucket(Bucket="lake")
    directory = tmp_path_factory.mktemp("upload")

    def upload(key, content):
        file = directory / "file"
        if isinstance(content, str):
            file.write_text(content)
        else:
            pq.write_table(content, file)
        s3.upload_file(str(file), "lake", key)
        return f"s3://lake/{key}"

    yield upload
    s3.close()


def settings(endpoint):
    return {
        "JAMMI_SOURCES__S3_ENDPOINT": endpoint,
        "JAMMI_SOURCES__S3_REGION": "us-east-1",
        "JAMMI_SOURCES__S3_ALLOW_HTTP": "true",
        **CREDENTIALS,
    }


@pytest.fixture(scope="module")
def lake(store, upload, tmp_path_factory):
    """A server that reads the store."""
    directory = tmp_path_factory.mktemp("lake")
    with Server(directory / "data", env=settings(store)) as server:
        yield server


def test_a_file_is_read(lake, client, upload, alice, bob, unique):
    owners = [alice, bob, None]
    location = upload(
        f"{unique}/rows.parquet", pa.table({"n": [1, 2, 3], "tenant_id": owners})
    )
    source = client(of=lake).add_source(unique, location).source
    assert source.location == location
    assert source.tenant_column == "tenant_id"
    rows = f"SELECT n FROM {unique}.public.{unique} ORDER BY n"
    assert client(alice, of=lake).rows(rows) == [(1,), (3,)]
    assert client(bob, of=lake).rows(rows) == [(2,), (3,)]
    assert client(of=lake).rows(rows) == [(3,)]


def test_directories_and_globs_are_read(lake, client, upload, alice, unique):
    upload(f"{unique}/a.csv", "n\n1\n")
    upload(f"{unique}/b.csv", "n\n2\n")
    session = client(alice, of=lake)
    for name, location, rows in (
        (f"{unique}d", f"s3://lake/{unique}/", [(1,), (2,)]),
        (f"{unique}p", f"s3://lake/{unique}", [(1,), (2,)]),
        (f"{unique}g", f"s3://lake/{unique}/b*.csv", [(2,)]),
    ):
        session.add_source(name, location)
        assert session.rows(f"SELECT n FROM {name}.public.{name} ORDER BY n") == rows


def test_a_hive_directory_is_read(lake, client, upload, alice, bob, unique):
    for owner, n in ((alice, 1), (bob, 2), ("__HIVE_DEFAULT_PARTITION__", 3)):
        upload(f"{unique}/tenant_id={owner}/part.parquet", pa.table({"n": [n]}))
    source = client(of=lake).add_source(unique, f"s3://lake/{unique}/").source
    assert source.tenant_column == "tenant_id"
    rows = f"SELECT n FROM {unique}.public.{unique} ORDER BY n"
    assert client(alice, of=lake).rows(rows) == [(1,), (3,)]
    assert client(bob, of=lake).rows(rows) == [(2,), (3,)]
    assert client(of=lake).rows(rows) == [(3,)]


@pytest.mark.parametrize(
    "location", ["s3://no-such-bucket/x.parquet", "s3://no-such-bucket/", "s3://lake/no/such.parquet"]
)
@pytest.mark.usefixtures("upload")
def test_what_is_not_there_is_named(lake, client, alice, unique, location):
    session = client(alice, of=lake)
    with refused(StatusCode.INVALID_ARGUMENT, location.rstrip("/"), "check the"):
        session.add_source(unique, location)
    assert session.rows(f"SELECT count(*) FROM sources WHERE name = '{unique}'") == [(0,)]


@pytest.mark.parametrize("location", ["s3://", "s3:///x.parquet", "s3://lake/../x", "s3://UPPER_/x"])
def test_what_is_no_location_is_refused(lake, client, alice, unique, location):
    with refused(StatusCode.INVALID_ARGUMENT):
        client(alice, of=lake).add_source(unique, location)


def test_a_file_that_goes_away_is_told(lake, store, client, upload, alice, unique):
    location = upload(f"{unique}/gone.parquet", pa.table({"n": [1]}))
    session = client(alice, of=lake)
    session.add_source(unique, location)
    options = {name.lower(): value for name, value in CREDENTIALS.items()}
    s3 = boto3.client("s3", endpoint_url=store, region_name="us-east-1", **options)
    s3.delete_object(Bucket="lake", Key=f"{unique}/gone.parquet")
    s3.close()
    with pytest.raises(Exception) as error:
        session.rows(f"SELECT n FROM {unique}.public.{unique}")
    assert unique in str(error.value)
    # Nothing of the store's own words, such as the address or the credentials.
    assert store.removeprefix("http://") not in str(error.value)


def test_a_store_that_does_not_answer_is_told_soon(start, client, alice, unique):
    server = start(env=settings(f"http://127.0.0.1:{free_port()}"))
    began = time.monotonic()
    with refused(StatusCode.UNAVAILABLE, "s3://lake/x.parquet", "can be reached"):
        client(alice, of=server).add_source(unique, "s3://lake/x.parquet")
    # What clients wait for is half a minute at most; retries may not take that long.
    assert time.monotonic() - began < 30


def test_the_command_line_reads_the_store_too(store, upload, unique, tmp_path):
    location = upload(f"{unique}/x.csv", "n\n7\n")
    on_directory = ("--artifact-dir", tmp_path / "data")
    env = settings(store)
    jammi(*on_directory, "sources", "add", unique, location, env=env)
    sql = f"SELECT n FROM {unique}.public.{unique}"
    done = jammi(*on_directory, "query", "--format", "csv", sql, env=env)
    assert done.stdout == "n\n7\n"
