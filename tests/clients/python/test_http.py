"""Plain HTTP: the pages of the second port, and gRPC-Web as a browser speaks it."""

import http.client
import struct
import uuid

import pytest
from flight_sql import field, fields, statement_query
from jammi.v1.catalog.catalog_pb2 import ListSourcesRequest, ListSourcesResponse
from jammi.v1.session.session_pb2 import (
    GetTenantRequest,
    GetTenantResponse,
    SetTenantRequest,
    SetTenantResponse,
    Tenant,
)
from serving import Server

ORIGIN = "https://app.example.com"
SESSIONS = "/jammi.v1.session.SessionService"


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """A server that pages of `ORIGIN` may call."""
    allowed = {"JAMMI_SERVER__ALLOWED_ORIGINS": ORIGIN}
    with Server(tmp_path_factory.mktemp("web") / "data", env=allowed) as server:
        yield server


def request(address, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def call(server, path, request_message, **headers):
    """A unary gRPC-Web call: its messages as bytes, and its status and trailers."""
    payload = request_message
    if not isinstance(payload, bytes):
        payload = payload.SerializeToString()
    response, body = request(
        server.address,
        "POST",
        path,
        b"\0" + struct.pack(">I", len(payload)) + payload,
        {
            "content-type": "application/grpc-web+proto",
            "x-grpc-web": "1",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
    )
    assert response.status == 200, body
    trailers = {name.lower(): value for name, value in response.getheaders()}
    messages = []
    while body:
        flags, length = body[0], struct.unpack(">I", body[1:5])[0]
        frame, body = body[5 : 5 + length], body[5 + length :]
        if flags & 0x80:
            lines = frame.decode().strip().split("\r\n")
            trailers |= {name.lower(): value for name, value in (line.split(":", 1) for line in lines)}
        else:
            messages.append(frame)
    return messages, trailers


# The second port


def test_the_second_port_has_three_pages(server):
    address = server.http.removeprefix("http://")
    for path, status, says in (
        ("/healthz", 200, b"ok\n"),
        ("/readyz", 200, b"ready\n"),
        ("/", 404, b"/healthz, /readyz and /metrics"),
        ("/nope", 404, b"/healthz, /readyz and /metrics"),
    ):
        response, body = request(address, "GET", path)
        assert response.status == status
        assert says in body


def test_metrics_count_and_name_nobody(server, client, alice, metric):
    session = client(alice)
    before = metric("jammi_requests_total", method=f"{SESSIONS}/GetTenant", code="OK")
    session.bound()
    session.rows("SELECT 'a secret of the statement'")
    metric.reaches("jammi_requests_total", before + 1, method=f"{SESSIONS}/GetTenant", code="OK")
    assert metric("jammi_sessions_bound") >= 1
    response, body = request(server.http.removeprefix("http://"), "GET", "/metrics")
    assert response.getheader("content-type").startswith("text/plain; version=0.0.4")
    text = body.decode()
    assert "# TYPE jammi_request_seconds histogram" in text
    for secret in (alice, session.session, "a secret of the statement"):
        assert secret not in text


# gRPC-Web


def test_a_browser_binds_a_session(web, alice):
    session = f"tab-{uuid.uuid4()}"
    headers = {"jammi_session_id": session, "origin": ORIGIN}
    bind = SetTenantRequest(tenant=Tenant(id=alice))
    (answer,), trailers = call(web, f"{SESSIONS}/SetTenant", bind, **headers)
    assert SetTenantResponse.FromString(answer).tenant.id == alice
    assert trailers["grpc-status"] == "0"
    assert trailers["access-control-allow-origin"] == ORIGIN
    assert "x-request-id" in trailers

    (answer,), _ = call(web, f"{SESSIONS}/GetTenant", GetTenantRequest(), **headers)
    assert GetTenantResponse.FromString(answer).tenant.id == alice
    # Another tab is another session.
    (answer,), _ = call(
        web, f"{SESSIONS}/GetTenant", GetTenantRequest(), jammi_session_id="another", origin=ORIGIN
    )
    assert not GetTenantResponse.FromString(answer).HasField("tenant")


def test_a_browser_queries_its_tenants_rows(web, client, alice, bob, unique, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text(f"tenant_id,text\n{alice},alice-row\n{bob},bob-row\n")
    client(of=web).add_source(unique, file)
    session = client(alice, of=web)
    headers = {"jammi_session_id": session.session, "origin": ORIGIN}
    flight = "/arrow.flight.protocol.FlightService"
    sql = statement_query(f"SELECT text FROM {unique}.public.{unique}")
    # FlightDescriptor{type (1): CMD, cmd (2)}
    descriptor = b"\x08\x02" + field(2, sql)
    (info,), trailers = call(web, f"{flight}/GetFlightInfo", descriptor, **headers)
    assert trailers["grpc-status"] == "0"
    # FlightInfo{endpoint (3): FlightEndpoint{ticket (1): Ticket{ticket (1)}}}
    endpoint = dict(fields(info))[3]
    ticket = dict(fields(endpoint))[1]
    rows, trailers = call(web, f"{flight}/DoGet", ticket, **headers)
    assert trailers["grpc-status"] == "0"
    assert b"alice-row" in b"".join(rows)
    assert b"bob-row" not in b"".join(rows)
    # Without the header it is somebody else's ticket.
    rows, trailers = call(web, f"{flight}/DoGet", ticket, origin=ORIGIN)
    assert rows == [] and trailers["grpc-status"] == "9"


def test_lists_are_scoped(web, client, alice, unique, tmp_path):
    file = tmp_path / "own.csv"
    file.write_text("a\n1\n")
    session = client(alice, of=web)
    session.add_source(unique, file)
    path = "/jammi.v1.catalog.CatalogService/ListSources"
    for headers, listed in (
        ({"jammi_session_id": session.session}, True),
        ({"jammi_session_id": "another"}, False),
        ({}, False),
    ):
        (answer,), _ = call(web, path, ListSourcesRequest(), **headers)
        names = [source.name for source in ListSourcesResponse.FromString(answer).sources]
        assert (unique in names) is listed


@pytest.mark.parametrize(
    ("headers", "tenant", "status", "says"),
    [
        ({}, "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a", "3", "jammi-session-id%20is%20missing"),
        ({"jammi_session_id": "s"}, "nobody", "3", "hyphenated%20UUID"),
        ({"jammi_session_id": "a b"}, "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a", "3", "blank"),
    ],
)
def test_errors_reach_a_browser_as_a_status(web, headers, tenant, status, says):
    bind = SetTenantRequest(tenant=Tenant(id=tenant))
    messages, trailers = call(web, f"{SESSIONS}/SetTenant", bind, origin=ORIGIN, **headers)
    assert messages == []
    assert trailers["grpc-status"] == status
    assert says in trailers["grpc-message"]
    assert trailers["access-control-allow-origin"] == ORIGIN
    exposed = trailers["access-control-expose-headers"]
    assert {"grpc-status", "grpc-message"} <= set(exposed.split(","))


def preflight(server, origin, path=f"{SESSIONS}/SetTenant"):
    return request(
        server.address,
        "OPTIONS",
        path,
        headers={
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,jammi-session-id,x-grpc-web,x-user-agent",
        },
    )


def test_a_preflight_of_an_allowed_page_is_answered(web):
    for path in (f"{SESSIONS}/SetTenant", "/arrow.flight.protocol.FlightService/DoGet"):
        response, _ = preflight(web, ORIGIN, path)
        assert response.status == 200
        assert response.getheader("access-control-allow-origin") == ORIGIN
        assert response.getheader("access-control-allow-credentials") is None
        allowed = set(response.getheader("access-control-allow-headers").split(","))
        assert {
            "content-type", "x-grpc-web", "x-user-agent", "grpc-timeout", "authorization",
            "jammi-session-id",
        } <= allowed


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.com",
        "http://app.example.com",
        "https://app.example.com.evil.com",
        "https://app.example.com:8443",
        "null",
    ],
)
def test_other_pages_may_not_call(web, alice, origin):
    response, _ = preflight(web, origin)
    assert response.getheader("access-control-allow-origin") is None
    # And a browser that sent the request all the same is refused.
    session = f"tab-{uuid.uuid4()}"
    payload = SetTenantRequest(tenant=Tenant(id=alice)).SerializeToString()
    headers = {
        "content-type": "application/grpc-web+proto",
        "origin": origin,
        "jammi-session-id": session,
    }
    body = b"\0" + struct.pack(">I", len(payload)) + payload
    response, text = request(web.address, "POST", f"{SESSIONS}/SetTenant", body, headers)
    assert response.status == 403
    assert b"server.allowed_origins" in text
    (answer,), _ = call(web, f"{SESSIONS}/GetTenant", GetTenantRequest(), jammi_session_id=session)
    assert not GetTenantResponse.FromString(answer).HasField("tenant")


def test_no_page_may_call_unless_it_is_listed(server):
    response, _ = preflight(server, ORIGIN)
    assert response.getheader("access-control-allow-origin") is None


def test_other_http_on_the_first_port_does_no_harm(server, client):
    for method, path in (("GET", "/"), ("GET", "/metrics"), ("POST", "/"), ("PUT", "/x")):
        response, _ = request(server.address, method, path, b"x" if method != "GET" else None)
        assert 400 <= response.status < 500 or response.getheader("grpc-status")
    assert client().rows("SELECT 1") == [(1,)]
