"""A real server under record.c, lives of it one after the other, and what was learned from them."""

import asyncio
import collections
import fcntl
import itertools
import json
import os
import subprocess
from pathlib import Path

import disk
import evidence
import load
import stage
import trace
from harness import Server, equal, expect
from log import Log

HERE = Path(__file__).resolve().parent
# Space held back for a full disk: zeros that nobody reads.
BALLAST, BALLAST_BYTES = "ballast", 16 << 20
GATHER_EVERY = 400


def build(directory):
    """Compiles record.c."""
    made = Path(directory) / "record.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-o", made, HERE / "record.c"], check=True)
    return made


class Recorded(Server):
    """A server whose disk and sockets are recorded."""

    def __init__(self, shim, durability="full", syncs=None, syncs_us=0):
        config = f'[store]\ndurability = "{durability}"\n[limits]\nmessages_per_second = 0\nbytes_per_second = 0\n'
        config += '[drain]\nwindow = "0s"\n[rooms]\nkeep = [' + ", ".join(map(toml, load.KEEP)) + "]\n"
        super().__init__(config, prompts=False)
        self.root = self.dir / "disk"
        self.root.mkdir()
        self.data = self.root / "data"
        self.trace = self.dir / "trace"
        self.environment = {
            **os.environ, "LD_PRELOAD": str(shim), "IMAGES_TRACE": str(self.trace), "IMAGES_ROOT": str(self.root),
            "IMAGES_SKIP": BALLAST, "IMAGES_SYNC": syncs or "", "IMAGES_SYNC_US": str(syncs_us),
        }  # fmt: skip

    def kill(self):
        """Between two records: a call whose record the kill has cut off would make the recording prove nothing."""
        if not self.trace.exists():
            return super().kill()
        with self.trace.open("rb") as order:
            fcntl.flock(order, fcntl.LOCK_EX)
            super().kill()


def toml(rule):
    return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in rule.items()) + " }"


def spare_ballast(data):
    """A file of the right size is taken for the ballast: a hole saves writing 32 MiB at each first start."""
    with open(data / BALLAST, "wb") as file:
        file.truncate(BALLAST_BYTES)


class Recording:
    """Records, the log they came to, and from which record on which commit is owed."""

    def __init__(self, records, root, log):
        self.records, self.root, self.log = records, root, log
        self.sockets = collections.defaultdict(list)
        for connection in evidence.connections(records):
            self.sockets[connection.life, connection.port].append(connection)

    @classmethod
    def made(cls, server, lives, seed):
        lines = []
        for number, life in enumerate(lives):
            server.start()
            crowd = load.Crowd(server.port, number, seed)
            asyncio.run(crowd.run(server, life))
            lines += crowd.lines
        recording = cls(trace.read(server.trace), server.root, Log(load.keep))
        recording.compare_files()
        recording.compare_sockets(lines, lives)
        recording.gather(server.dir)
        recording.tell(lines)
        return recording

    def with_late_syncs(self, by):
        """The same, if every sync had come back so many records later: a server that tells of a commit too early."""
        records, held = [], collections.deque()
        for record in self.records:
            if record.kind == trace.START:
                # Whoever waited for them is gone.
                held.clear()
            if record.kind == trace.SYNC_END:
                held.append((len(records) + by, record))
            else:
                records.append(record)
            while held and held[0][0] <= len(records):
                records.append(held.popleft()[1])
        late = Recording(records, self.root, self.log)
        late.tell(self.lines)
        return late

    def compare_files(self):
        """The recorder missed no change of a file: replayed without losses, the files are those that lie there."""
        model = disk.Disk(self.root)
        for record in self.records:
            model.apply(record)
        names = {name for name, inode in model.names.items() if not name.endswith(disk.UNSEEN)}
        there = {str(path.relative_to(self.root)) for path in Path(self.root).rglob("*")}
        there = {name for name in there if not name.endswith((BALLAST, disk.UNSEEN))}
        equal(names, there, "names in the trace and on the disk")
        changes = disk.kept(model).changes
        for name in names:
            path = self.root / name
            data = bytearray(model.names[name].data)
            for change in changes.get(id(model.names[name]), ()):
                disk.put(data, change)
            expect(path.is_dir() or path.read_bytes() == data, f"{name} is not what its recorded writes make of it")

    def compare_sockets(self, lines, lives):
        """The recorder missed no byte: every client received what was handed to its socket, to the end where nobody was
        killed."""
        self.bytes_compared = 0
        for line in lines:
            connection, received = self.socket_of(line), line.reader.bytes
            self.bytes_compared += len(received)
            expect(connection.bytes.startswith(received), f"{line.path}: a client received what was not recorded")
            missing = len(connection.bytes) - len(received)
            is_excused = line.has_left or lives[line.life].is_killed
            expect(not missing or is_excused, f"{line.path}: {missing} recorded bytes that its client did not receive")

    def socket_of(self, line):
        """What was handed to this client. A port may come back within a life; what was received tells whose it was."""
        candidates = self.sockets[line.life, line.port]
        # A server that was killed before it accepted a client told it nothing.
        fitting = [connection for connection in candidates if connection.bytes.startswith(line.reader.bytes)]
        return next(iter(fitting or candidates), None) or evidence.Connection(line.life, line.port)

    def gather(self, directory):
        """The log, from the disk that loses nothing."""
        model = disk.Disk(self.root)
        images = stage.Stage(directory / "log", model)
        for index, record in enumerate(self.records):
            model.apply(record)
            if index % GATHER_EVERY == 0 or index + 1 == len(self.records):
                touched = images.show(disk.kept(model))
                self.log.gather(os.path.join(images.images, "data"))
                images.clear(touched)
        images.close()
        # No connection goes through a fork.
        self.log.reader.close()
        self.log.finish()

    def tell(self, lines):
        """What every message obliges to."""
        self.lines = lines
        self.evidence = evidence.Evidence(self.log)
        for line in lines:
            self.evidence.read(self.socket_of(line), line.path)
        self.needed, self.facts = [0] * len(self.records), [0] * len(self.records)
        for index, commit in self.evidence.needs:
            self.needed[index] = max(self.needed[index], commit)
            self.facts[index] += 1
        # From a record on, and not only at it.
        self.needed = list(itertools.accumulate(self.needed, max))
        self.facts = list(itertools.accumulate(self.facts))
        for event in self.log.events.values():
            if (event.op or "").startswith(load.REFUSED) or load.REFUSED.encode() in event.body:
                self.evidence.wrong.append(f"what was to be refused is stored: {event}"[:500])

    def log_file(self):
        """(index, offset, size) of every write and truncation of the write-ahead log: what the checkpoints did to it."""
        model = disk.Disk(self.root)
        for index, record in enumerate(self.records):
            model.apply(record)
            if record.kind in (trace.WRITE, trace.TRUNCATE):
                wal = next((inode for name, inode in model.names.items() if name.endswith("-wal")), None)
                if model.descriptors[record.fd] is wal:
                    yield index, record.offset, len(record.data)

    def log_restarts(self):
        """How often its front was written over, as a checkpoint allows that moved all of it, without emptying the file."""
        restarts = length = 0
        for _index, offset, size in self.log_file():
            restarts += bool(size and length and offset == 0)
            length = max(length, offset + size) if size else offset
        return restarts
