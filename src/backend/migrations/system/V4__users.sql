-- Users with passwords of their own, of which only an Argon2id hash is kept.

CREATE TABLE users (
    name          TEXT NOT NULL PRIMARY KEY,
    -- Tenants, with a blank between two, or '*' for any.
    acts_for      TEXT NOT NULL,
    -- With a blank between two.
    roles         TEXT NOT NULL,
    salt          BLOB NOT NULL,
    hash          BLOB NOT NULL,
    -- What the hash was made with.
    memory_kib    INTEGER NOT NULL,
    passes        INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL
) STRICT;

-- How often the credentials of a kind have changed: whoever knows the number knows
-- which there are, whatever else is written here.

CREATE TABLE credential_changes (
    kind    TEXT NOT NULL PRIMARY KEY,
    changes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO credential_changes VALUES ('api_keys', 0), ('users', 0);
