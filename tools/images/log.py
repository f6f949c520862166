"""What the server's log really was, commit by commit, and whether a recovered one is a piece of it.

The log is read from the disk that loses nothing, again and again along the trace, before retention trims it. Everything of
one transaction has one time, so the log falls into commits; a recovered log is right when it is the log after one of them,
whole, and not an earlier one than clients were shown.

The one place here that knows the database.
"""

import bisect
import contextlib
import functools
import itertools
import json
import os
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from typing import NamedTuple

DATABASE = "commitcast.sqlite"
# An event's place is its room's id, then 37 bits of seq.
SEQ_BITS = 37
SEQ_MASK = (1 << SEQ_BITS) - 1
APPROVALS = 3
# Two copies of the header of the index, and the state of its checkpoints.
INDEX_HEADER_BYTES = 136
DECISIONS = {"approved", "rejected", "edit_approved"}
# Neighbours that one operation makes: an edit over REST, and a cancelled run with its open approvals.
SEVERAL = {("update", "update_metadata"), ("rejected", "error")}
# Events of this many commits before the recovered one are compared byte for byte in every image; all of them are in one
# image of EVERY_WHOLE (replay.py), with the tables beside the log. That none is missing is checked in all of them.
COMMITS_COMPARED = 6


class Event(NamedTuple):
    place: int
    at: int
    kind: str
    actor: str
    op: str
    body: bytes

    @property
    def room(self):
        return self.place >> SEQ_BITS

    @property
    def seq(self):
        return self.place & SEQ_MASK


class Wrong(Exception):
    """What an image must not be."""


class Reader:
    """Opens images for reading, as the first process does after the failure of power: SQLite finds no index of the write-ahead
    log in shared memory, and recovers the log. Nothing of an image is changed: a reader moves no log, and a rollback journal,
    which SQLite carries out, it is given in a copy.

    Images that stand in the same files one after the other are read by the same connection, for opening and parsing the
    schema would be most of the work. It notices that the files have changed as any connection would, by the header of the
    index: zeroed, as it is in a new one, it obliges to a recovery from the first frame on and throws away what was cached.
    The one thing that SQLite then does not read anew, the schema, is compared."""

    def __init__(self):
        self.rows = self.files = self.schema = self.shared = None

    @contextlib.contextmanager
    def opened(self, directory):
        path = os.path.join(directory, DATABASE)
        if os.path.exists(path + "-journal"):
            with tempfile.TemporaryDirectory(prefix="commitcast-") as copy, Reader() as reader:
                shutil.copytree(directory, copy, dirs_exist_ok=True)
                reader._open(os.path.join(copy, DATABASE), "rw")
                yield reader.rows
            return
        files = (path, *map(identity, (path, path + "-wal")))
        # Without an index it was no database with a write-ahead log, which this connection remembers.
        if files == self.files and os.path.exists(path + "-shm"):
            self._forget_index(path)
        else:
            self.close()
            self._open(path, "ro")
            self.files = files
        try:
            schema = self.rows.execute("SELECT * FROM sqlite_schema").fetchall()
            if self.schema not in (None, schema):
                # Another schema than this connection knows, or none.
                self.close()
                self._open(path, "ro")
            self.schema, self.files = schema, files
            yield self.rows
        except (sqlite3.Error, Wrong):
            self.close()
            raise

    def _open(self, path, mode):
        remove(path + "-shm")
        self.rows = sqlite3.connect(f"file:{path}?mode={mode}", uri=True, isolation_level=None)

    def _forget_index(self, path):
        # Held open: a process that closes a file loses its locks on it.
        if self.shared is None:
            self.shared = os.open(path + "-shm", os.O_RDWR)
        os.pwrite(self.shared, bytes(INDEX_HEADER_BYTES), 0)

    def close(self):
        if self.rows is not None:
            self.rows.close()
        if self.shared is not None:
            os.close(self.shared)
        if self.files is not None:
            remove(self.files[0] + "-shm")
        self.rows = self.files = self.schema = self.shared = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def identity(path):
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_ino
    return None


def remove(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


class Log:
    """The log as it was, from the first commit to the last."""

    def __init__(self, keep):
        self.keep = functools.cache(keep)  # name of a room → how many events retention leaves
        self.events = {}  # place → Event
        self.rooms = {}  # id → (name, epoch)
        self.ids = {}  # name → id
        self.floors = {}  # id → where the room begins in the end
        self.reader = Reader()

    def gather(self, directory):
        """Reads what is new."""
        if not os.path.exists(os.path.join(directory, DATABASE)):
            return
        with self.reader.opened(directory) as rows:
            if not rows.execute("SELECT 1 FROM sqlite_schema WHERE name = 'task'").fetchone():
                return
            for id, name, epoch, floor in rows.execute("SELECT id, name, epoch, floor_seq FROM room"):
                self.floors[id] = floor
                if self.rooms.setdefault(id, (name, epoch)) != (name, epoch):
                    raise Wrong(f"room {name} was {self.rooms[id]}")
                self.ids[name] = id
            for row in rows.execute("SELECT place, at, kind, actor, op, body FROM event"):
                event = Event(*row)
                if self.events.setdefault(event.place, event) != event:
                    raise Wrong(f"event {event.seq} of {self.rooms[event.room][0]} has changed")

    def finish(self):
        """Cuts it into commits. Index 0 is the empty log."""
        by_time = sorted(self.events.values(), key=lambda event: (event.at, event.place))
        self.times = sorted({event.at for event in by_time})
        self.commit_of = {event.place: 1 + bisect.bisect_left(self.times, event.at) for event in by_time}
        self.heads = [{}]
        for event in by_time:
            if len(self.heads) <= self.commit_of[event.place]:
                self.heads.append(dict(self.heads[-1]))
            head = self.heads[-1].get(event.room, 0)
            if event.seq != head + 1:
                raise Wrong(f"the log itself: {self.rooms[event.room][0]} goes from {head} to {event.seq}")
            self.heads[-1][event.room] = event.seq
        self.commit_at = {tuple(sorted(heads.items())): commit for commit, heads in enumerate(self.heads)}
        self.rows = set(map(tuple, self.events.values()))
        self.by_room = defaultdict(list)
        for event in by_time:
            self.by_room[event.room].append(event)
        self.operations = self._operations(by_time)

    def _operations(self, by_time):
        """(commit, row of `operation`) of every named operation, in order; its seq is that of its first event."""
        found, rows = {}, []
        for event in by_time:
            name, commit = (event.room, event.actor, event.op), self.commit_of[event.place]
            if event.op is not None and name not in found:
                rows.append((commit, (*name, event.seq)))
            # Several events of one operation stand in one commit; a second commit would be a second operation.
            if event.op is not None and found.setdefault(name, commit) != commit:
                raise Wrong(f"the id {event.op} was stored twice in {self.rooms[event.room][0]}")
        return rows

    def several(self):
        """How many operations with several events there are: edits of two things, and cancellations."""
        pairs = (pair for events in self.by_room.values() for pair in itertools.pairwise(events))
        return sum(a.at == b.at and (a.kind, b.kind) in SEVERAL for a, b in pairs)

    @property
    def commits(self):
        return len(self.times)

    def place(self, room, seq):
        return (self.ids.get(room, 0) << SEQ_BITS) | seq

    def named(self, room):
        return self.by_room.get(self.ids.get(room), ())

    # --- judging an image ---

    def judge(self, directory, needed, whole):
        """The commit that was recovered. `needed`: the last one that anybody was shown."""
        if not os.path.exists(os.path.join(directory, DATABASE)):
            return self._at_least(0, needed, "there is no database")
        try:
            with self.reader.opened(directory) as rows:
                return self._judge(rows, needed, whole)
        except sqlite3.Error as error:
            if str(error).startswith("no such table"):
                return self._at_least(0, needed, str(error))
            raise Wrong(f"SQLite: {error}") from error

    def _at_least(self, commit, needed, why):
        if commit < needed:
            raise Wrong(f"commit {commit} was recovered, {needed} had been shown or acknowledged: {why}")
        return commit

    def _judge(self, rows, needed, whole):
        rooms = rows.execute("SELECT id, name, epoch, head_seq, floor_seq FROM room ORDER BY id").fetchall()
        commit = self._commit({id: head for id, _, _, head, _ in rooms if head}, needed)
        for id, name, epoch, head, floor in rooms:
            if self.rooms.get(id) != (name, epoch):
                raise Wrong(f"room {id} is {(name, epoch)}, and was {self.rooms.get(id)}")
            if floor > max(0, head - self.keep(name)):
                raise Wrong(f"{name} begins behind {floor}, which retention does not allow at {head}")
        places = [place for (place,) in rows.execute("SELECT place FROM event ORDER BY place").fetchall()]
        wanted = [range((id << SEQ_BITS) + floor + 1, (id << SEQ_BITS) + head + 1) for id, _, _, head, floor in rooms]
        wanted = list(itertools.chain.from_iterable(wanted))
        if places != wanted:
            missing, strange = sorted(set(wanted) - set(places)), sorted(set(places) - set(wanted))
            raise Wrong(f"holes: {len(missing)} events are missing {missing[:3]}, {len(strange)} are too many {strange[:3]}")
        self._compare(rows, commit, whole)
        if whole:
            self._judge_the_rest(rows, commit)
        return commit

    def _commit(self, heads, needed):
        """Every commit moves a head, so the heads of all rooms say which it was, and that it is there as a whole."""
        commit = self.commit_at.get(tuple(sorted(heads.items())))
        if commit is None:
            raise Wrong(f"a piece of a commit, or more than was ever committed: rooms end at {heads}"[:500])
        return self._at_least(commit, needed, f"{needed - commit} commits are lost")

    def _compare(self, rows, commit, whole):
        """Byte for byte: all events, or those of the last commits."""
        before = {} if whole else self.heads[max(0, commit - COMMITS_COMPARED)]
        for id, head in self.heads[commit].items():
            begin, end = ((id << SEQ_BITS) + seq for seq in (before.get(id, 0), head))
            if begin == end:
                continue
            found = rows.execute(
                "SELECT place, at, kind, actor, op, body FROM event WHERE place > ? AND place <= ?", (begin, end)
            ).fetchall()
            if not self.rows.issuperset(found):
                strange = next(row for row in found if row not in self.rows)
                raise Wrong(f"event {strange[0] & SEQ_MASK} of {self.rooms[id][0]} is not what it was: {strange!r}"[:500])

    def _judge_the_rest(self, rows, commit):
        """The tables that are written with the log say the same as the log."""
        verdict = rows.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise Wrong(f"quick_check: {verdict}")
        operations = rows.execute("SELECT room, actor, op, seq FROM operation").fetchall()
        wanted = {row for at, row in self.operations if at <= commit}
        if set(operations) != wanted or len(operations) != len(wanted):
            raise Wrong(f"operations: {set(operations) ^ wanted}"[:500])
        for id, content in rows.execute("SELECT id, content FROM document"):
            self._judge_document(id, content, commit)
        for id, seq, body in rows.execute("SELECT room, seq, body FROM state"):
            event = self.events.get((id << SEQ_BITS) | seq)
            if event is None or self.commit_of[event.place] > commit or event.body != body:
                raise Wrong(f"the state of room {id} at {seq} is not that event")
        decided = {
            json.loads(event.body)["request_id"]
            for events in self.by_room.values()
            for event in events
            if event.kind in DECISIONS and self.commit_of[event.place] <= commit
        }
        for id, state in rows.execute("SELECT id, state FROM record WHERE shelf = ?", (APPROVALS,)):
            if (state != "pending") != (id in decided):
                raise Wrong(f"approval {id} is {state}, and the log {'knows' if id in decided else 'knows no'} decision")

    def _judge_document(self, id, content, commit):
        edits = [
            event for event in self.named(f"doc:{id}")
            if event.kind in ("created", "update") and self.commit_of[event.place] <= commit
        ]  # fmt: skip
        if not edits or json.loads(edits[-1].body)["content"].encode() != content:
            raise Wrong(f"the document {id} has not the content of its last event")
