-- Who may ask, by what: keys of which only the digest is kept. Rows are numbered in the
-- order in which keys are made, and stay.

CREATE TABLE api_keys (
    id            TEXT NOT NULL PRIMARY KEY,
    user          TEXT NOT NULL,
    -- Tenants, with a blank between two, or '*' for any.
    acts_for      TEXT NOT NULL,
    -- With a blank between two.
    roles         TEXT NOT NULL,
    -- SHA-256 of the whole key.
    digest        BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER,
    revoked_at_ms INTEGER
) STRICT;
