-- Tables and views of one lane, which share their names.

-- AUTOINCREMENT: the rows of a table are stored under its id, in other lanes
-- too, so an id must not come back for another table.
CREATE TABLE relations (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id     TEXT,
    name          TEXT NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('table', 'view')),
    -- An Arrow IPC schema message: the columns in order.
    schema_ipc    BLOB NOT NULL,
    -- A JSON object: what Arrow does not say of a table, or a view's text.
    details       TEXT NOT NULL,
    -- A number that no other state of the relation has had.
    revision      INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    altered_at_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX relations_by_tenant ON relations (tenant_id, name);
CREATE UNIQUE INDEX relations_global ON relations (name) WHERE tenant_id IS NULL;

-- What each run of row numbers of a stored table holds: how many rows, and a
-- stamp. Every statement that writes gives the runs that it touches a stamp that
-- nothing else has had, so equal stamps mean equal rows.
CREATE TABLE table_chunks (
    stored TEXT NOT NULL,
    chunk  INTEGER NOT NULL,
    rows   INTEGER NOT NULL,
    stamp  INTEGER NOT NULL,
    PRIMARY KEY (stored, chunk)
) STRICT, WITHOUT ROWID;
