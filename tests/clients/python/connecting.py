"""Clients as applications make them: generated gRPC stubs, ADBC and Flight."""

import uuid
from contextlib import contextmanager

import adbc_driver_flightsql.dbapi
import grpc
from jammi.v1.catalog import catalog_pb2 as catalog
from jammi.v1.catalog.catalog_pb2_grpc import CatalogServiceStub
from jammi.v1.session.session_pb2 import (
    ClearTenantRequest,
    GetTenantRequest,
    SetTenantRequest,
    Tenant,
)
from jammi.v1.session.session_pb2_grpc import SessionServiceStub

SESSION_HEADER = "jammi-session-id"
ADBC_HEADER = f"adbc.flight.sql.rpc.call_header.{SESSION_HEADER}"


class Client:
    """One session of one server, bound to `tenant` when there is one."""

    def __init__(self, server, tenant=None, session=None):
        self.server = server
        self.tenant = tenant
        self.session = session or f"session-{uuid.uuid4()}"
        self.metadata = [(SESSION_HEADER, self.session)]
        self.channel = grpc.insecure_channel(server.address)
        self.sessions = SessionServiceStub(self.channel)
        self.catalog = CatalogServiceStub(self.channel)
        if tenant:
            self.bind(tenant)

    def bind(self, tenant):
        request = SetTenantRequest(tenant=Tenant(id=tenant))
        self.tenant = self.sessions.SetTenant(request, metadata=self.metadata).tenant.id

    def clear(self):
        self.sessions.ClearTenant(ClearTenantRequest(), metadata=self.metadata)

    def bound(self):
        """The tenant that the server says the session is bound to, or None."""
        answer = self.sessions.GetTenant(GetTenantRequest(), metadata=self.metadata)
        return answer.tenant.id if answer.HasField("tenant") else None

    def add_source(self, name, location, tenant_column=None, format=None):
        request = catalog.RegisterSourceRequest(
            name=name, location=str(location), tenant_column=tenant_column, format=format
        )
        return self.catalog.RegisterSource(request, metadata=self.metadata)

    def connect(self, **options):
        """An ADBC connection whose calls carry the session's header."""
        options.setdefault("autocommit", True)
        return adbc_driver_flightsql.dbapi.connect(
            self.server.url, db_kwargs={ADBC_HEADER: self.session}, **options
        )

    def rows(self, sql, parameters=None):
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall()

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()


@contextmanager
def refused(code, *parts):
    """The gRPC call inside is refused with `code`, in a text that holds `parts`."""
    try:
        yield
    except grpc.RpcError as error:
        assert error.code() is code, f"{error.code()}: {error.details()}"
        for part in parts:
            assert part in error.details(), f"{part!r} is not in {error.details()!r}"
    else:
        raise AssertionError(f"expected {code}")
