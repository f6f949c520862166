-- Schema 2, made over schema 1, in a new file as in an old one: what dialects keep beside the log, and work for backends.

-- The newest state of a room. Not in the room's row: that one is written with every event, and a state may be wide.
CREATE TABLE state (
    room INTEGER PRIMARY KEY,               -- room.id
    rev  INTEGER NOT NULL,
    seq  INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- Every index ends in the rowid, which rises: so each of them gives the order of first putting without sorting.
CREATE TABLE record (
    row_id     INTEGER PRIMARY KEY,
    shelf      INTEGER NOT NULL,
    id         TEXT NOT NULL,
    parent     TEXT NOT NULL,
    state      TEXT NOT NULL,
    due        INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    body       BLOB NOT NULL,
    UNIQUE (shelf, id)
) STRICT;
CREATE INDEX record_shelf ON record (shelf);
CREATE INDEX record_parent ON record (shelf, parent);
CREATE INDEX record_state ON record (shelf, state);
CREATE INDEX record_due ON record (due) WHERE due IS NOT NULL;
-- shelf + 0, and not shelf: SQLite would look whether the value bound in `shelf = ?` is the 7, and prepare every such
-- statement again whenever another one is bound, which was a tenth of the writer's time.
CREATE INDEX record_mark ON record (updated_at) WHERE shelf + 0 = 7;

-- AUTOINCREMENT, because an id must not come again when the newest row was removed.
CREATE TABLE task (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    fence      INTEGER NOT NULL,
    holder     INTEGER NOT NULL,
    ready_at   INTEGER NOT NULL,
    done_at    INTEGER,
    room       TEXT NOT NULL,
    body       BLOB NOT NULL                -- empty when done
) STRICT;
-- (kind, id, ready_at) and not (kind, ready_at): the first ready ones by id are wanted, of a backlog of any length, and
-- ordered by ready_at every hand-out would sort all of it. The leased ones in between are passed over in the index alone,
-- for which SQLite wants to find done_at there too.
CREATE INDEX task_open ON task (kind, id, ready_at, done_at) WHERE done_at IS NULL;
CREATE INDEX task_held ON task (holder) WHERE holder <> 0;

INSERT INTO meta (key, value) VALUES ('fence', 0);
UPDATE meta SET value = 2 WHERE key = 'schema';
