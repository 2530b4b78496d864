import sys

import adbc_driver_flightsql.dbapi
import grpc

sys.path.insert(0, "PROTO")
messages, services = grpc.protos_and_services("jammi/v1/session/session.proto")
tenants = {
    "alice": "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a",
    "bob": "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b",
}
header = "adbc.flight.sql.rpc.call_header.jammi-session-id"

with grpc.insecure_channel("HOST:PORT") as channel:
    sessions = services.SessionServiceStub(channel)
    for name, tenant in tenants.items():
        sessions.SetTenant(
            messages.SetTenantRequest(tenant=messages.Tenant(id=tenant)),
            metadata=[("jammi-session-id", name)],
        )
        with adbc_driver_flightsql.dbapi.connect(
            "grpc://HOST:PORT", {header: name}, autocommit=True
        ) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT title FROM notes.public.notes ORDER BY id")
            print(name, "reads", [title for (title,) in cursor.fetchall()])
