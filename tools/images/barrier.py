"""Starts real servers on what a crash left, lets them serve it, and fails the power a second time (PROMISES.md F2, G9, G13).

After a kill: a process that is killed inside a commit's sync leaves a commit that the kernel has and the disk perhaps not.
The next process finds it in the log like any other. If it serves it before anything was synced, and the power fails then,
clients were shown what never was. So: the files of such a moment, as the kernel has them; a real server on them, recorded;
clients that ask for just those rooms; and the power fails behind every message that they were handed, with all that was not
synced lost, from before this server's start too.

After a failure of power: the files of any image, torn and out of order as they are. The server starts on them without
repair, and serves the very commit that stock SQLite finds there.
"""

import asyncio
import multiprocessing
import os
import random
from pathlib import Path

import disk
import load
import replay
import stage
import trace
from recording import Recorded, Recording, spare_ballast

DRAWN = 4
SINCE_MAX = 20
# So many commits back from where the log ends after a failure of power: what is asked for there.
ASKED_COMMITS = 3
# Moments looked at for each start: at some of them the disk and the kernel have the same log.
SPARE = 3


def replay_starts(recording, count, seed, cores, directory, shim, after, syncs=None, keep=None):
    """`count` starts over all cores, each `after` a kill or a failure of power; returns their result."""
    jobs = [(n, -(-count // cores)) for n in range(cores)]
    result = replay.Result()
    context = multiprocessing.get_context("fork")
    shared = (recording, f"{seed} {syncs}", str(directory), shim, syncs, keep)
    with context.Pool(cores, initializer=replay.share, initargs=shared) as pool:
        for part in pool.imap(after, jobs):
            result.add(part)
    return result


def after_kill(job):
    """Behind records where everything of a commit is written and nothing of it synced."""
    recording, *_ = replay.shared()
    syncs = [index for index, record in enumerate(recording.records) if record.kind == trace.SYNC_BEGIN]
    # Not those of the first start, whose log is empty.
    moments = Moments(job, [index for index in syncs if recording.needed[index]])
    for model in moments:
        before, commit = (moments.commit(fate) for fate in (disk.lost(model), disk.kept(model)))
        if before < commit:
            moments.start(inherited, (before, commit), disk.kept(model))
    return moments.result


def after_power_failure(job):
    """Behind any records."""
    recording, *_ = replay.shared()
    moments = Moments(job, range(len(recording.records)))
    for model in moments:
        fate = disk.drawn(model, moments.dice)
        commit = moments.commit(fate)
        if commit:
            moments.start(found, (max(0, commit - ASKED_COMMITS), commit), fate)
    return moments.result


class Moments:
    """Some of the records `among` which a server may have been stopped, with the disk as it was then."""

    def __init__(self, job, among):
        number, self.count = job
        self.recording, seed, directory, self.shim, self.syncs, self.keep = replay.shared()
        self.dice = random.Random(f"{seed} {number}")
        self.result = replay.Result()
        self.model = disk.Disk(self.recording.root)
        self.stage = stage.Stage(os.path.join(directory, f"starts-{number}"), self.model)
        self.chosen = sorted(self.dice.sample(among, min(len(among), SPARE * self.count)))

    def __iter__(self):
        at = 0
        for index in self.chosen:
            while at <= index:
                self.model.apply(self.recording.records[at])
                at += 1
            if self.result.starts < self.count:
                yield self.model
        self.stage.close()

    def commit(self, fate):
        touched = self.stage.show(fate)
        commit = self.recording.log.judge(os.path.join(self.stage.images, "data"), 0, False)
        self.stage.clear(touched)
        return commit

    def start(self, heir, commits, fate):
        """One server on one such moment, and images of what it served."""
        result, log = self.result, self.recording.log
        server = Recorded(self.shim, syncs=self.syncs)
        try:
            model = heir(self.model, fate, server.root)
            write(model, server.root)
            spare_ballast(server.data)
            server.start()
            lines = asyncio.run(asyncio.wait_for(ask(server.port, log, commits), load.ANSWER_SECONDS))
            server.kill()
            second = Recording(trace.read(server.trace), server.root, log)
            second.tell(lines)
            result.starts += 1
            result.violations += second.evidence.wrong
            result.served += sum(commit > commits[0] for _, commit in second.evidence.needs)
            images = replay.Images(second, str(server.dir / "images"), self.dice, self.keep, model)
            shown = sorted({index for index, _commit in second.evidence.needs})
            images.run([index for index in shown for _ in range(DRAWN)], result, fates=(disk.lost,))
        finally:
            server.kill()
            server.home.cleanup()


def inherited(model, _fate, root):
    """The disk that a killed process leaves, under the next one's name for it: no more is certain than was."""
    heirs = {id(inode): disk.Inode(bytearray(inode.data), [], inode.is_directory) for inode in model.inodes()}
    for inode in model.inodes():
        heirs[id(inode)].pending = [disk.Change(0, change.offset, change.data) for change in inode.pending]
    heir = disk.Disk(root)
    heir.names = {name: heirs[id(inode)] for name, inode in model.names.items() if id(inode) in heirs}
    heir.certain = {name: heirs[id(inode)] for name, inode in model.certain.items() if id(inode) in heirs}
    heir.naming = [
        disk.Naming(0, one.name, heirs.get(id(one.inode))) for one in model.naming if not one.name.endswith(disk.UNSEEN)
    ]
    return heir


def found(_model, fate, root):
    """The disk as it is found when the power is back: what is there was on the disk, and so is certain."""
    heir = disk.Disk(root)
    for name, inode in fate.names.items():
        if not name.endswith(disk.UNSEEN):
            data = bytearray(inode.data)
            for change in fate.changes.get(id(inode), ()):
                disk.put(data, change)
            heir.names[name] = disk.Inode(data, [], inode.is_directory)
    heir.certain = dict(heir.names)
    return heir


def write(model, root):
    """The files as a process sees them."""
    for name, inode in sorted(model.names.items()):
        data = bytearray(inode.data)
        for change in inode.pending:
            disk.put(data, change)
        path = Path(root) / name
        path.mkdir() if inode.is_directory else path.write_bytes(data)


async def ask(port, log, commits):
    """Reads the rooms that moved between the two commits: by a native client, over HTTP, and on a prompt's page."""
    crowd = load.Crowd(port, 0, 0)
    before, after = (log.heads[commit] for commit in commits)
    native, http = await crowd.socket("/v1/connect"), await crowd.http()
    await native.hear()
    for id in (id for id, head in after.items() if head > before.get(id, 0)):
        name, epoch = log.rooms[id]
        since = max(0, after[id] - SINCE_MAX)
        await native.say(op="join", room=name, since={"epoch": f"{epoch & (1 << 64) - 1:016x}", "seq": since})
        while (await native.hear()).get("seq", 0) < after[id]:
            pass
        await http.ask("GET", f"/v1/rooms/{name}/events?after={since}&limit=50")
        if name in load.DOCUMENTS:
            await (await crowd.socket(f"/ws/prompts/{name.removeprefix('doc:')}")).hear()
    for line in crowd.lines:
        line.writer.close()
    return crowd.lines
