-- Which state the sources and the relations are in: what was read of them holds as
-- long as the stamp stays, and no two states have had one. It is drawn, not counted,
-- for a restored lane goes on from a count that it has had before.
CREATE TABLE catalog_stamp (
    only  INTEGER PRIMARY KEY CHECK (only = 1),
    stamp INTEGER NOT NULL
) STRICT;
INSERT INTO catalog_stamp VALUES (1, random());
