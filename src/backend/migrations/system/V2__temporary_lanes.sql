-- Which lanes a run of a process has made temporary tables in, so that whoever comes
-- after it finds what it left.

CREATE TABLE temporary_lanes (
    incarnation TEXT NOT NULL,
    -- A tenant, or 'global'.
    lane        TEXT NOT NULL,
    PRIMARY KEY (incarnation, lane)
) STRICT, WITHOUT ROWID;
