"""JSON Web Tokens, as issuers sign them and clients send them."""

import base64
import json
import time

import adbc_driver_flightsql.dbapi
import pyarrow.flight as flight
import pytest
from certificates import public_pem
from connecting import ADBC_HEADER
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from serving import jammi

AUTHORIZATION = "adbc.flight.sql.authorization_header"
ISSUER = "https://issuer.example.com"
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
SECRET = b"a secret of sixty-four bytes, which is as long as HS512 wants it"


def text(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def sign(algorithm, key, message):
    kind, digest = algorithm[:2], HASHES.get(algorithm[2:])
    if kind == "HS":
        mac = hmac.HMAC(key, digest)
        mac.update(message)
        return mac.finalize()
    if kind == "RS":
        return key.sign(message, padding.PKCS1v15(), digest)
    if kind == "PS":
        salted = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
        return key.sign(message, salted, digest)
    if kind == "ES":
        length = {"256": 32, "384": 48}[algorithm[2:]]
        numbers = decode_dss_signature(key.sign(message, ec.ECDSA(digest)))
        return b"".join(number.to_bytes(length, "big") for number in numbers)
    return key.sign(message)


def token(algorithm, key, user, tenants, **more):
    claims = {
        "iss": ISSUER, "aud": "jammi", "sub": user, "tenants": tenants,
        "exp": int(time.time()) + 600, **more,
    }
    header = {"alg": algorithm, "typ": "JWT"}
    message = ".".join(text(json.dumps(part).encode()) for part in (header, claims))
    return f"{message}.{text(sign(algorithm, key, message.encode()))}"


@pytest.fixture
def guarded(start, tmp_path):
    """Starts servers that take tokens by the keys in a file, and log all that they can."""

    def guarded(keys, algorithms):
        file = tmp_path / "keys"
        file.write_bytes(keys)
        return start(
            "data",
            env={
                "JAMMI_AUTH__METHODS": "jwt",
                "JAMMI_AUTH__JWT__ISSUER": ISSUER,
                "JAMMI_AUTH__JWT__AUDIENCES": "jammi",
                "JAMMI_AUTH__JWT__ALGORITHMS": ",".join(algorithms),
                "JAMMI_AUTH__JWT__KEYS_FILE": str(file),
                "JAMMI_LOG__FILTER": "trace",
            },
        )

    return guarded


def rows(server, options, sql):
    with adbc_driver_flightsql.dbapi.connect(
        server.url, options, autocommit=True
    ) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.mark.feature("adbc (Python)", "token", "password")
@pytest.mark.feature("pyarrow.flight", "token", "password")
def test_two_tenants_read_their_own_by_tokens_of_public_keys(guarded, alice, bob, tmp_path):
    of_rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    keys = {
        "RS256": of_rsa, "RS384": of_rsa, "RS512": of_rsa,
        "PS256": of_rsa, "PS384": of_rsa, "PS512": of_rsa,
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    pem = "".join(public_pem(key) for key in dict.fromkeys(keys.values()))
    server = guarded(pem.encode(), keys)
    tenants = {"alice": alice, "bob": bob}
    for user, tenant in tenants.items():
        options = {AUTHORIZATION: f"Bearer {token('RS256', of_rsa, user, tenant)}"}
        for sql in ["CREATE TABLE t (word TEXT)", f"INSERT INTO t VALUES ('of {user}')"]:
            rows(server, options, sql)
    for algorithm, key in keys.items():
        for user, tenant in tenants.items():
            signed = token(algorithm, key, user, [tenant])
            for options in (
                {AUTHORIZATION: f"Bearer {signed}"},
                {"username": user, "password": signed},
                {AUTHORIZATION: f"Bearer {signed}", ADBC_HEADER: "one-id-for-both"},
            ):
                assert rows(server, options, "SELECT word FROM t") == [(f"of {user}",)], algorithm
    query = ["query", "--format", "csv", "SELECT word FROM t"]
    signed = token("ES256", keys["ES256"], "alice", alice)
    answer = jammi("--url", server.url, *query, env={"JAMMI_API_KEY": signed})
    assert answer.stdout == "word\nof alice\n"
    with flight.FlightClient(server.url) as client:
        name, header = client.authenticate_basic_token("alice", signed)
        options = flight.FlightCallOptions(headers=[(name, header)])
        assert list(client.list_actions(options))

    # A public key is no secret, a key of one algorithm none of another, and a small one none.
    public = public_pem(of_rsa).encode()
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    for wrong in (
        token("HS256", public, "bob", bob),
        token("HS256", public.strip(), "bob", bob),
        token("RS256", small, "bob", bob),
        token("ES256", ec.generate_private_key(ec.SECP256R1()), "bob", bob),
        token("RS256", of_rsa, "bob", bob, exp=int(time.time()) - 60),
        token("RS256", of_rsa, "bob", bob, aud="another"),
    ):
        with pytest.raises(adbc_driver_flightsql.dbapi.Error) as error:
            rows(server, {AUTHORIZATION: f"Bearer {wrong}"}, "SELECT word FROM t")
        assert "UNAUTHENTICATED" in str(error.value).upper()
        assert "not accepted: send a valid one" in str(error.value)
        assert "of bob" not in str(error.value) and "issuer" not in str(error.value)
    with pytest.raises(adbc_driver_flightsql.dbapi.Error):
        rows(server, {"username": "bob", "password": signed}, "SELECT word FROM t")

    # Tokens are nowhere but with their holders.
    server.stop()
    signature = signed.rsplit(".")[2]
    assert signature not in server.log.read_text(errors="replace")
    file = tmp_path / "keys"
    file.write_bytes(public_pem(small).encode())
    refused = jammi(
        "--artifact-dir", tmp_path / "data", "serve", "--listen", "127.0.0.1:0",
        "--http-listen", "127.0.0.1:0", code=2,
        env={
            "JAMMI_AUTH__METHODS": "jwt", "JAMMI_AUTH__JWT__ISSUER": ISSUER,
            "JAMMI_AUTH__JWT__AUDIENCES": "jammi", "JAMMI_AUTH__JWT__ALGORITHMS": "RS256",
            "JAMMI_AUTH__JWT__KEYS_FILE": str(file),
        },
    )
    assert "2048 bits" in refused.stderr and str(file) in refused.stderr


def test_a_secret_is_long_enough_and_nowhere_else(guarded, alice):
    server = guarded(SECRET, ["HS256", "HS384", "HS512"])
    for algorithm in ("HS256", "HS384", "HS512"):
        options = {AUTHORIZATION: f"Bearer {token(algorithm, SECRET, 'alice', alice)}"}
        assert rows(server, options, "SELECT 1") == [(1,)]
    server.stop()
    assert SECRET.decode() not in server.log.read_text(errors="replace")
