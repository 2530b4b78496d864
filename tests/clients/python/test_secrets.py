"""Secrets of every kind, each a canary, and every place that none of them may be in."""

import base64
import signal
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pyarrow
import pyarrow.flight as flight
import pytest
from certificates import Authority
from jammi.v1.session.session_pb2 import GetTenantRequest, SetTenantRequest, Tenant
from jammi.v1.session.session_pb2_grpc import SessionServiceStub
from serving import DEADLINE_SECONDS, jammi
from test_tokens import ISSUER, token

SECRET = b"canary-of-the-issuer-which-has-as-many-bytes-as-HS256-wants-to-have"
PASSWORDS = {"alice": "canary-password-of-alice", "bob": "canary-password-of-bob"}
WRONG = {
    "a wrong password": "canary-password-that-is-wrong",
    "a bearer of no kind": "canary-bearer-of-no-kind",
    "no key": "jammi_0123456789ab_canary-of-no-key",
    "no token": "eyJhbGciOiJIUzI1NiJ9.canary-of-no-token.x",
    "a scheme of no kind": "canary-of-another-scheme",
}


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def lines(pem):
    """What is secret of a private key: all of its lines but the first and the last."""
    return pem.strip().splitlines()[1:-1]


class Place:
    """A server that knows clients by every method, and all that it ever said."""

    def __init__(self, start, tmp_path, log_format, alice, bob):
        self.here, self.authority, self.said = tmp_path, Authority(), []
        certificate, key = self.authority.issue("server")
        clients = "".join(
            f'[[clients]]\ncertificate = "cn:{name}"\nuser = "{name}"\ntenants = ["{tenant}"]\n'
            for name, tenant in (("alice", alice), ("bob", bob))
        )
        files = {
            "server.pem": certificate, "server.key": key, "ca.pem": self.authority.pem,
            "clients.toml": clients, "secret": SECRET.decode(),
        }
        for name, content in files.items():
            (tmp_path / name).write_text(content)
        self.env = {
            "JAMMI_AUTH__METHODS": "jwt,api_key,password,mtls",
            "JAMMI_AUTH__JWT__ISSUER": ISSUER,
            "JAMMI_AUTH__JWT__AUDIENCES": "jammi",
            "JAMMI_AUTH__JWT__ALGORITHMS": "HS256",
            "JAMMI_AUTH__JWT__KEYS_FILE": str(tmp_path / "secret"),
            "JAMMI_AUTH__MTLS__CLIENTS_FILE": str(tmp_path / "clients.toml"),
            "JAMMI_TLS__CERTIFICATE_FILE": str(tmp_path / "server.pem"),
            "JAMMI_TLS__PRIVATE_KEY_FILE": str(tmp_path / "server.key"),
            "JAMMI_TLS__CLIENT_CA_FILE": str(tmp_path / "ca.pem"),
            "JAMMI_TLS__HTTP": "true",
            "JAMMI_LOG__FILTER": "trace",
            "JAMMI_LOG__FORMAT": log_format,
            "RUST_BACKTRACE": "full",
        }
        self.server = start("data", grpc="grpc+tls", http="https", env=self.env)
        self.secrets = {"the private key": lines(key), "the issuer's secret": [SECRET.decode()]}

    def beside(self, *words, **options):
        """What the command says, on the server's directory."""
        done = jammi("--artifact-dir", self.server.artifact_dir, *words, **options)
        self.said += [done.stderr]
        return done.stdout

    def call(self, authorization):
        """Everything that calls with it are answered but for the token of a handshake."""
        tls = grpc.ssl_channel_credentials(self.authority.pem.encode())
        metadata = [("jammi-session-id", "s"), ("authorization", authorization)]
        with grpc.secure_channel(self.server.address, tls) as channel:
            sessions = SessionServiceStub(channel)
            nobody = SetTenantRequest(tenant=Tenant(id="00000000-0000-4000-8000-000000000000"))
            for method, request in (
                (sessions.GetTenant, GetTenantRequest()),
                (sessions.SetTenant, nobody),
            ):
                try:
                    answer, call = method.with_call(request, metadata=metadata)
                    self.said += [str(answer), str(call.trailing_metadata())]
                except grpc.RpcError as error:
                    self.said += [str(error), str(error.trailing_metadata())]
        with flight.FlightClient(self.server.url, tls_root_certs=self.authority.pem) as client:
            headers = [(name.encode(), value.encode()) for name, value in metadata]
            options = flight.FlightCallOptions(headers=headers)
            try:
                list(client.do_action(flight.Action("of no kind", b""), options))
            except (flight.FlightError, pyarrow.ArrowException) as error:
                self.said += [str(error)]
        self.as_a_page(authorization)

    def as_a_page(self, authorization):
        context = ssl.create_default_context(cadata=self.authority.pem)
        request = urllib.request.Request(
            f"https://{self.server.address}/jammi.v1.session.SessionService/GetTenant",
            data=bytes(5),
            headers={
                "content-type": "application/grpc-web+proto",
                "authorization": authorization,
            },
        )
        try:
            with urllib.request.urlopen(request, context=context) as answer:
                self.said += [str(answer.headers), answer.read().decode("latin-1")]
        except urllib.error.HTTPError as error:
            self.said += [str(error.headers), error.read().decode("latin-1")]

    def page(self, path):
        context = ssl.create_default_context(cadata=self.authority.pem)
        with urllib.request.urlopen(f"{self.server.http}{path}", context=context) as answer:
            self.said += [answer.read().decode()]

    def kept(self):
        """What is on the disk, but for the files that hold secrets by their nature."""
        files = [path for path in self.server.artifact_dir.rglob("*") if path.is_file()]
        return [path.read_bytes().decode("latin-1") for path in (*files, self.server.log)]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_is_where_it_does_not_belong(start, tmp_path, log_format, alice, bob):
    place = Place(start, tmp_path, log_format, alice, bob)
    secrets, server = place.secrets, place.server

    # Of each kind one that is right, and others.
    key = place.beside("keys", "create", "alice", "--acts-for", alice).strip()
    revoked = place.beside("keys", "create", "alice", "--acts-for", alice).strip()
    place.beside("keys", "revoke", revoked.split("_")[1])
    place.said += [place.beside("keys", "list", "--format", "json")]
    for (user, password), tenant in zip(PASSWORDS.items(), (alice, bob)):
        place.beside("users", "create", user, "--acts-for", tenant, stdin=password + "\n")
    place.beside("users", "create", "alice", "--all-tenants", stdin=PASSWORDS["bob"], code=1)
    place.said += [place.beside("users", "list", "--format", "json")]
    signed = token("HS256", SECRET, "alice", alice)
    forged = token("HS256", b"another" + SECRET, "alice", alice)
    with flight.FlightClient(server.url, tls_root_certs=place.authority.pem) as client:
        _, given = client.authenticate_basic_token("bob", PASSWORDS["bob"])
    given = given.decode()
    secrets |= {name: [text] for name, text in WRONG.items()}
    secrets |= {f"the password of {user}": [text] for user, text in PASSWORDS.items()}
    secrets |= {
        "a key": [key.split("_")[2]], "a revoked key": [revoked.split("_")[2]],
        "a token": [signed, signed.rsplit(".")[2]], "a forged token": [forged.rsplit(".")[2]],
        "a token of a handshake": [given.removeprefix("Bearer ")],
    }
    authorizations = [
        *(f"Bearer {text}" for text in (key, revoked, signed, forged, key[:-1], signed + "x")),
        *(f"Bearer {text}" for text in WRONG.values()),
        *(basic(user, text) for user, text in PASSWORDS.items()),
        basic("alice", key), basic("alice", signed), basic("bob", key),
        basic("bob", WRONG["a wrong password"]), basic("nobody", WRONG["a wrong password"]),
        given, given + "A",
        f"Negotiate {WRONG['a scheme of no kind']}", WRONG["a scheme of no kind"],
        f"Basic {WRONG['a bearer of no kind']}", f"Bearer  {WRONG['no key']}",
    ]
    for authorization in authorizations:
        place.call(authorization)
    encoded = [text.removeprefix("Basic ") for text in authorizations if text.startswith("Basic ")]
    secrets["a user and a password"] = [text for text in encoded if len(text) > 20]

    # What the command line is told, it does not tell.
    query = ["--url", server.url, "--ca-file", tmp_path / "ca.pem", "query", "SELECT 1"]
    for secret in (*WRONG.values(), revoked, forged):
        done = jammi(*query, env={"JAMMI_API_KEY": secret}, code=1)
        place.said += [done.stdout, done.stderr]
    (tmp_path / "password").write_text(WRONG["a wrong password"])
    wrong = ["--user", "alice", "--password-file", tmp_path / "password"]
    done = jammi(*wrong, *query, code=1)
    place.said += [done.stdout, done.stderr]
    for told in ({"JAMMI_API_KEY": key}, {"JAMMI_USER": "alice"}):
        shown = jammi("config", "show", env={**place.env, **told})
        place.said += [shown.stdout, shown.stderr]
        assert "keys_file" in shown.stdout
    refused = jammi("config", "show", env={"JAMMI_AUTH__SECRET": key}, code=2)
    place.said += [refused.stdout, refused.stderr]
    for path in ("/metrics", "/readyz"):
        place.page(path)

    # Files that become wrong are named, and not printed.
    for name, setting in (
        ("secret", r"auth\.jwt\.keys_file"),
        ("server.key", r"tls\.private_key_file"),
    ):
        secrets[f"a broken {name}"] = [f"canary-{name}"]
        (tmp_path / name).write_text(f"canary-{name}")
        server.wait_for_stderr(setting)
    ended = jammi(
        "--artifact-dir", tmp_path / "elsewhere", "serve", "--listen", "127.0.0.1:0",
        "--http-listen", "127.0.0.1:0", env=place.env, code=2,
    )
    place.said += [ended.stdout, ended.stderr]

    # A crash leaves no image of the memory, where they all are.
    limits = Path(f"/proc/{server.process.pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert all(int(limit) <= 1 for limit in core.split()[4:6]), core
    server.process.send_signal(signal.SIGABRT)
    server.process.wait(DEADLINE_SECONDS)
    assert not [path for path in tmp_path.rglob("core*") if path.is_file()]
    deadline = time.monotonic() + DEADLINE_SECONDS
    while server._reader.is_alive():
        assert time.monotonic() < deadline
        server._reader.join(1)

    everywhere = place.said + place.kept() + server.rest_of_stdout()
    assert any("UNAUTHENTICATED" in text.upper() for text in everywhere)
    for what, texts in secrets.items():
        for text in texts:
            found = [where[:400] for where in everywhere if text in where]
            assert not found, f"{what} ({text}) is in {found}"
