"""What outlives a server, and what several processes on one directory do."""

import socket
import sqlite3
import subprocess

import pyarrow.flight as flight
import pytest
from flight_sql import statement_query
from jammi.v1.catalog.catalog_pb2 import ListSourcesRequest
from serving import DEADLINE_SECONDS, JAMMI, environment, jammi


def sources(client):
    listed = client.catalog.ListSources(ListSourcesRequest(), metadata=client.metadata)
    return [source.name for source in listed.sources]


def fails_to_start(artifact_dir, *flags, code=2):
    """Starts a server that has to end by itself; what it says."""
    done = subprocess.run(
        [JAMMI, "serve", "--artifact-dir", str(artifact_dir), *flags],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    assert done.stdout == ""
    assert "panicked" not in done.stderr
    return done.stderr


FREE = ("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_bindings_and_sources_outlive_the_server(start, client, alice, bob, tmp_path, end):
    file = tmp_path / "inbox.csv"
    file.write_text("a\n1\n")
    server = start()
    sessions = [client(tenant, of=server) for tenant in (alice, bob, None)]
    for session in sessions:
        session.add_source("inbox", file)
    sessions[0].add_source("alices", file)
    getattr(server, end)()

    server = start()
    for session, own in zip(sessions, (["alices", "inbox"], ["inbox"], ["inbox"])):
        again = client(of=server, session=session.session)
        assert again.bound() == session.tenant
        assert sources(again) == own
        assert again.rows("SELECT a FROM inbox.public.inbox") == [(1,)]


def test_every_acknowledged_binding_outlives_kill_9(start, client, alice):
    """Killed at once after the answer, many times over, on one directory."""
    for number in range(5):
        server = start()
        bound = [client(alice, of=server) for _ in range(8)]
        server.kill()
        server = start()
        for session in bound:
            assert client(of=server, session=session.session).bound() == alice
        server.kill()


def test_a_cleared_binding_stays_cleared(start, client, alice):
    server = start()
    session = client(alice, of=server)
    session.clear()
    server.kill()
    assert client(of=start(), session=session.session).bound() is None


def test_a_second_server_on_one_directory_is_refused(start, client, alice):
    server = start()
    text = fails_to_start(server.artifact_dir, *FREE)
    assert str(server.artifact_dir) in text
    assert "another jammi server" in text and "stop it" in text
    assert client(alice, of=server).bound() == alice


def test_a_second_server_on_one_port_is_refused(start, client, alice, tmp_path):
    server = start()
    text = fails_to_start(
        tmp_path / "other", "--listen", server.address, "--http-listen", "127.0.0.1:0"
    )
    assert server.address in text and "--listen" in text
    http = server.http.removeprefix("http://")
    text = fails_to_start(tmp_path / "other", "--listen", "127.0.0.1:0", "--http-listen", http)
    assert http in text and "--http-listen" in text
    assert client(alice, of=server).bound() == alice


def test_a_directory_that_cannot_be_used_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    text = fails_to_start(file, *FREE)
    assert str(file) in text
    text = fails_to_start(file / "below", *FREE)
    assert str(file / "below") in text


def test_a_database_of_a_newer_version_is_refused(start, client, alice, tmp_path):
    server = start()
    client(alice, of=server).add_source("inbox", made(tmp_path / "a.csv"))
    server.stop()
    lane = server.artifact_dir / "tenants" / f"{alice}.db"
    database = sqlite3.connect(lane)
    database.execute("PRAGMA user_version = 1000")
    database.close()
    server = start()
    session = client(alice, of=server)
    with pytest.raises(Exception) as error:
        sources(session)
    assert "newer" in error.value.details()
    # It is that lane's trouble alone.
    assert sources(client(of=server)) == []


def made(path):
    path.write_text("a\n1\n")
    return path


def test_a_source_that_the_command_line_adds_is_seen_at_once(start, client, alice, bob, tmp_path):
    server = start()
    file = made(tmp_path / "x.csv")
    session, other = client(alice, of=server), client(bob, of=server)
    on_directory = ("--artifact-dir", server.artifact_dir)
    for number in range(3):
        name = f"added{number}"
        jammi("--tenant", alice, *on_directory, "sources", "add", name, file)
        assert name in sources(session)
        assert session.rows(f"SELECT a FROM {name}.public.{name}") == [(1,)]
        assert sources(other) == []
    # And the other way round.
    session.add_source("remote", file)
    listed = jammi(
        "--tenant", alice, *on_directory, "query", "--format", "csv",
        "SELECT name FROM sources ORDER BY name",
    )
    assert listed.stdout.split() == ["name", "added0", "added1", "added2", "remote"]
    jammi("--tenant", alice, *on_directory, "sources", "drop", "added0")
    assert sources(session) == ["added1", "added2", "remote"]
    # A shared one is seen by both.
    jammi(*on_directory, "sources", "add", "everybodys", file)
    assert "everybodys" in sources(session) and sources(other) == ["everybodys"]


def test_a_server_that_drains_lets_requests_end(start, client, alice):
    server = start()
    session = client(alice, of=server)
    options = flight.FlightCallOptions(headers=[(b"jammi-session-id", session.session.encode())])
    with flight.connect(server.url) as flights:
        sql = statement_query("SELECT value FROM generate_series(1, 2000000)")
        descriptor = flight.FlightDescriptor.for_command(sql)
        (endpoint,) = flights.get_flight_info(descriptor, options).endpoints
        reader = flights.do_get(endpoint.ticket, options)
        rows = reader.read_chunk().data.num_rows
        server.process.terminate()
        server.wait_for_stderr("stopping")
        # New connections are refused while the old one's request goes on.
        with socket.socket() as late:
            host, port = server.address.split(":")
            assert late.connect_ex((host, int(port))) != 0
        rows += sum(chunk.data.num_rows for chunk in reader)
        assert rows == 2_000_000
    assert server.process.wait(DEADLINE_SECONDS) == 0


def test_a_drain_has_a_deadline(start, client, alice):
    server = start(env={"JAMMI_SERVER__DRAIN_TIMEOUT_MS": "200"})
    session = client(alice, of=server)
    options = flight.FlightCallOptions(headers=[(b"jammi-session-id", session.session.encode())])
    with flight.connect(server.url) as flights:
        sql = statement_query("SELECT value FROM generate_series(1, 1000000000000)")
        descriptor = flight.FlightDescriptor.for_command(sql)
        (endpoint,) = flights.get_flight_info(descriptor, options).endpoints
        reader = flights.do_get(endpoint.ticket, options)
        assert reader.read_chunk().data.num_rows > 0
        server.stop()
        assert "server.drain_timeout_ms" in server.stderr()
        with pytest.raises(flight.FlightError):
            for _ in reader:
                pass
