"""API keys, as clients send them and as operators make them."""

import json

import adbc_driver_flightsql.dbapi
import grpc
import pyarrow.flight as flight
import pytest
from connecting import ADBC_HEADER, SESSION_HEADER
from jammi.v1.session.session_pb2 import GetTenantRequest, SetTenantRequest, Tenant
from jammi.v1.session.session_pb2_grpc import SessionServiceStub
from serving import DEADLINE_SECONDS, jammi
from terminal import Terminal

AUTHORIZATION = "adbc.flight.sql.authorization_header"


@pytest.fixture
def guarded(start):
    """A server that asks for keys, and logs all that it can."""
    return start("data", env={"JAMMI_AUTH__METHODS": "api_key", "JAMMI_LOG__FILTER": "trace"})


def make(server, user, *flags):
    made = jammi("--artifact-dir", server.artifact_dir, "keys", "create", user, *flags)
    return made.stdout.strip()


def rows(server, options, sql):
    with adbc_driver_flightsql.dbapi.connect(
        server.url, options, autocommit=True
    ) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.mark.feature("adbc (Python)", "token", "password")
def test_two_tenants_read_their_own_by_token_and_by_password(guarded, alice, bob):
    keys = {
        "alice": make(guarded, "alice", "--acts-for", alice),
        "bob": make(guarded, "bob", "--acts-for", bob),
    }
    for user, key in keys.items():
        token = {AUTHORIZATION: f"Bearer {key}"}
        for sql in ["CREATE TABLE t (word TEXT)", f"INSERT INTO t VALUES ('of {user}')"]:
            rows(guarded, token, sql)
    for user, key in keys.items():
        for options in (
            {AUTHORIZATION: f"Bearer {key}"},
            {"username": user, "password": key},
        ):
            assert rows(guarded, options, "SELECT word FROM t") == [(f"of {user}",)]
            named = {**options, ADBC_HEADER: "one-id-for-both"}
            assert rows(guarded, named, "SELECT word FROM t") == [(f"of {user}",)]
    for options in (
        {},
        {AUTHORIZATION: "Bearer none"},
        {AUTHORIZATION: f"Bearer {keys['bob'][:-1]}x"},
        {"username": "alice", "password": keys["bob"]},
        {"username": "alice", "password": "secret"},
    ):
        with pytest.raises(adbc_driver_flightsql.dbapi.Error) as refused:
            rows(guarded, options, "SELECT word FROM t")
        assert "UNAUTHENTICATED" in str(refused.value).upper()
        assert "of bob" not in str(refused.value)


@pytest.mark.feature("grpcio", "token")
def test_a_session_is_bound_to_what_its_key_acts_for(guarded, alice, bob):
    key = make(guarded, "alice", "--acts-for", alice)
    with grpc.insecure_channel(guarded.address) as channel:
        sessions = SessionServiceStub(channel)
        metadata = [(SESSION_HEADER, "s"), ("authorization", f"Bearer {key}")]
        assert sessions.GetTenant(GetTenantRequest(), metadata=metadata).tenant.id == alice
        with pytest.raises(grpc.RpcError) as denied:
            sessions.SetTenant(SetTenantRequest(tenant=Tenant(id=bob)), metadata=metadata)
        assert denied.value.code() == grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError) as unknown:
            sessions.GetTenant(GetTenantRequest(), metadata=metadata[:1])
        assert unknown.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_the_command_line_signs_in_by_user_and_password(start, tmp_path, alice, bob):
    server = start("data", env={"JAMMI_AUTH__METHODS": "password,api_key"})
    passwords = {"alice": "the password of alice", "bob": "the password of bob"}
    for (user, password), tenant in zip(passwords.items(), (alice, bob)):
        made = ["--artifact-dir", server.artifact_dir, "users", "create", user]
        jammi(*made, "--acts-for", tenant, stdin=password + "\n")
        (tmp_path / user).write_text(f"{password}\nwhat is below is not read\n")

    def run(*arguments, **options):
        return jammi("--url", server.url, *arguments, **options)

    query = ["query", "--format", "csv"]
    for user in passwords:
        by_flags = ["--user", user, "--password-file", tmp_path / user]
        run(*by_flags, *query, f"CREATE TABLE t (word TEXT); INSERT INTO t VALUES ('of {user}')")
    for user in passwords:
        env = {"JAMMI_USER": user, "JAMMI_PASSWORD_FILE": str(tmp_path / user)}
        assert run(*query, "SELECT word FROM t", env=env).stdout == f"word\nof {user}\n"
    # A key is its user's password too.
    key = make(server, "alice", "--acts-for", alice)
    (tmp_path / "key").write_text(key)
    by_key = ["--user", "alice", "--password-file", tmp_path / "key"]
    assert run(*by_key, *query, "SELECT word FROM t").stdout == "word\nof alice\n"

    # Typed, it is not shown.
    terminal = Terminal("--url", server.url, "--user", "alice", "shell", history=tmp_path / "history")
    terminal.expect("type the password, which is not shown")
    terminal.hides()
    terminal.type(passwords["alice"] + "\r")
    terminal.expect("> ")
    terminal.type("SELECT word FROM t;\r")
    terminal.expect("of alice")
    terminal.type("\\q\r")
    assert terminal.process.wait(DEADLINE_SECONDS) == 0
    terminal.close()
    assert passwords["alice"] not in terminal.all
    assert "of bob" not in terminal.all
    kept = [path.read_text() for path in tmp_path.glob("history*")]
    assert not any(passwords["alice"] in text for text in kept)

    (tmp_path / "wrong").write_text("the password of bob\n")
    (tmp_path / "empty").write_text("\n")
    wrong = ["--user", "alice", "--password-file", tmp_path / "wrong"]
    refused = run(*wrong, *query, "SELECT word FROM t", code=1)
    assert "not accepted" in refused.stderr and "of bob" not in refused.stderr
    for arguments, env, said in (
        (["--user", "alice"], {}, "--password-file"),
        (["--user", "alice", "--password-file", tmp_path / "none"], {}, "none cannot be read"),
        (["--user", "alice", "--password-file", tmp_path / "empty"], {}, "first line is empty"),
        (wrong, {"JAMMI_API_KEY": key}, "leave one of them out"),
        (["--user", "a:b", "--password-file", tmp_path / "wrong"], {}, "colon"),
    ):
        failed = run(*arguments, *query, "SELECT 1", env=env, stdin="", code=2)
        assert said in failed.stderr
        assert not any(secret in failed.stderr for secret in (key, *passwords.values()))


def test_keys_are_made_shown_replaced_and_revoked_beside_the_server(guarded, alice):
    def query(key, code=0):
        env = {"JAMMI_API_KEY": key} if key else {}
        return jammi(
            "--url", guarded.url, "query", "--format", "csv", "SELECT 1 AS one", env=env, code=code
        )

    def keys(*arguments):
        return jammi("--artifact-dir", guarded.artifact_dir, "keys", *arguments)

    first = make(guarded, "alice", "--acts-for", alice)
    assert query(first).stdout == "one\n1\n"
    assert "send one in its metadata `authorization`" in query(None, code=1).stderr
    second = keys("rotate", first.split("_")[1]).stdout.strip()
    assert "not accepted" in query(first, code=1).stderr
    assert query(second).stdout == "one\n1\n"
    keys("revoke", second.split("_")[1])
    assert "not accepted" in query(second, code=1).stderr

    listed = keys("list", "--format", "ndjson").stdout
    found = [json.loads(line) for line in listed.splitlines()]
    assert [key["id"] for key in found] == [first.split("_")[1], second.split("_")[1]]
    assert [(key["user"], key["acts_for"]) for key in found] == [("alice", alice)] * 2
    again = jammi(
        "--artifact-dir", guarded.artifact_dir, "keys", "revoke", second.split("_")[1], code=1
    )
    assert "no API key" in again.stderr
    # Through the server too, for an operator alone.
    operator = make(guarded, "ops", "--role", "operator")
    remote = ("--url", guarded.url, "keys")
    third = jammi(
        *remote, "create", "alice", "--acts-for", alice, env={"JAMMI_API_KEY": operator}
    ).stdout.strip()
    assert query(third).stdout == "one\n1\n"
    fourth = jammi(
        *remote, "rotate", third.split("_")[1], env={"JAMMI_API_KEY": operator}
    ).stdout.strip()
    assert query(fourth).stdout == "one\n1\n"
    denied = jammi(*remote, "list", env={"JAMMI_API_KEY": fourth}, code=1)
    assert "the role operator" in denied.stderr

    # Secrets are nowhere but with their holders.
    guarded.stop()
    shown = [listed, guarded.log.read_text(errors="replace")]
    shown += [
        path.read_bytes().decode("latin-1")
        for path in guarded.artifact_dir.rglob("*")
        if path.is_file()
    ]
    shown.append(jammi("config", "show", env={"JAMMI_API_KEY": first}).stdout)
    for key in (first, second, third, fourth, operator):
        secret = key.split("_")[2]
        assert not any(secret in text for text in shown)


@pytest.mark.feature("adbc (Python)", "password")
@pytest.mark.feature("pyarrow.flight", "password")
def test_users_sign_in_by_passwords_of_their_own(start, alice, bob):
    methods = {"JAMMI_AUTH__METHODS": "password,api_key", "JAMMI_LOG__FILTER": "trace"}
    server = start("data", env=methods)
    tenants = {"alice": alice, "bob": bob}
    passwords = {user: f"the password of {user}" for user in tenants}

    def users(*arguments, **options):
        return jammi("--artifact-dir", server.artifact_dir, "users", *arguments, **options)

    for user, tenant in tenants.items():
        users("create", user, "--acts-for", tenant, stdin=passwords[user] + "\n")
        options = {"username": user, "password": passwords[user]}
        for sql in ["CREATE TABLE t (word TEXT)", f"INSERT INTO t VALUES ('of {user}')"]:
            rows(server, options, sql)
    for user, password in passwords.items():
        options = {"username": user, "password": password, ADBC_HEADER: "one-id-for-both"}
        assert rows(server, options, "SELECT word FROM t") == [(f"of {user}",)]
        with flight.FlightClient(server.url) as client:
            header = client.authenticate_basic_token(user, password)
            assert password.encode() not in header[1]
            assert list(client.list_actions(flight.FlightCallOptions(headers=[header])))
    for options in (
        {},
        {"username": "alice", "password": passwords["bob"]},
        {"username": "carol", "password": passwords["bob"]},
    ):
        with pytest.raises(adbc_driver_flightsql.dbapi.Error) as refused:
            rows(server, options, "SELECT word FROM t")
        assert "UNAUTHENTICATED" in str(refused.value).upper()
        assert "of bob" not in str(refused.value)

    users("passwd", "bob", stdin="another password")
    with pytest.raises(adbc_driver_flightsql.dbapi.Error):
        rows(server, {"username": "bob", "password": passwords["bob"]}, "SELECT 1")
    options = {"username": "bob", "password": "another password"}
    assert rows(server, options, "SELECT word FROM t") == [("of bob",)]
    assert "8 to 1024" in users("passwd", "bob", stdin="short\n", code=1).stderr
    assert "exists" in users("create", "bob", "--all-tenants", stdin="long enough", code=1).stderr
    listed = users("list", "--format", "ndjson").stdout
    assert [json.loads(line)["user"] for line in listed.splitlines()] == ["alice", "bob"]
    # Through the server too, for an operator.
    operator = make(server, "ops", "--role", "operator")
    jammi(
        "--url", server.url, "users", "create", "dora", "--acts-for", alice,
        stdin="the password of dora\n", env={"JAMMI_API_KEY": operator},
    )
    assert rows(server, {"username": "dora", "password": "the password of dora"}, "SELECT 1")

    users("drop", "bob")
    with pytest.raises(adbc_driver_flightsql.dbapi.Error):
        rows(server, options, "SELECT 1")
    assert "no user `bob`" in users("drop", "bob", code=1).stderr
    assert "credential" in jammi("--url", server.url, "users", "list", code=1).stderr

    # Passwords are nowhere but with their users.
    server.stop()
    shown = [listed, server.log.read_text(errors="replace")]
    shown += [
        path.read_bytes().decode("latin-1")
        for path in server.artifact_dir.rglob("*")
        if path.is_file()
    ]
    for password in (*passwords.values(), "another password", "the password of dora"):
        assert not any(password in text for text in shown)
