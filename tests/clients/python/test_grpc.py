"""The gRPC services through generated stubs."""

import uuid
from functools import partial

import grpc
import pytest
from connecting import SESSION_HEADER, refused
from google.protobuf.descriptor_pool import DescriptorPool
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from jammi.v1.catalog import catalog_pb2 as catalog
from jammi.v1.session.session_pb2 import (
    ClearTenantRequest,
    GetTenantRequest,
    SetTenantRequest,
    Tenant,
)

in_grpc = partial(pytest.mark.feature, "grpcio")

ALICE = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a"


# Sessions


@in_grpc("connect", "session")
def test_a_session_is_bound_read_and_cleared(client, alice, bob):
    session = client()
    assert session.bound() is None
    session.bind(alice)
    assert session.bound() == alice
    session.bind(bob)
    assert session.bound() == bob
    session.clear()
    assert session.bound() is None
    # To clear what is clear is no error.
    session.clear()


@pytest.mark.parametrize(
    ("call", "request_message"),
    [
        ("SetTenant", SetTenantRequest(tenant=Tenant(id=ALICE))),
        ("GetTenant", GetTenantRequest()),
        ("ClearTenant", ClearTenantRequest()),
    ],
)
@in_grpc("session", "errors")
def test_calls_without_a_session_are_told_what_to_send(client, call, request_message):
    with refused(StatusCode.INVALID_ARGUMENT, SESSION_HEADER, "is missing", "send one"):
        getattr(client().sessions, call)(request_message)


@pytest.mark.parametrize(
    "tenant",
    [
        "",
        "alice",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "{018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a}",
        "urn:uuid:018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a",
        "018f5a0ec4c87e109c4f3b6f7c5a8e9a",
        "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a\n",
        " 018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a",
        "018f5a0e-c4c8-1e10-9c4f-3b6f7c5a8e9a",
        "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9",
        "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9g",
        "x" * 10_000,
    ],
)
@in_grpc("session", "errors")
def test_what_is_no_tenant_is_told_what_to_send(client, alice, tenant):
    session = client(alice)
    with refused(StatusCode.INVALID_ARGUMENT, "send a UUID of version 4 or 7"):
        session.bind(tenant)
    assert session.bound() == alice


@in_grpc("session", "errors")
def test_no_tenant_at_all_does_not_unbind(client, alice):
    session = client(alice)
    with refused(StatusCode.INVALID_ARGUMENT, "tenant is missing", "ClearTenant"):
        session.sessions.SetTenant(SetTenantRequest(), metadata=session.metadata)
    assert session.bound() == alice


@in_grpc("session")
def test_upper_case_is_the_same_tenant(client, alice):
    session = client(alice.upper())
    assert session.tenant == alice
    assert session.bound() == alice


@in_grpc("session")
def test_the_header_may_come_twice_if_it_says_one_thing(client, alice):
    session = client(alice)
    answer = session.sessions.GetTenant(GetTenantRequest(), metadata=session.metadata * 2)
    assert answer.tenant.id == alice
    with refused(StatusCode.INVALID_ARGUMENT, "different values: send one value"):
        session.sessions.GetTenant(
            GetTenantRequest(), metadata=session.metadata + [(SESSION_HEADER, "another")]
        )


@pytest.mark.parametrize("value", ["", " ", "a b", "x" * 129])
@in_grpc("session", "errors")
def test_what_is_no_session_is_an_error_and_not_no_session(client, value):
    stub = client().sessions
    with refused(StatusCode.INVALID_ARGUMENT, SESSION_HEADER):
        stub.GetTenant(GetTenantRequest(), metadata=[(SESSION_HEADER, value)])
    listing = catalog.ListSourcesRequest()
    with refused(StatusCode.INVALID_ARGUMENT, SESSION_HEADER):
        client().catalog.ListSources(listing, metadata=[(SESSION_HEADER, value)])


@in_grpc("session", "isolation")
def test_sessions_of_one_channel_are_apart(client, alice, bob):
    session = client(alice)
    other = [(SESSION_HEADER, f"other-{uuid.uuid4()}")]
    session.sessions.SetTenant(SetTenantRequest(tenant=Tenant(id=bob)), metadata=other)
    assert session.bound() == alice
    assert session.sessions.GetTenant(GetTenantRequest(), metadata=other).tenant.id == bob


@in_grpc("session", "isolation")
def test_a_server_may_refuse_what_is_not_bound(start, client, alice):
    server = start(env={"JAMMI_TENANCY__ANONYMOUS_READS": "false"})
    session = client(of=server)
    with refused(StatusCode.FAILED_PRECONDITION, "no tenant is bound", "SetTenant"):
        session.catalog.ListSources(catalog.ListSourcesRequest(), metadata=session.metadata)
    session.bind(alice)
    assert session.rows("SELECT 1") == [(1,)]


# Requests


@in_grpc("connect")
def test_every_answer_carries_a_request_id(client, alice):
    session = client(alice)

    def ids(request, metadata):
        _, call = session.sessions.GetTenant.with_call(request, metadata=metadata)
        return [value for key, value in call.initial_metadata() if key == "x-request-id"]

    (made,) = ids(GetTenantRequest(), session.metadata)
    assert uuid.UUID(made).version == 7
    assert ids(GetTenantRequest(), session.metadata + [("x-request-id", "my-1")]) == ["my-1"]
    # An id that a log should not hold is replaced.
    (replaced,) = ids(GetTenantRequest(), session.metadata + [("x-request-id", 'a "b"')])
    assert uuid.UUID(replaced)
    # Errors have one too.
    with pytest.raises(grpc.RpcError) as error:
        session.sessions.GetTenant(GetTenantRequest())
    metadata = dict(error.value.initial_metadata()) | dict(error.value.trailing_metadata())
    assert uuid.UUID(metadata["x-request-id"])


@in_grpc("errors")
def test_an_unknown_method_is_unimplemented(client):
    channel = client().channel
    for path in ("/jammi.v1.session.SessionService/Nope", "/jammi.v1.nope.Nope/Nope"):
        with refused(StatusCode.UNIMPLEMENTED):
            channel.unary_unary(path)(b"")


@in_grpc("errors")
def test_a_message_over_the_limit_names_the_setting(start, client, alice):
    server = start(env={"JAMMI_SERVER__MESSAGE_BYTES_MAX": str(1 << 20)})
    session = client(alice, of=server)
    request = catalog.RegisterModelRequest(name="m", version="1", uri="x", metadata="x" * (2 << 20))
    with refused(StatusCode.RESOURCE_EXHAUSTED, "server.message_bytes_max"):
        session.catalog.RegisterModel(request, metadata=session.metadata)


# Reflection and health


@in_grpc("metadata")
def test_the_services_describe_themselves(client):
    database = ProtoReflectionDescriptorDatabase(client().channel)
    assert {
        "jammi.v1.session.SessionService",
        "jammi.v1.catalog.CatalogService",
        "jammi.v1.operator.OperatorService",
        "jammi.v1.tenants.TenantService",
        "arrow.flight.protocol.FlightService",
        "grpc.health.v1.Health",
    } <= set(database.get_services())
    pool = DescriptorPool(database)
    service = pool.FindServiceByName("jammi.v1.session.SessionService")
    assert {method.name for method in service.methods} == {"SetTenant", "GetTenant", "ClearTenant"}
    flight = pool.FindServiceByName("arrow.flight.protocol.FlightService")
    assert {"GetFlightInfo", "PollFlightInfo", "GetSchema", "DoGet", "DoPut", "DoAction"} <= {
        method.name for method in flight.methods
    }


@in_grpc("connect")
def test_health_is_served(client):
    stub = health_pb2_grpc.HealthStub(client().channel)
    for service in (
        "",
        "jammi.v1.session.SessionService",
        "jammi.v1.catalog.CatalogService",
        "jammi.v1.operator.OperatorService",
        "jammi.v1.tenants.TenantService",
        "arrow.flight.protocol.FlightService",
    ):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, service
    with refused(StatusCode.NOT_FOUND):
        stub.Check(health_pb2.HealthCheckRequest(service="nope"))
