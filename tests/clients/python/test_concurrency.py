"""Many requests of two tenants at once never mix."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.parquet as pq
import pytest
from flight_sql import statement_query
from jammi.v1.catalog.catalog_pb2 import ListSourcesRequest
from jammi.v1.session.session_pb2 import GetTenantRequest, SetTenantRequest, Tenant

in_adbc = partial(pytest.mark.feature, "adbc (Python)")
in_flight = partial(pytest.mark.feature, "pyarrow.flight")
in_grpc = partial(pytest.mark.feature, "grpcio")

THREADS = 16
QUERIES = 600


@pytest.fixture
def events(client, alice, bob, unique, tmp_path):
    """A shared source with rows of Alice and Bob in turn, and some of nobody."""
    owners = [alice, bob, alice, bob, None] * 400
    table = pa.table({"id": range(len(owners)), "tenant_id": owners})
    pq.write_table(table, tmp_path / "events.parquet", row_group_size=100)
    client().add_source(unique, tmp_path / "events.parquet")
    return f"{unique}.public.{unique}"


@in_flight("isolation")
def test_two_tenants_on_one_connection_never_mix(server, client, alice, bob, events):
    tenants = {client(alice).session: alice, client(bob).session: bob, "nobody": None}
    sessions = list(tenants)
    with flight.connect(server.url) as flights:

        def query(number):
            session = sessions[number % len(sessions)]
            options = flight.FlightCallOptions(headers=[(b"jammi-session-id", session.encode())])
            sql = f"SELECT tenant_id, id FROM {events} WHERE id >= {number % 7}"
            descriptor = flight.FlightDescriptor.for_command(statement_query(sql))
            (endpoint,) = flights.get_flight_info(descriptor, options).endpoints
            rows = flights.do_get(endpoint.ticket, options).read_all()
            allowed = {tenants[session], None}
            assert set(rows.column("tenant_id").to_pylist()) == allowed
            own = {0: alice, 1: bob, 2: alice, 3: bob, 4: None}
            expected = [n for n in range(number % 7, 2000) if own[n % 5] in allowed]
            assert sorted(rows.column("id").to_pylist()) == expected

        with ThreadPoolExecutor(THREADS) as threads:
            for done in [threads.submit(query, number) for number in range(QUERIES)]:
                done.result()


@in_grpc("isolation")
def test_two_tenants_on_one_channel_never_mix(client, alice, bob, tmp_path):
    sessions = []
    one = client()
    for tenant in (alice, bob):
        file = tmp_path / f"{tenant}.csv"
        file.write_text("a\n1\n")
        session = client(tenant)
        session.add_source(f"of_{tenant.replace('-', '_')}", file)
        sessions.append(session)

    def ask(number):
        session = sessions[number % 2]
        own = f"of_{session.tenant.replace('-', '_')}"
        bound = one.sessions.GetTenant(GetTenantRequest(), metadata=session.metadata)
        assert bound.tenant.id == session.tenant
        listed = one.catalog.ListSources(ListSourcesRequest(), metadata=session.metadata).sources
        named = {source.name for source in listed if source.name.startswith("of_")}
        assert named == {own}

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(ask, range(QUERIES)))


@in_adbc("isolation")
def test_drivers_of_two_tenants_never_mix(client, alice, bob, events):
    clients = [client(alice), client(bob)]

    def work(number):
        mine = clients[number % 2]
        with mine.connect() as connection, connection.cursor() as cursor:
            for _ in range(10):
                cursor.execute(f"SELECT DISTINCT tenant_id FROM {events} WHERE id > ?", (number,))
                assert {row[0] for row in cursor.fetchall()} == {mine.tenant, None}

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(16)))


@in_flight("isolation")
def test_rebinding_while_others_query_gives_one_view_or_an_error(server, client, alice, bob, events):
    """What is admitted under one binding is answered under it, whatever the next one is."""
    session = client(alice)
    stop = threading.Event()

    def rebind():
        tenants = [bob, alice]
        while not stop.is_set():
            tenants.reverse()
            request = SetTenantRequest(tenant=Tenant(id=tenants[0]))
            session.sessions.SetTenant(request, metadata=session.metadata)

    options = flight.FlightCallOptions(headers=[(b"jammi-session-id", session.session.encode())])
    seen = {"rows": 0, "refused": 0}
    binder = threading.Thread(target=rebind)
    binder.start()
    try:
        with flight.connect(server.url) as flights:
            descriptor = flight.FlightDescriptor.for_command(
                statement_query(f"SELECT tenant_id FROM {events}")
            )
            for _ in range(200):
                (endpoint,) = flights.get_flight_info(descriptor, options).endpoints
                try:
                    rows = flights.do_get(endpoint.ticket, options).read_all()
                except pa.ArrowException as error:
                    assert "prepare the statement again" in str(error)
                    seen["refused"] += 1
                    continue
                owners = rows.column("tenant_id").to_pylist()
                assert set(owners) in ({alice, None}, {bob, None})
                assert len(owners) == 1200
                seen["rows"] += 1
    finally:
        stop.set()
        binder.join()
    assert sum(seen.values()) == 200


@in_flight("streaming", "isolation")
def test_a_stream_keeps_the_scope_that_it_began_with(server, client, alice, bob, unique, tmp_path):
    owners = [alice, bob] * 500_000
    pq.write_table(pa.table({"tenant_id": owners}), tmp_path / "big.parquet")
    client().add_source(unique, tmp_path / "big.parquet")
    session = client(alice)
    options = flight.FlightCallOptions(headers=[(b"jammi-session-id", session.session.encode())])
    sql = statement_query(f"SELECT tenant_id FROM {unique}.public.{unique}")
    with flight.connect(server.url) as flights:
        descriptor = flight.FlightDescriptor.for_command(sql)
        (endpoint,) = flights.get_flight_info(descriptor, options).endpoints
        reader = flights.do_get(endpoint.ticket, options)
        chunks = [reader.read_chunk().data]
        session.bind(bob)
        chunks += [chunk.data for chunk in reader]
    table = pa.Table.from_batches(chunks)
    assert table.column("tenant_id").value_counts().to_pylist() == [
        {"values": alice, "counts": 500_000}
    ]
