-- Schema 1. Free text (bodies, contents, answers) is BLOB: SQLite promises nothing about a U+0000 inside a TEXT.
-- Wide columns come last, so that reading the narrow ones never walks an overflow chain.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE room (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    epoch      INTEGER NOT NULL,
    head_seq   INTEGER NOT NULL,
    floor_seq  INTEGER NOT NULL,
    operations INTEGER NOT NULL             -- ever recorded in this room; numbers them
) STRICT;

-- place = room id << 37 | seq, as a rowid. Against PRIMARY KEY(room, seq) WITHOUT ROWID this writes half the pages for
-- bodies of 1 to 4 KiB (an index page keeps only 1 KiB of a row) and inserts 1.1 to 2 times as many rows a second.
CREATE TABLE event (
    place  INTEGER PRIMARY KEY,
    kind   TEXT NOT NULL,
    actor  TEXT NOT NULL,
    op     TEXT,
    origin INTEGER NOT NULL,                -- XORed with the key of the boot that wrote it; 0 is 0
    at     INTEGER NOT NULL,
    body   BLOB NOT NULL
) STRICT;

-- Its rowid rises with time, so the expired ones are a run at the front and need no index on `at`.
CREATE TABLE operation (
    id     INTEGER PRIMARY KEY,
    room   INTEGER NOT NULL,
    actor  TEXT NOT NULL,
    op     TEXT NOT NULL,
    number INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    answer BLOB NOT NULL,
    UNIQUE (room, actor, op)
) STRICT;

CREATE TABLE document (
    row_id      INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    directory   TEXT NOT NULL,
    name        TEXT NOT NULL,
    unique_id   TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    rev         INTEGER NOT NULL,
    description BLOB,
    tags        BLOB NOT NULL,              -- netstrings: 5:draft3:faq
    content     BLOB NOT NULL
) STRICT;
CREATE INDEX document_name ON document (name, id);
CREATE INDEX document_unique_id ON document (unique_id, id);

CREATE TABLE file_mark (
    document TEXT PRIMARY KEY,
    rev      INTEGER NOT NULL,
    digest   BLOB NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta (key, value) VALUES ('schema', 1), ('boots', 0), ('clean', 1);
