"""Small disks and logs made by hand, of which it is known what must be found: the suite's own first test.

A checker that finds nothing is believed only when it finds what is there. So each rule of the model and each thing that an
image must not be is shown once to the code that has to notice it.
"""

import json
import os
import random
import shutil
import sqlite3
from types import SimpleNamespace

import disk
import log
import replay
import trace
from evidence import Evidence
from harness import ROOT, equal, expect
from log import SEQ_BITS, Log, Wrong
from recording import Recording
from trace import Record

HOME = "/disk"
DRAWS = 300


# --- the disk ---


def followed(*records):
    model = disk.Disk(HOME)
    for record in records:
        model.apply(record)
    return model


def opened(name, fd, flags=trace.CREATES):
    return Record(trace.OPEN, fd, flags, data=f"{HOME}/{name}".encode())


def synced(fd, number):
    return Record(trace.SYNC_BEGIN, fd, number=number), Record(trace.SYNC_END, fd, number=number)


# A file with its name on the disk.
MADE = (
    Record(trace.MKDIR, -1, data=f"{HOME}/data".encode()), opened("", 3, 0), *synced(3, 1),
    opened("data/file", 5), opened("data", 4, 0), *synced(4, 2),
)  # fmt: skip


def certain(model, name="data/file"):
    return bytes(model.certain[name].data)


def a_sync_saves_what_came_before_it():
    write = Record(trace.WRITE, 5, offset=0, data=b"old")
    equal(certain(followed(*MADE, write)), b"", "without a sync")
    equal(certain(followed(*MADE, write, *synced(5, 3))), b"old", "behind a sync")
    begin, end = synced(5, 3)
    late = Record(trace.WRITE, 5, offset=3, data=b"new")
    equal(certain(followed(*MADE, write, begin, late, end)), b"old", "what was written while the sync ran")
    equal(certain(followed(*MADE, write, begin)), b"", "a sync that has not come back, or failed")
    next_process = (Record(trace.START, -1), opened("data/file", 7), *synced(7, 3))
    equal(certain(followed(*MADE, write, *next_process)), b"old", "by another process")
    copy = Record(trace.DUP, 5, number=9)
    equal(certain(followed(*MADE, write, copy, *synced(9, 3))), b"old", "by a copy of the descriptor")


def a_name_is_saved_with_its_directory():
    bare = followed(*MADE[:5], Record(trace.WRITE, 5, offset=0, data=b"x"), *synced(5, 3))
    expect("data/file" not in disk.lost(bare).names, "a synced file without a synced directory is nowhere")
    expect("data/file" in disk.kept(bare).names, "and may be there all the same")
    gone = followed(*MADE, Record(trace.UNLINK, -1, data=f"{HOME}/data/file".encode()))
    expect("data/file" in disk.lost(gone).names and "data/file" not in disk.kept(gone).names, "a removed name may come back")
    removed = followed(*MADE, Record(trace.UNLINK, -1, data=f"{HOME}/data/file".encode()), *synced(4, 3))
    equal("data/file" in removed.certain, False, "a removed name behind a sync of its directory")
    moved = followed(*MADE, Record(trace.RENAME, -1, data=f"{HOME}/data/file\0{HOME}/data/new".encode()), *synced(4, 3))
    equal(sorted(moved.certain), ["data", "data/new"], "names behind a rename")


def images_hold_old_or_new_sectors_and_nothing_else():
    """And every kind of loss occurs: old, new, torn, shortened, grown."""
    size = 3 * disk.PAGE
    writes = [Record(trace.WRITE, 5, offset=0, data=b"o" * size), *synced(5, 3)]
    writes += [Record(trace.WRITE, 5, offset=100, data=b"n" * disk.PAGE), Record(trace.TRUNCATE, 5, offset=2 * disk.PAGE)]
    writes += [Record(trace.WRITE, 5, offset=size, data=b"a" * disk.PAGE)]
    model, dice, seen = followed(*MADE, *writes), random.Random(1), set()
    inode = model.certain["data/file"]
    for _ in range(DRAWS):
        data = bytearray(inode.data)
        for change in disk.drawn(model, dice).changes.get(id(inode), ()):
            disk.put(data, change)
        for at in range(0, size, disk.SECTOR):
            sector = bytes(data[at : at + disk.SECTOR])
            written = sector[100:] if at == 0 else sector
            # A truncation leaves nothing, or zeros when the file grew again.
            is_whole = set(written) <= {ord("o")} or set(written) <= {ord("n")} or set(written) <= {0}
            is_end = at <= 100 + disk.PAGE < at + disk.SECTOR
            expect(is_whole or is_end, f"the sector at {at} is a mixture: {sector[:8]!r}")
        seen.add(("n" if b"n" in data else "o") + ("torn" if 0 < data.count(b"n") < disk.PAGE else ""))
        seen.add(len(data))
    expect({"o", "n", "ntorn", size, 2 * disk.PAGE, size + disk.PAGE} <= seen, f"not every kind of loss was drawn: {seen}")


# --- the log ---

ROOM, KEPT = "hot:1", 3
EPOCH = 0x1234


def rows_of(commits, floor=0, change=None):
    """A database with the server's own schema after so many commits; in each a note, in the second one more."""
    rows = sqlite3.connect(":memory:", isolation_level=None)
    for name in ("schema.sql", "schema_2.sql"):
        rows.executescript((ROOT / "src" / "store" / "sqlite" / name).read_text())
    seqs = [(1, 1), (2, 2), (2, 3), (3, 4), (4, 5)]
    stored = [(commit, seq) for commit, seq in seqs if commit <= commits]
    head = max((seq for _, seq in stored), default=0)
    if commits:
        rows.execute("INSERT INTO room VALUES (1, ?, ?, ?, ?, 0)", (ROOM, EPOCH, head, floor))
    for commit, seq in stored:
        body = json.dumps({"n": seq})
        if seq > floor:
            values = ((1 << SEQ_BITS) | seq, "note", "ann", f"op-{seq}", 0, 1000 * commit, body.encode())
            rows.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        rows.execute("INSERT INTO operation VALUES (NULL, 1, 'ann', ?, 0, ?, 0, x'')", (f"op-{seq}", seq))
    if change:
        rows.execute(change)
    return rows.serialize()


def a_log(directory):
    made = Log(lambda room: KEPT)
    written(directory, rows_of(4))
    made.gather(directory)
    made.finish()
    return made


def written(directory, data):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, log.DATABASE), "wb") as file:
        file.write(data)


def every_wrong_image_is_called_wrong(directory):
    made = a_log(directory)
    for commit in range(5):
        written(directory, rows_of(commit))
        equal(made.judge(directory, 0, True), commit, "the commit of a right image")
    written(directory, rows_of(4, floor=2))
    equal(made.judge(directory, 4, True), 4, "trimmed as retention allows")
    written(directory, rows_of(3))
    wrong(made, directory, "commits are lost", needed=4)
    shutil.rmtree(directory)
    wrong(made, directory, "there is no database", needed=1)
    for words, floor, change in (
        ("a piece of a commit", 0, "UPDATE room SET head_seq = 2"),
        ("more than was ever committed", 0, "UPDATE room SET head_seq = 9"),
        ("holes", 0, f"DELETE FROM event WHERE place = {1 << SEQ_BITS | 2}"),
        ("holes", 0, f"UPDATE event SET place = place + 1 WHERE place = {1 << SEQ_BITS | 5}"),
        ("retention does not allow", 3, None),
        ("is not what it was", 0, f"UPDATE event SET body = x'7b7d' WHERE place = {1 << SEQ_BITS | 5}"),
        ("is not what it was", 0, f"UPDATE event SET op = 'another' WHERE place = {1 << SEQ_BITS | 1}"),
        ("and was", 0, "UPDATE room SET epoch = 5"),
        ("operations", 0, "DELETE FROM operation WHERE seq = 1"),
        ("operations", 0, "INSERT INTO operation VALUES (NULL, 1, 'ann', 'strange', 0, 9, 0, x'')"),
        ("the state of room", 0, "INSERT INTO state VALUES (1, 1, 2, x'00')"),
        ("the document", 0, "INSERT INTO document VALUES (1, 'one', '', 'one', 'one', 0, 0, 1, NULL, x'', x'')"),
        ("approval", 0, "INSERT INTO record VALUES (1, 3, 'a', 's', 'approved', NULL, 0, 0, x'')"),
    ):  # fmt: skip
        written(directory, rows_of(4, floor, change))
        wrong(made, directory, words)
    data = bytearray(rows_of(4))
    data[4096 : 2 * 4096] = bytes(4096)
    written(directory, data)
    wrong(made, directory, "")


def wrong(made, directory, words, needed=4):
    try:
        made.judge(directory, needed, True)
    except Wrong as said:
        expect(words in str(said), f"wanted {words!r}, was told: {said}")
    else:
        raise AssertionError(f"nothing was found where there is: {words}")


# --- what clients were shown ---


def frame(**fields):
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    return b"\x81" + bytes([len(text)]) + text


def shown(seq, **fields):
    event = {"op": "event", "room": ROOM, "seq": seq, "type": "note", "by": "ann", "at": "", "id": f"op-{seq}"}
    event["data"] = {"n": seq}
    # Stored with a space, so shown with it.
    text = json.dumps({**event, **fields}, separators=(",", ":")).replace('{"n":', '{"n": ').encode()
    return b"\x81" + (bytes([len(text)]) if len(text) < 126 else b"\x7e" + len(text).to_bytes(2)) + text


HANDSHAKE = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


def every_wrong_frame_is_called_wrong(directory):
    made = a_log(directory)
    epoch = f"{EPOCH:016x}"
    for is_wrong, sent in (
        (False, shown(2)), (True, shown(2, data={"n": 3})), (True, shown(2, id="op-3")), (True, shown(9)),
        (True, shown(2, by="eve")),
        (False, frame(op="ok", room=ROOM, id="op-4", seq=4)), (True, frame(op="ok", room=ROOM, id="op-3", seq=4)),
        (False, frame(op="joined", room=ROOM, epoch=epoch, head=5)), (True, frame(op="joined", room=ROOM, epoch="0", head=5)),
        (True, frame(op="joined", room=ROOM, epoch=epoch, head=6)), (True, frame(op="strange")),
    ):  # fmt: skip
        evidence = Evidence(made)
        evidence.read(connection(HANDSHAKE, sent), "/v1/connect")
        equal((bool(evidence.wrong), bool(evidence.needs)), (is_wrong, not is_wrong), f"{sent!r}")
    page = json.dumps({"room": ROOM, "epoch": epoch, "seq": 4, "id": "op-4"}).encode()
    whole = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)
    chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(page), page)
    evidence = Evidence(made)
    # Split anywhere: what counts is the send with the last byte.
    evidence.read(connection(whole, chunk[:70], chunk[70:]), "http")
    equal((evidence.needs, evidence.wrong), ([(0, 3), (2, 3)], []), "answers over HTTP")


def connection(*sends):
    ends = [sum(map(len, sends[: n + 1])) for n in range(len(sends))]
    return SimpleNamespace(life=0, bytes=bytearray(b"".join(sends)), records=list(zip(ends, range(len(sends)))))


# --- all of it ---


def a_lost_sync_is_found(directory):
    """Two commits, each shown to a client: the second one's sync is there, or has not come back when its frame is sent."""
    for is_synced in (True, False):
        records = list(MADE[:4]) + [opened(f"data/{log.DATABASE}", 5), opened("data", 4, 0), *synced(4, 2)]
        records += [Record(trace.ACCEPT, 9, number=7), Record(trace.SEND, 9, data=HANDSHAKE)]
        for number, commit in ((3, 1), (4, 2)):
            begin, end = synced(5, number)
            records += [Record(trace.WRITE, 5, offset=0, data=rows_of(commit)), begin]
            records += [end] if is_synced or commit == 1 else []
            records.append(Record(trace.SEND, 9, data=shown(commit)))
        records = [Record(trace.START, -1), *records]
        recording = Recording(records, HOME, Log(lambda room: KEPT))
        whole = os.path.join(directory, f"whole-{is_synced}")
        for commit in (1, 2):
            written(whole, rows_of(commit))
            recording.log.gather(whole)
        recording.log.finish()
        client = SimpleNamespace(life=0, port=7, path="/v1/connect", reader=SimpleNamespace(bytes=b""))
        recording.tell([client])
        equal((recording.evidence.wrong, recording.needed[-1]), ([], 2), "what the frames tell")
        result = replay.Result()
        images = replay.Images(recording, os.path.join(directory, f"images-{is_synced}"), random.Random(1))
        for index, record in enumerate(records):
            images.model.apply(record)
            images.judge(index, disk.lost(images.model), result)
            images.judge(index, disk.kept(images.model), result)
        expect(is_synced != bool(result.violations), lambda: f"synced {is_synced}: {result.violations}")
        expect(is_synced or "commits are lost" in result.violations[0], lambda: str(result.violations))


def run(directory):
    a_sync_saves_what_came_before_it()
    a_name_is_saved_with_its_directory()
    images_hold_old_or_new_sectors_and_nothing_else()
    every_wrong_image_is_called_wrong(os.path.join(directory, "log"))
    every_wrong_frame_is_called_wrong(os.path.join(directory, "frames"))
    a_lost_sync_is_found(os.path.join(directory, "all"))
