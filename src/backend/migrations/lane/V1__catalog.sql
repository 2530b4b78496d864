-- The catalog of one lane. Every table holds the tenant of its rows (NULL in
-- the global lane), and every key holds the tenant, so that a row that was
-- put into the wrong file can neither be read nor be in the way.
-- Two indexes make a key, because NULLs are distinct in a unique index.

CREATE TABLE sources (
    id                INTEGER PRIMARY KEY,
    tenant_id         TEXT,
    name              TEXT NOT NULL,
    location          TEXT NOT NULL,
    format            TEXT NOT NULL,
    -- NULL: rows carry no tenant.
    tenant_column     TEXT,
    tenant_encoding   TEXT,
    -- An Arrow IPC schema message.
    schema_ipc        BLOB NOT NULL,
    -- A JSON array of names.
    partition_columns TEXT NOT NULL,
    registered_at_ms  INTEGER NOT NULL,
    refreshed_at_ms   INTEGER NOT NULL,
    CHECK ((tenant_column IS NULL) = (tenant_encoding IS NULL))
) STRICT;
CREATE UNIQUE INDEX sources_by_tenant ON sources (tenant_id, name);
CREATE UNIQUE INDEX sources_global ON sources (name) WHERE tenant_id IS NULL;

-- AUTOINCREMENT: the highest id is the version that was registered last, also
-- after a drop.
CREATE TABLE models (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id        TEXT,
    name             TEXT NOT NULL,
    version          TEXT NOT NULL,
    uri              TEXT NOT NULL,
    -- A JSON object.
    metadata         TEXT NOT NULL,
    registered_at_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX models_by_tenant ON models (tenant_id, name, version);
CREATE UNIQUE INDEX models_global ON models (name, version) WHERE tenant_id IS NULL;
