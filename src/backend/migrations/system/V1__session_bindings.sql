-- Which tenant each session of each principal is bound to.

CREATE TABLE session_bindings (
    principal    TEXT NOT NULL,
    session_id   TEXT NOT NULL,
    tenant_id    TEXT NOT NULL,
    bound_at_ms  INTEGER NOT NULL,
    last_used_ms INTEGER NOT NULL,
    PRIMARY KEY (principal, session_id)
) STRICT, WITHOUT ROWID;
