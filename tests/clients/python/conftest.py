"""Generates the gRPC stubs from `proto/`, starts servers, and records which client can do what."""

import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# Of each client and feature whether every test passed that is marked with them.
FEATURES = {}


def pytest_configure(config):
    """Makes `jammi.v1.*` importable before the tests are."""
    from grpc_tools import protoc

    stubs = Path(tempfile.mkdtemp(prefix="jammi-stubs-"))
    config.add_cleanup(lambda: shutil.rmtree(stubs))
    protos = [str(path) for path in sorted((ROOT / "proto" / "jammi").rglob("*.proto"))]
    out = [f"-I{ROOT / 'proto'}", f"--python_out={stubs}", f"--grpc_python_out={stubs}"]
    assert protoc.main(["protoc", *out, *protos]) == 0
    sys.path.insert(0, str(stubs))


def pytest_runtest_makereport(item, call):
    """Notes how a part of a test ended: its set-up, its call, or what comes after."""
    for mark in item.iter_markers("feature"):
        client, *features = mark.args
        for feature in features:
            passed = FEATURES.get((client, feature), True)
            FEATURES[client, feature] = passed and call.excinfo is None


def pytest_sessionfinish():
    """Appends a line of JSON for each feature to the file that JAMMI_FEATURES names, if any."""
    if name := os.environ.get("JAMMI_FEATURES"):
        with open(name, "a") as file:
            for (client, feature), passed in FEATURES.items():
                line = {"client": client, "feature": feature, "passed": passed}
                print(json.dumps(line), file=file)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server for every test that does not restart or configure it."""
    from serving import Server

    with Server(tmp_path_factory.mktemp("server") / "data") as server:
        yield server
        # What the tests opened, they or the server closed.
        metric = Metrics(server)
        for held in (
            "requests_active", "queries_running", "queries_polled", "transactions",
            "sessions_temporary",
        ):
            metric.reaches(f"jammi_{held}", 0)
        metric.reaches("jammi_connections", 0, port="grpc")
        assert metric("jammi_panics_total") == 0


@pytest.fixture
def start(tmp_path):
    """Starts servers on directories of the test's own, and stops those that still run."""
    from serving import Server

    servers = []

    def start(name="data", *flags, **options):
        servers.append(Server(tmp_path / name, *flags, **options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture
def client(server):
    """Makes clients of `server`; without a tenant they are unbound."""
    from connecting import Client

    clients = []

    def client(tenant=None, of=server, **options):
        clients.append(Client(of, tenant, **options))
        return clients[-1]

    yield client
    for made in clients:
        made.close()


@pytest.fixture
def alice():
    """A tenant that no other test has."""
    return str(uuid.uuid4())


@pytest.fixture
def bob():
    """Another one."""
    return str(uuid.uuid4())


@pytest.fixture
def unique():
    """A name that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def notes(client, alice, bob, unique, tmp_path):
    """A shared source with two rows of Alice, one of Bob, and one of nobody; its name in SQL."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    owners = [alice, alice, bob, None]
    titles = ["a1", "a2", "b1", "shared"]
    file = tmp_path / "notes.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3, 4], "tenant_id": owners, "title": titles}), file)
    client().add_source(unique, file)
    return f"{unique}.public.{unique}"


class Metrics:
    """The metrics of a server, by name and labels."""

    def __init__(self, server):
        self.server = server

    def __call__(self, name, of=None, **labels):
        from urllib.request import urlopen

        with urlopen(f"{(of or self.server).http}/metrics") as page:
            text = page.read().decode()
        for line in text.splitlines():
            series, _, value = line.rpartition(" ")
            found, _, found_labels = series.partition("{")
            if found == name and all(f'{k}="{v}"' in found_labels for k, v in labels.items()):
                return float(value)
        return 0.0

    def reaches(self, name, value, **labels):
        """Waits until the metric has the value."""
        from serving import DEADLINE_SECONDS

        deadline = time.monotonic() + DEADLINE_SECONDS
        while (found := self(name, **labels)) != value:
            assert time.monotonic() < deadline, f"{name}{labels} is {found}, not {value}"
            time.sleep(0.02)


@pytest.fixture
def metric(server):
    return Metrics(server)
