-- Tables that belong to one session, and go with it.

-- Whom the relation belongs to: a run of a process, a session in it, and a life of
-- that session. NULL: it stays.
ALTER TABLE relations ADD COLUMN session TEXT;

-- The names of a session are its own.
DROP INDEX relations_by_tenant;
DROP INDEX relations_global;
CREATE UNIQUE INDEX relations_by_tenant ON relations (tenant_id, name) WHERE session IS NULL;
CREATE UNIQUE INDEX relations_global ON relations (name) WHERE tenant_id IS NULL AND session IS NULL;
CREATE UNIQUE INDEX relations_by_session ON relations (session, tenant_id, name) WHERE session IS NOT NULL;
CREATE UNIQUE INDEX relations_global_by_session ON relations (session, name)
    WHERE tenant_id IS NULL AND session IS NOT NULL;
