"""Servers over TLS: real clients, certificates of theirs, and files that change."""

import ssl
import urllib.request

import adbc_driver_flightsql.dbapi
import grpc
import pyarrow.flight as flight
import pytest
from certificates import Authority
from connecting import refused
from cryptography import x509
from jammi.v1.session.session_pb2 import GetTenantRequest
from jammi.v1.session.session_pb2_grpc import SessionServiceStub
from serving import jammi

ROOTS = "adbc.flight.sql.client_option.tls_root_certs"
CERTIFICATE = "adbc.flight.sql.client_option.mtls_cert_chain"
PRIVATE_KEY = "adbc.flight.sql.client_option.mtls_private_key"


@pytest.fixture
def authority():
    return Authority()


@pytest.fixture
def encrypted(start, authority, tmp_path):
    """Starts servers whose certificates are of `authority`."""

    def encrypted(env=None):
        write(tmp_path, *authority.issue("server"))
        return start(
            "data",
            grpc="grpc+tls",
            http="https",
            env={
                "JAMMI_TLS__CERTIFICATE_FILE": str(tmp_path / "server.pem"),
                "JAMMI_TLS__PRIVATE_KEY_FILE": str(tmp_path / "server.key"),
                "JAMMI_TLS__HTTP": "true",
                **(env or {}),
            },
        )

    return encrypted


def write(where, certificate, key):
    (where / "server.pem").write_text(certificate)
    (where / "server.key").write_text(key)


def rows(server, sql, options):
    with adbc_driver_flightsql.dbapi.connect(
        server.url, options, autocommit=True
    ) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.mark.feature("adbc (Python)", "connect", "encryption")
@pytest.mark.feature("pyarrow.flight", "connect", "encryption")
@pytest.mark.feature("grpcio", "connect", "encryption")
def test_every_client_speaks_tls_and_none_speaks_without(encrypted, authority, tmp_path):
    server = encrypted()
    ca = tmp_path / "ca.pem"
    ca.write_text(authority.pem)
    assert rows(server, "SELECT 1", {ROOTS: authority.pem}) == [(1,)]
    with flight.FlightClient(server.url, tls_root_certs=authority.pem) as client:
        assert "CloseSession" in {action.type for action in client.list_actions()}
    credentials = grpc.ssl_channel_credentials(authority.pem.encode())
    with grpc.secure_channel(server.address, credentials) as channel:
        answer = SessionServiceStub(channel).GetTenant(
            GetTenantRequest(), metadata=[("jammi-session-id", "s")]
        )
        assert not answer.HasField("tenant")
    query = ["query", "--format", "csv", "SELECT 1 AS one"]
    assert jammi("--url", server.url, "--ca-file", ca, *query).stdout == "one\n1\n"
    by_variable = jammi("--url", server.url, *query, env={"JAMMI_CA_FILE": str(ca)})
    assert by_variable.stdout == "one\n1\n"
    context = ssl.create_default_context(cadata=authority.pem)
    with urllib.request.urlopen(f"{server.http}/readyz", context=context) as page:
        assert page.status == 200

    # Whoever does not know the root, and whoever does not encrypt.
    stranger = tmp_path / "stranger.pem"
    stranger.write_text(Authority().pem)
    unknown = jammi("--url", server.url, "--ca-file", stranger, *query, code=2)
    assert "certificate" in unknown.stderr
    missing = jammi("--url", server.url, "--ca-file", tmp_path / "none.pem", *query, code=2)
    assert "none.pem" in missing.stderr
    plain = server.url.replace("grpc+tls", "grpc")
    assert jammi("--url", plain, *query, code=2).stderr
    for options in ({}, {ROOTS: Authority().pem}):
        with pytest.raises(adbc_driver_flightsql.dbapi.Error):
            rows(server, "SELECT 1", options)
    with grpc.insecure_channel(server.address) as channel, refused(grpc.StatusCode.UNAVAILABLE):
        SessionServiceStub(channel).GetTenant(GetTenantRequest())
    assert "warning: connections are not encrypted" not in server.stderr()


def test_a_renewed_certificate_is_used_and_a_broken_one_is_logged(encrypted, authority, tmp_path):
    server = encrypted()
    with adbc_driver_flightsql.dbapi.connect(
        server.url, {ROOTS: authority.pem}, autocommit=True
    ) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        next_authority = Authority("next")
        renewed = next_authority.issue("server")
        # As when a renewal has written the first of two files.
        (tmp_path / "server.pem").write_text(renewed[0])
        server.wait_for_stderr(r"server\.key \(tls\.private_key_file\) does not fit")
        assert rows(server, "SELECT 1", {ROOTS: authority.pem}) == [(1,)]
        write(tmp_path, *renewed)
        server.wait_for_stderr(r"files were read again")
        assert rows(server, "SELECT 1", {ROOTS: next_authority.pem}) == [(1,)]
        with pytest.raises(adbc_driver_flightsql.dbapi.Error):
            rows(server, "SELECT 1", {ROOTS: authority.pem})
        cursor.execute("SELECT 2")
        assert cursor.fetchall() == [(2,)]
    key = renewed[1].splitlines()[1]
    assert key not in server.stderr()


@pytest.mark.feature("adbc (Python)", "certificate")
@pytest.mark.feature("pyarrow.flight", "certificate")
@pytest.mark.feature("grpcio", "certificate")
def test_two_tenants_read_their_own_by_certificate(encrypted, authority, tmp_path, alice, bob):
    ca, clients = tmp_path / "ca.pem", tmp_path / "clients.toml"
    ca.write_text(authority.pem)
    clients.write_text(
        f"""
        [[clients]]
        certificate = "cn:alice"
        user = "alice"
        tenants = ["{alice}"]

        [[clients]]
        certificate = "uri:spiffe://example.com/bob"
        user = "bob"
        tenants = ["{bob}"]
        """
    )
    server = encrypted(
        env={
            "JAMMI_AUTH__METHODS": "mtls",
            "JAMMI_AUTH__MTLS__CLIENTS_FILE": str(clients),
            "JAMMI_TLS__CLIENT_CA_FILE": str(ca),
        }
    )
    holders = {
        "alice": authority.issue("alice", x509.DNSName("alice.example.com")),
        "bob": authority.issue("b", x509.UniformResourceIdentifier("spiffe://example.com/bob")),
    }
    for user, (certificate, key) in holders.items():
        options = {ROOTS: authority.pem, CERTIFICATE: certificate, PRIVATE_KEY: key}
        for sql in ["CREATE TABLE t (word TEXT)", f"INSERT INTO t VALUES ('of {user}')"]:
            rows(server, sql, options)
    for user, (certificate, key) in holders.items():
        options = {ROOTS: authority.pem, CERTIFICATE: certificate, PRIVATE_KEY: key}
        assert rows(server, "SELECT word FROM t", options) == [(f"of {user}",)]
        files = tmp_path / f"{user}.pem", tmp_path / f"{user}.key"
        for file, text in zip(files, (certificate, key)):
            file.write_text(text)
        shown = ["--client-certificate-file", files[0], "--client-private-key-file", files[1]]
        query = ["query", "--format", "csv", "SELECT word FROM t"]
        answer = jammi("--url", server.url, "--ca-file", ca, *shown, *query)
        assert answer.stdout == f"word\nof {user}\n"
        nobody = jammi("--url", server.url, "--ca-file", ca, *query, code=1)
        assert "carries no credential" in nobody.stderr
        with flight.FlightClient(
            server.url, tls_root_certs=authority.pem, cert_chain=certificate, private_key=key
        ) as client:
            assert list(client.list_actions())
        tls = grpc.ssl_channel_credentials(authority.pem.encode(), key.encode(), certificate.encode())
        with grpc.secure_channel(server.address, tls) as channel:
            answer = SessionServiceStub(channel).GetTenant(
                GetTenantRequest(), metadata=[("jammi-session-id", "s")]
            )
            assert answer.tenant.id == {"alice": alice, "bob": bob}[user]
    carol, key = authority.issue("carol")
    for options in (
        {},
        {CERTIFICATE: carol, PRIVATE_KEY: key},
        dict(zip((CERTIFICATE, PRIVATE_KEY), Authority("authority").issue("alice"))),
    ):
        with pytest.raises(adbc_driver_flightsql.dbapi.Error) as error:
            rows(server, "SELECT word FROM t", {ROOTS: authority.pem, **options})
        assert "of bob" not in str(error.value)
