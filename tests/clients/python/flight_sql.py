"""Flight SQL commands as bytes, for clients that have no driver for them."""

from google.protobuf.any_pb2 import Any


def field(number, value):
    """A length-delimited protobuf field."""
    value = value.encode() if isinstance(value, str) else value
    length, prefix = len(value), bytearray([number << 3 | 2])
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + value


def fields(message_bytes):
    """The fields of a message: number and value, in the order in which they are sent."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message_bytes[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message_bytes):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        length = {1: 8, 5: 4}.get(key & 7) or varint()
        yield key >> 3, message_bytes[at : at + length]
        at += length


def message(name, *values):
    """A message of `arrow.flight.protocol.sql` with `(number, value)` fields, as bytes in an Any."""
    url = f"type.googleapis.com/arrow.flight.protocol.sql.{name}"
    value = b"".join(field(number, value) for number, value in values)
    return Any(type_url=url, value=value).SerializeToString()


def statement_query(sql):
    return message("CommandStatementQuery", (1, sql))


def prepared_query(handle):
    return message("CommandPreparedStatementQuery", (1, handle))


def first_field(message_bytes):
    """The value of field 1 of the message in an Any."""
    return dict(fields(Any.FromString(message_bytes).value))[1]


def plan_of_read(table, **columns):
    """A plan of Substrait that reads columns of a table, whose names have a number as `Type` has it."""
    nullable = b"\x10\x01"
    types = b"".join(field(1, field(number, nullable)) for number in columns.values())
    names = [field(1, name) for name in columns]
    read = field(2, b"".join(names) + field(2, types)) + field(7, b"".join(field(1, n) for n in table))
    root = field(1, field(1, read)) + b"".join(field(2, name) for name in columns)
    version = b"\x10\x55"  # 0.85
    return field(3, field(2, root)) + field(6, version)
