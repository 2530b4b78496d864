"""Writes or checks the table of clients, from what the tests of the clients recorded.

    table.py [--check] docs/clients.md target/features.jsonl

Each line of the second file is `{"client": "...", "feature": "...", "passed": true}`.
A client whose tests did not run keeps its row; with CI set, that is an error.
A feature that failed is one too.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

CLIENTS = [
    "adbc (Python)",
    "pandas",
    "polars",
    "pyarrow.flight",
    "grpcio",
    "Go flightsql.Client (arrow-go)",
    "Go database/sql (arrow-go)",
    "Go ADBC driver (arrow-adbc)",
    "Java: Flight SQL JDBC driver",
    "browser",
    "buf",
    "console",
]

# What the tests of a feature show, in the order of the columns.
FEATURES = {
    "connect": "calls and connections open and end, and options that are not the server's do no harm",
    "session": "a session is named by a header or cookie, bound to a tenant, and shared by the connections that send it",
    "token": "a key or another token is sent as a bearer, and what it does not act for is refused",
    "password": "a user and a password sign in, on each call or by a handshake",
    "certificate": "a certificate of the client's own is shown",
    "encryption": "connections are encrypted, by a root that the client is told of",
    "query": "statements run, and answer with rows",
    "parameters": "values are bound to `?` or `$1`",
    "prepared": "a statement is prepared once and run again",
    "batch": "many rows are bound to one statement",
    "ingest": "a table is written in bulk: created, appended to, replaced",
    "transactions": "statements are committed or rolled back together",
    "metadata": "catalogs, tables, columns, or services are listed",
    "cancel": "a query that is given up ends on the server",
    "errors": "an error arrives with its text, and leaves the client usable",
    "isolation": "nothing of one tenant appears to another",
    "types": "values arrive as they are stored",
    "streaming": "rows arrive before a large result ends, and all of them do",
}

DOCUMENT = """\
# Clients

What works with which client, as the tests in `tests/clients` find it: each client runs against a real server, with the calls
of its own interface. The table is made of what these tests report. `make test` checks it, and `make clients-table` writes it
anew from the last `make test`.

{table}

"yes": every test of it passed. "-": the client has no words for it, or it is not tested.

{meanings}

## What to know

- **JDBC**: see [JDBC](flight-sql.md#jdbc).
- **ADBC** (Python): a connection is in a transaction from the start unless it is opened with `autocommit=True`.
- **ADBC** (Go, arrow-adbc 1.11): a connection commits by itself until `adbc.connection.autocommit` is `false`. A statement takes
  parameters once it is prepared. Its own `database/sql` driver and that of arrow-go have one name, so that a program can have one of them.
- **pandas** (3.1): `params` and `chunksize` are not implemented for ADBC. `to_sql` commits by itself; its `if_exists="replace"`
  drops the table and makes it again: open the connection without autocommit, so that a rollback brings it back. It looks for the
  name in every catalog, so a table cannot have the name of a source's. An index without a name becomes the column
  `__index_level_0__`: write with `index=False`. What the server says to a refused write is the `__cause__` of the error. Integers
  with NULLs are read as floats without `dtype_backend="pyarrow"`.
- **polars** (2.1): `write_database` takes a connection (`engine="adbc"`), and commits by itself. `iter_batches`
  gives the batches of the server, whatever `batch_size` is.
- **Go, `database/sql`** (arrow-go 18.8): when the server fails in the middle of a result, the driver can end the rows early and
  report **no error**: use `flightsql.Client`, or check the number of rows. It cannot bind NULL, bytes, dates, timestamps,
  decimals, or integers other than BIGINT, nor read unsigned integers, lists, structs and intervals.
"""


class Wrong(Exception):
    """What is wrong, and what to do."""


def recorded(path):
    """The features of each client that ran, all of which passed."""
    found, failed = {}, []
    for line in path.read_text().splitlines() if path.exists() else ():
        result = json.loads(line)
        client, feature = result["client"], result["feature"]
        if client not in CLIENTS or feature not in FEATURES:
            raise Wrong(f"{client}: {feature}: add it to tests/clients/table.py")
        if not result["passed"]:
            failed.append(f"{client}: {feature}")
        found.setdefault(client, set()).add(feature)
    if failed:
        raise Wrong("tests of these failed: " + ", ".join(failed))
    return found


def rows(document):
    """The rows of the table as they are written, by client."""
    lines = re.finditer(r"^\| (.+?) \|(?: (?:yes|-) \|)+$", document, re.MULTILINE)
    return {line[1]: line[0] for line in lines}


def row(client, features):
    cells = ["yes" if feature in features else "-" for feature in FEATURES]
    return f"| {client} | {' | '.join(cells)} |"


def render(found, document):
    """The document: rows of clients that did not run are those of `document`."""
    lines = rows(document) | {client: row(client, features) for client, features in found.items()}
    head = ["| client | " + " | ".join(FEATURES) + " |", "|---" * (len(FEATURES) + 1) + "|"]
    return DOCUMENT.format(
        table="\n".join(head + [lines[client] for client in CLIENTS if client in lines]),
        meanings="\n".join(f"- {feature}: {meaning}" for feature, meaning in FEATURES.items()),
    )


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="change nothing, and fail if it would")
    arguments.add_argument("document", type=Path)
    arguments.add_argument("recorded", type=Path)
    options = arguments.parse_args()

    found = recorded(options.recorded)
    silent = [client for client in CLIENTS if client not in found]
    if silent:
        print("not tested, so their rows are as they were:", ", ".join(silent), file=sys.stderr)
        if len(silent) == len(CLIENTS):
            raise Wrong(f"{options.recorded} has no features: run `make test` first")
        if os.environ.get("CI"):
            raise Wrong("with CI set, every client has to be tested")
    written = options.document.read_text() if options.document.exists() else ""
    wanted = render(found, written)
    if not options.check:
        options.document.write_text(wanted)
    elif written != wanted:
        before, after = rows(written), rows(wanted)
        differ = [client for client in CLIENTS if before.get(client) != after.get(client)]
        raise Wrong(
            f"{options.document} is not what the tests found"
            f" ({', '.join(differ) or 'its text differs'}): run `make clients-table`"
        )


if __name__ == "__main__":
    try:
        main()
    except Wrong as wrong:
        sys.exit(f"table.py: {wrong}")
