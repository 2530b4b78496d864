"""Arrow Flight without a driver: pyarrow's client, and commands made by hand."""

import random
import struct
from functools import partial

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from flight_sql import field, fields, first_field, message, prepared_query, statement_query

in_flight = partial(pytest.mark.feature, "pyarrow.flight")


@pytest.fixture
def flights(server):
    with flight.connect(server.url) as flights:
        yield flights


def options(session):
    return flight.FlightCallOptions(headers=[(b"jammi-session-id", session.session.encode())])


def info(flights, command, session):
    return flights.get_flight_info(flight.FlightDescriptor.for_command(command), options(session))


def ticket(flights, sql, session):
    (endpoint,) = info(flights, statement_query(sql), session).endpoints
    return endpoint.ticket


def prepare(flights, sql, session):
    action = flight.Action(
        "CreatePreparedStatement", message("ActionCreatePreparedStatementRequest", (1, sql))
    )
    (result,) = flights.do_action(action, options(session))
    return first_field(result.body.to_pybytes())


@in_flight("connect", "session", "query")
def test_a_statement_runs_by_descriptor_and_ticket(flights, client, alice, notes):
    session = client(alice)
    found = info(flights, statement_query(f"SELECT title FROM {notes} ORDER BY id"), session)
    assert found.schema == pa.schema({"title": pa.string()})
    (endpoint,) = found.endpoints
    table = flights.do_get(endpoint.ticket, options(session)).read_all()
    assert table.column("title").to_pylist() == ["a1", "a2", "shared"]
    # A ticket may be shown again: it is the statement, not its rows.
    assert flights.do_get(endpoint.ticket, options(session)).read_all() == table


@in_flight("metadata", "prepared")
def test_the_schema_of_a_command(flights, client, alice, notes):
    session = client(alice)

    def schema(command):
        descriptor = flight.FlightDescriptor.for_command(command)
        return flights.get_schema(descriptor, options(session)).schema

    assert schema(statement_query(f"SELECT id, title FROM {notes}")).names == ["id", "title"]
    assert schema(message("CommandGetCatalogs")).names == ["catalog_name"]
    handle = prepare(flights, f"SELECT id FROM {notes} WHERE id = ?", session)
    assert schema(prepared_query(handle)).names == ["id"]


@in_flight("metadata", "errors")
def test_actions_are_listed_truthfully(flights, client, alice):
    session = client(alice)
    listed = {action.type for action in flights.list_actions(options(session))}
    of_substrait = "CreatePreparedSubstraitPlan"
    assert listed - {of_substrait} == {
        "BeginSavepoint", "BeginTransaction", "CancelFlightInfo", "CancelQuery",
        "ClosePreparedStatement", "CloseSession", "CreatePreparedStatement", "EndSavepoint",
        "EndTransaction", "GetSessionOptions", "RenewFlightEndpoint", "SetSessionOptions",
    }
    # It is there in a server that is built with the feature.
    refusal = (pa.ArrowInvalid, "holds no plan") if of_substrait in listed else (NotImplementedError, "--features")
    request = message("ActionCreatePreparedSubstraitPlanRequest")
    for action, body, (error, says) in (
        (of_substrait, request, refusal),
        ("nope", b"", (NotImplementedError, "is not served")),
    ):
        with pytest.raises(error, match=says):
            list(flights.do_action(flight.Action(action, body), options(session)))


@in_flight("cancel", "isolation")
def test_an_announced_query_is_cancelled(flights, client, alice, bob):
    session = client(alice)
    found = info(flights, statement_query("SELECT 1"), session)
    # A CancelFlightInfoRequest has the info as its first field.
    request = field(1, found.serialize())
    action = flight.Action("CancelFlightInfo", request)
    with pytest.raises(pa.ArrowException, match="another session"):
        list(flights.do_action(action, options(client(bob))))
    [result] = flights.do_action(action, options(session))
    assert result.body.to_pybytes() == b"\x08\x01"
    with pytest.raises(flight.FlightCancelledError, match="was cancelled by its client"):
        flights.do_get(found.endpoints[0].ticket, options(session)).read_all()


def views_of_one_text(count, length):
    """So many values of so many bytes, all in one buffer."""
    views = struct.pack("<i4sii", length, b"xxxx", 0, 0) * count
    buffers = [None, pa.py_buffer(views), pa.py_buffer(b"x" * length)]
    return pa.Array.from_buffers(pa.string_view(), count, buffers)


@in_flight("parameters", "errors")
def test_parameters_take_no_more_room_than_their_row(flights, client, alice, metric):
    # Spelled out, the texts would take a hundred gigabytes.
    texts = views_of_one_text(count=100_000, length=1_000_000)
    panics = metric("jammi_panics_total")

    session = client(alice)

    def bind(column):
        command = prepared_query(prepare(flights, "SELECT length(?)", session))
        descriptor = flight.FlightDescriptor.for_command(command)
        batch = pa.record_batch([column], names=["0"])
        writer, answers = flights.do_put(descriptor, batch.schema, options(session))
        with writer:
            writer.write_batch(batch)
            writer.done_writing()
            return answers.read()

    keys = pa.array([7], pa.uint32())
    answer = bind(pa.DictionaryArray.from_arrays(keys, texts))
    # The new handle is the answer's first field.
    handle = dict(fields(answer.to_pybytes()))[1]
    (endpoint,) = info(flights, prepared_query(handle), session).endpoints
    table = flights.do_get(endpoint.ticket, options(session)).read_all()
    assert table.column(0).to_pylist() == [1_000_000]
    lists = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts)
    with pytest.raises(pa.ArrowInvalid, match="views or runs inside"):
        bind(lists)
    assert metric("jammi_panics_total") == panics


@in_flight("metadata")
def test_there_are_no_flights_to_list(flights):
    assert list(flights.list_flights()) == []


@pytest.mark.parametrize(
    "command",
    [
        b"",
        b"not protobuf",
        b"\xff" * 64,
        message("CommandNobodyKnows"),
        message("CommandStatementSubstraitPlan"),
        message("CommandStatementUpdate", (1, "DELETE FROM t")),
    ],
)
@in_flight("errors")
def test_what_is_no_command_is_refused(flights, client, alice, command):
    session = client(alice)
    descriptor = flight.FlightDescriptor.for_command(command)
    for call in (flights.get_flight_info, flights.get_schema):
        with pytest.raises((pa.ArrowInvalid, NotImplementedError)):
            call(descriptor, options(session))
    with pytest.raises((pa.ArrowInvalid, NotImplementedError)):
        flights.do_get(flight.Ticket(command), options(session)).read_all()


@in_flight("errors")
def test_a_path_is_no_command(flights, client, alice):
    descriptor = flight.FlightDescriptor.for_path("notes")
    with pytest.raises(pa.ArrowInvalid, match="send a Flight SQL command"):
        flights.get_flight_info(descriptor, options(client(alice)))


@in_flight("session", "isolation")
def test_a_ticket_is_its_sessions_alone(flights, client, alice, bob, notes):
    session = client(alice)
    sealed = ticket(flights, f"SELECT * FROM {notes}", session)
    for other in (client(bob), client(alice), client()):
        with pytest.raises(pa.ArrowException, match="to another session"):
            flights.do_get(sealed, options(other)).read_all()
    with pytest.raises(pa.ArrowException, match="to another session"):
        flights.do_get(sealed).read_all()


@in_flight("session", "prepared", "isolation")
def test_rebinding_a_session_ends_its_tickets_and_handles(flights, client, alice, bob, notes):
    session = client(alice)
    sealed = ticket(flights, f"SELECT * FROM {notes}", session)
    handle = prepare(flights, f"SELECT * FROM {notes}", session)
    for rebind in (lambda: session.bind(bob), session.clear, lambda: session.bind(alice)):
        rebind()
        with pytest.raises(pa.ArrowException, match="prepare the statement again"):
            flights.do_get(sealed, options(session)).read_all()
        with pytest.raises(pa.ArrowException, match="prepare the statement again"):
            info(flights, prepared_query(handle), session)
    # To bind what is bound already changes nothing.
    sealed = ticket(flights, f"SELECT * FROM {notes}", session)
    session.bind(alice)
    assert flights.do_get(sealed, options(session)).read_all().num_rows == 3


@in_flight("prepared", "isolation")
def test_forged_tickets_and_handles_are_refused(flights, client, alice, notes):
    session = client(alice)
    genuine = ticket(flights, f"SELECT * FROM {notes}", session).ticket
    handle = first_field(genuine)
    wrap = lambda forged: message("TicketStatementQuery", (1, forged))
    assert flights.do_get(flight.Ticket(wrap(handle)), options(session)).read_all().num_rows == 3

    # Fixed, so that a failure can be repeated.
    chance = random.Random(7)
    forgeries = [b"", handle[:-1], handle + b"\0", bytes(len(handle)), handle[33:]]
    for _ in range(40):
        forged = bytearray(handle)
        forged[chance.randrange(len(forged))] ^= 1 << chance.randrange(8)
        forgeries.append(bytes(forged))
    # Another statement under the same seal.
    forgeries.append(handle.replace(b"SELECT * FROM", b"SELECT 1 FROM"))
    for forged in forgeries:
        if forged == handle:
            continue
        with pytest.raises(pa.ArrowInvalid, match="was not issued by this server"):
            flights.do_get(flight.Ticket(wrap(forged)), options(session)).read_all()
        with pytest.raises(pa.ArrowInvalid, match="was not issued by this server"):
            info(flights, prepared_query(forged), session)
    # One kind of handle is not taken for the other.
    with pytest.raises(pa.ArrowInvalid, match="was not issued by this server"):
        info(flights, prepared_query(handle), session)


@in_flight("connect")
def test_tickets_do_not_outlive_the_server(start, client, alice):
    server = start()
    session = client(alice, of=server)
    with flight.connect(server.url) as flights:
        sealed = ticket(flights, "SELECT 1", session)
    server.stop()
    server = start()
    with flight.connect(server.url) as flights:
        with pytest.raises(pa.ArrowInvalid, match="was not issued by this server since it started"):
            flights.do_get(sealed, options(session)).read_all()


@pytest.mark.parametrize("leave", ["cancel", "drop"])
@in_flight("cancel", "streaming")
def test_a_dropped_reader_stops_the_work(flights, client, alice, leave, metric):
    session = client(alice)
    sealed = ticket(flights, "SELECT value FROM generate_series(1, 1000000000000)", session)
    cancelled = {"method": "/arrow.flight.protocol.FlightService/DoGet", "code": "CANCELLED"}
    before = metric("jammi_requests_total", **cancelled)
    reader = flights.do_get(sealed, options(session))
    assert reader.read_chunk().data.num_rows > 0
    if leave == "cancel":
        reader.cancel()
    del reader
    metric.reaches("jammi_requests_total", before + 1, **cancelled)
    metric.reaches("jammi_requests_active", 0)
    assert session.rows("SELECT 1") == [(1,)]


@in_flight("cancel")
def test_a_client_that_vanishes_stops_the_work(start, client, alice, metric):
    server = start()
    session = client(alice, of=server)
    flights = flight.connect(server.url)
    sealed = ticket(flights, "SELECT value FROM generate_series(1, 1000000000000)", session)
    reader = flights.do_get(sealed, options(session))
    assert reader.read_chunk().data.num_rows > 0
    del reader
    flights.close()
    metric.reaches("jammi_requests_active", 0, of=server)
    assert session.rows("SELECT 1") == [(1,)]
