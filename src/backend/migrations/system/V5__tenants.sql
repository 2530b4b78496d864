-- Tenants as the operator knows them. A tenant need not be here to have a lane.

CREATE TABLE tenants (
    id              TEXT NOT NULL PRIMARY KEY,
    -- May be empty: nothing goes by it.
    name            TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('active', 'suspended', 'erasing')),
    created_at_ms   INTEGER NOT NULL,
    -- When the state was last another one.
    state_at_ms     INTEGER NOT NULL,
    -- The tenant above, which is registered too. No tenant is above itself.
    parent          TEXT,
    -- Whether those below read its rows.
    shares          INTEGER NOT NULL DEFAULT 0 CHECK (shares IN (0, 1))
) STRICT;
CREATE INDEX tenants_by_parent ON tenants (parent);

-- What each tenant has used, but for what a process still counts.
CREATE TABLE tenant_usage (
    tenant_id   TEXT NOT NULL PRIMARY KEY,
    queries     INTEGER NOT NULL,
    rows        INTEGER NOT NULL,
    running_us  INTEGER NOT NULL,
    since_ms    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Tenants that are or were erased. As long as one is not done, its lane gets no
-- database. AUTOINCREMENT: whoever has seen one knows what came after it.
CREATE TABLE erasures (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id   TEXT NOT NULL,
    began_at_ms INTEGER NOT NULL,
    -- NULL: it goes on.
    ended_at_ms INTEGER,
    -- A JSON object: what was there, as far as it is known.
    certificate TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX erasures_going_on ON erasures (tenant_id) WHERE ended_at_ms IS NULL;

INSERT INTO credential_changes VALUES ('tenants', 0);
