"""Serve, then lose the power a second time (PROMISES.md F2, G9).

A process that is killed inside a commit's sync leaves a commit that the kernel has and the disk perhaps not. The next process
finds it in the log like any other. If it serves it before anything was synced, and the power fails then, clients were shown
what never was. So: the files of such a moment, as the kernel has them; a real server on them, recorded; clients that ask for
just those rooms; and the power fails at every message that they were handed, with all that was not synced lost, from before
this server's start too.
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
from log import Log
from recording import BALLAST, Recorded, Recording, spare_ballast

DRAWN = 4
SINCE_MAX = 20


def moments(recording):
    """Records behind which everything of a commit is written and nothing of it synced."""
    syncs = [index for index, record in enumerate(recording.records) if record.kind == trace.SYNC_BEGIN]
    # Not those of the first start, whose log is empty.
    return [index for index in syncs if recording.needed[index]]


def replay_starts(recording, count, seed, cores, directory, shim, syncs=None, keep=None):
    """`count` starts over all cores; returns their result."""
    found = moments(recording)
    random.Random(f"{seed} moments").shuffle(found)
    # More than are wanted: at some of them the disk and the kernel have the same log.
    jobs = [(n, sorted(found[n::cores]), -(-count // cores)) for n in range(cores)]
    result = replay.Result()
    context = multiprocessing.get_context("fork")
    shared = (recording, seed, str(directory), shim, syncs, keep)
    with context.Pool(cores, initializer=replay.share, initargs=shared) as pool:
        for part in pool.imap(work, jobs):
            result.add(part)
    return result


def work(job):
    recording, seed, directory, shim, syncs, keep = replay.shared()
    number, found, count = job
    dice = random.Random(f"{seed} {number} {syncs}")
    result = replay.Result()
    model = disk.Disk(recording.root)
    images = stage.Stage(os.path.join(directory, f"starts-{number}"), model)
    at = 0
    chosen = sorted(dice.sample(found, min(len(found), 3 * count)))
    for index in chosen:
        while at <= index:
            model.apply(recording.records[at])
            at += 1
        before, after = (commit_of(recording, images, fate) for fate in (disk.lost(model), disk.kept(model)))
        if before < after and result.starts < count:
            result.starts += 1
            start(recording, model, (before, after), dice, shim, syncs, keep, result)
    images.close()
    return result


def commit_of(recording, images, fate):
    touched = images.show(fate)
    commit = recording.log.judge(os.path.join(images.images, "data"), 0, False)
    images.clear(touched)
    return commit


def start(recording, model, commits, dice, shim, syncs, keep, result):
    """One server on one such moment, and images of what it served."""
    server = Recorded(shim, syncs=syncs)
    try:
        begun = inherit(model, server.root)
        spare_ballast(server.data)
        server.start()
        lines = asyncio.run(asyncio.wait_for(ask(server.port, recording.log, commits), load.ANSWER_SECONDS))
        server.kill()
        second = Recording(trace.read(server.trace), server.root, recording.log)
        second.tell(lines)
        result.violations += second.evidence.wrong
        result.served += sum(commit > commits[0] for _, commit in second.evidence.needs)
        images = replay.Images(second, str(server.dir / "images"), dice, keep, begun)
        shown = sorted({index for index, _commit in second.evidence.needs})
        images.run([index for index in shown for _ in range(DRAWN)], result, fates=(disk.lost,))
    finally:
        server.kill()
        server.home.cleanup()


def inherit(model, root):
    """The files as the kernel has them, and the model of the same disk under its new name: nothing more is certain."""
    inodes = {id(inode): disk.Inode(bytearray(inode.data), list(inode.pending), inode.is_directory) for inode in model.inodes()}
    heir = disk.Disk(root)
    for name, inode in model.names.items():
        if name.endswith(disk.UNSEEN):
            continue
        heir.names[name] = inodes[id(inode)]
        data = bytearray(inode.data)
        for change in inode.pending:
            disk.put(data, change)
        path = Path(root) / name
        path.mkdir() if inode.is_directory else path.write_bytes(data)
    heir.certain = {name: inodes[id(inode)] for name, inode in model.certain.items() if id(inode) in inodes}
    heir.naming = [
        disk.Naming(0, one.name, inodes.get(id(one.inode)))
        for one in model.naming if not one.name.endswith(disk.UNSEEN) and one.name != BALLAST
    ]  # fmt: skip
    for inode in inodes.values():
        inode.pending = [disk.Change(0, change.offset, change.data) for change in inode.pending]
    return heir


async def ask(port, log: Log, commits):
    """Reads what the disk may not have: the rooms that moved, by a native client, over HTTP, and on a prompt's page."""
    crowd = load.Crowd(port, 0, 0)
    before, after = (log.heads[commit] for commit in commits)
    moved = [id for id, head in after.items() if head > before.get(id, 0)]
    native, http = await crowd.socket("/v1/connect"), await crowd.http()
    await native.hear()
    for id in moved:
        name, epoch = log.rooms[id]
        position = {"epoch": f"{epoch & (1 << 64) - 1:016x}", "seq": max(0, after[id] - SINCE_MAX)}
        await native.say(op="join", room=name, since=position)
        while (await native.hear()).get("seq", 0) < after[id]:
            pass
        await http.ask("GET", f"/v1/rooms/{name}/events?after={max(0, after[id] - SINCE_MAX)}&limit=50")
        if name in load.DOCUMENTS:
            await (await crowd.socket(f"/ws/prompts/{name.removeprefix('doc:')}")).hear()
    for line in crowd.lines:
        line.writer.close()
    return crowd.lines
