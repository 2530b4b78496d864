"""Two sessions on one server: disjoint rows, and a shared row that both see."""

import adbc_driver_flightsql.dbapi
import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jammi.v1.catalog.catalog_pb2 import ListSourcesRequest, RegisterSourceRequest
from jammi.v1.catalog.catalog_pb2_grpc import CatalogServiceStub
from jammi.v1.session.session_pb2 import SetTenantRequest, Tenant
from jammi.v1.session.session_pb2_grpc import SessionServiceStub

ALICE = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a"
BOB = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b"


def bind(channel, session_id, tenant):
    """The sample of the documentation, word for word."""
    metadata = [("jammi-session-id", session_id)]
    session = SessionServiceStub(channel)
    session.SetTenant(
        SetTenantRequest(tenant=Tenant(id=tenant)),
        metadata=metadata,
    )
    return metadata


def query(server, session_id, sql):
    options = {"adbc.flight.sql.rpc.call_header.jammi-session-id": session_id}
    with adbc_driver_flightsql.dbapi.connect(server.url, options, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()


def test_two_sessions_see_disjoint_rows_and_the_shared_one(start, tmp_path):
    server = start()
    with grpc.insecure_channel(server.address) as channel:
        alice = bind(channel, "alice-client", ALICE)
        bob = bind(channel, "bob-client", BOB)
        catalog = CatalogServiceStub(channel)

        # One file with the rows of both and a row that belongs to nobody,
        # registered by a session that is bound to no tenant.
        notes = tmp_path / "notes.parquet"
        rows = {"tenant_id": [ALICE, BOB, None], "title": ["a1", "b1", "shared"]}
        pq.write_table(pa.table(rows), notes)
        catalog.RegisterSource(
            RegisterSourceRequest(name="notes", location=str(notes)),
            metadata=[("jammi-session-id", "operator")],
        )
        # And a source of each one's own, of the same name.
        for session, titles in ((alice, ["own a"]), (bob, ["own b", "own b2"])):
            inbox = tmp_path / f"{titles[0]}.parquet"
            pq.write_table(pa.table({"title": titles}), inbox)
            catalog.RegisterSource(
                RegisterSourceRequest(name="inbox", location=str(inbox)), metadata=session
            )

        titles = "SELECT title FROM notes.public.notes ORDER BY title"
        assert query(server, "alice-client", titles) == [("a1",), ("shared",)]
        assert query(server, "bob-client", titles) == [("b1",), ("shared",)]
        assert query(server, "operator", titles) == [("shared",)]

        inbox = "SELECT title FROM inbox.public.inbox ORDER BY title"
        assert query(server, "alice-client", inbox) == [("own a",)]
        assert query(server, "bob-client", inbox) == [("own b",), ("own b2",)]

        for metadata, names in (
            (alice, ["inbox", "notes"]),
            (bob, ["inbox", "notes"]),
            ([("jammi-session-id", "operator")], ["notes"]),
        ):
            listed = catalog.ListSources(ListSourcesRequest(), metadata=metadata).sources
            assert [source.name for source in listed] == names

        # What one of them asks for by hand does not widen what it sees.
        forged = f"SELECT title FROM notes.public.notes WHERE tenant_id = '{BOB}' OR true"
        assert sorted(query(server, "alice-client", forged)) == [("a1",), ("shared",)]


def test_two_tenants_write_and_see_their_own_rows(start):
    server = start()
    with grpc.insecure_channel(server.address) as channel:
        bind(channel, "alice-client", ALICE)
        bind(channel, "bob-client", BOB)
    url, header = server.url, "adbc.flight.sql.rpc.call_header.jammi-session-id"

    def connect(session_id):
        # With transactions, as DB-API has them by default.
        return adbc_driver_flightsql.dbapi.connect(url, {header: session_id})

    # An operator makes a table for everyone, with a row that everyone sees.
    with connect("operator") as operator, operator.cursor() as cursor:
        cursor.execute("CREATE TABLE notes (id BIGINT PRIMARY KEY, title VARCHAR)")
        cursor.execute("INSERT INTO notes VALUES (1, 'shared')")
        operator.commit()

    with connect("alice-client") as alice, connect("bob-client") as bob:
        with alice.cursor() as hers, bob.cursor() as his:
            # Both at once, with keys that are each one's own.
            insert = "INSERT INTO notes VALUES (?, ?)"
            hers.executemany(insert, [(1, "a1"), (2, "a2")])
            his.executemany(insert, [(1, "b1"), (2, "b2"), (3, "b3")])
            alice.commit()
            bob.rollback()
            his.executemany(insert, [(1, "b1")])
            his.adbc_ingest("notes", pa.table({"id": [7], "title": ["bulk"]}), mode="append")
            bob.commit()
            # Each has a table of the same name.
            for cursor, connection, amounts in ((hers, alice, [1.5]), (his, bob, [2.5, 3.5])):
                cursor.adbc_ingest("sales", pa.table({"amount": amounts}), mode="create")
                connection.commit()

            # A row for another tenant, and a shared one, are nobody's to write.
            for forged in (f"(9, 'x', '{BOB}')", "(9, 'x', NULL)"):
                with pytest.raises(Exception, match="another tenant"):
                    hers.execute(f"INSERT INTO notes (id, title, tenant_id) VALUES {forged}")
            hers.execute("UPDATE notes SET title = upper(title)")
            hers.execute("DELETE FROM notes WHERE title = 'shared' OR id = 2")
            alice.commit()

    titles = "SELECT title FROM notes ORDER BY title"
    assert query(server, "alice-client", titles) == [("A1",), ("shared",)]
    assert query(server, "bob-client", titles) == [("b1",), ("bulk",), ("shared",)]
    assert query(server, "operator", titles) == [("shared",)]
    assert query(server, "alice-client", "SELECT sum(amount) FROM sales") == [(1.5,)]
    assert query(server, "bob-client", "SELECT sum(amount) FROM sales") == [(6.0,)]
