-- What the durable peers commit for one update: a room's head, its event, the document. The same rows as commitcast keeps.
-- place = room id << 37 | seq, as there; both are rowid tables, so an event is one append.

CREATE TABLE IF NOT EXISTS room (
    id       INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    head_seq INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS event (
    place INTEGER PRIMARY KEY,
    kind  TEXT NOT NULL,
    actor TEXT NOT NULL,
    at    INTEGER NOT NULL,
    body  TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS document (
    row_id     INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    updated_at TEXT NOT NULL,
    content    TEXT NOT NULL
) STRICT;
