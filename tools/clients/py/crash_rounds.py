"""Kills the server with SIGKILL in the middle of concurrent writes, again and again, and compares what clients were told
with what is stored.

    crash_rounds.py [--rounds 20] [--seed N] [--prompts 4] [--writers 3] [--observers 2]

Checked after every kill, for every prompt:
  - every update that was acknowledged is in the log, and none that was refused;
  - every update that anybody was shown is in the log, with the same content;
  - seqs are 1, 2, 3 … up to the room's head;
  - each observer was shown a run of the log: its order, from the state it was greeted with, without a hole;
  - an id is in the log at most once, although every unanswered update is sent again after the restart;
  - the restarted server greets with the last update of the log.
The seed fixes what clients do and when the kill comes; the interleaving is the machine's.
"""

import argparse
import asyncio
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from harness import Server, Tally, equal, expect

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

ANSWER_SECONDS = 30


class Told:
    """What clients were told about one prompt, over all rounds."""

    def __init__(self, name):
        self.name = name
        self.sent = {}  # id → content
        self.acknowledged = set()  # ids
        self.refused = set()
        self.shown = set()  # contents
        self.runs = []  # (content of the greeting, [contents in order]) of one observer in one round

    def unanswered(self):
        return [id for id in self.sent if id not in self.acknowledged and id not in self.refused]


# --- the log as it is stored ---


def read_log(data, prompt):
    """Events of a prompt's room as (seq, op id, kind, content), and the room's head.

    The one place that knows the database. A copy is read: opening the original would run SQLite's recovery, which is the
    server's to do.
    """
    with tempfile.TemporaryDirectory(prefix="commitcast-log-") as copy:
        source = database(data)
        for suffix in ("", "-wal"):
            if Path(f"{source}{suffix}").exists():
                shutil.copy(f"{source}{suffix}", Path(copy) / f"log{suffix}")
        with sqlite3.connect(Path(copy) / "log") as rows:
            room = next((row for row in rows.execute("SELECT id, name, head_seq FROM room") if is_room_of(row[1], prompt)), None)
            if room is None:
                # Killed before the first write; whoever was told of one will be missed in an empty log.
                return 0, []
            # An event's place is its room's id, then 37 bits of seq.
            first, head = room[0] << 37, room[2]
            found = rows.execute(
                "SELECT place, op, kind, body FROM event WHERE place > ? AND place < ? ORDER BY place", (first, first + (1 << 37))
            )
            events = [(place - first, op, kind, json.loads(body).get("content")) for place, op, kind, body in found]
        rows.close()
    return head, events


def database(data):
    """The SQLite file in the data directory, recognised by its first bytes."""
    for path in sorted(Path(data).iterdir()):
        if path.is_file() and path.read_bytes()[:15] == b"SQLite format 3":
            return path
    raise AssertionError(f"no SQLite file in {data}")


def is_room_of(room, prompt):
    return room.startswith("doc:") and room.removeprefix("doc:").split("/")[-1] == prompt



# --- the clients of one round ---


def opened(server, prompt):
    return connect(server.ws(f"/ws/prompts/{prompt}"), proxy=None, compression=None, max_size=None, open_timeout=ANSWER_SECONDS)


async def write(server, told, writer, dice):
    """Pipelines updates until the server is gone. Answers come in the order of the questions."""
    window = dice.choice((1, 1, 4, 16))
    waiting = []
    async with opened(server, told.name) as socket:
        await socket.recv()
        n = 0
        while True:
            while len(waiting) < window:
                id = f"{writer}-{n}"
                n += 1
                told.sent[id] = f"{id} {dice.randbytes(dice.randrange(4, 400)).hex()}"
                # Noted as waiting first: the kill may come while it is being sent.
                waiting.append(id)
                await socket.send(json.dumps({"action": "update", "content": told.sent[id], "id": id}))
            note(told, waiting, json.loads(await socket.recv()))


def note(told, waiting, message):
    """One frame a writer hears: an answer to its oldest question, or another writer's update."""
    if message["action"] == "update_status":
        id = waiting.pop(0)
        equal(message.get("id", id), id, "answers in the order of the questions")
        # Neither is said when the outcome is not known; then the id stays unanswered and is sent again.
        if message["success"]:
            told.acknowledged.add(id)
        elif message.get("code") != "unknown":
            told.refused.add(id)
    elif message["action"] == "update":
        told.shown.add(message["content"])


async def observe(server, told, dice):
    """Joins at some moment and keeps what it is shown."""
    await asyncio.sleep(dice.random() * 0.3)
    async with opened(server, told.name) as socket:
        greeting = json.loads(await socket.recv())
        run = []
        told.runs.append((greeting["content"], run))
        while True:
            message = json.loads(await socket.recv())
            if message["action"] == "update":
                told.shown.add(message["content"])
                run.append(message["content"])


async def until_gone(client):
    """The server's end is how every client of a round ends."""
    try:
        await client
    except (ConnectionClosed, OSError, InvalidHandshake, TimeoutError):
        pass


async def round_of(server, all_told, options, dice, label):
    clients = []
    for told in all_told:
        for n in range(options.writers):
            clients.append(write(server, told, f"{label}-w{n}", random.Random(dice.random())))
        for _ in range(options.observers):
            clients.append(observe(server, told, random.Random(dice.random())))
    tasks = [asyncio.create_task(until_gone(client)) for client in clients]
    await asyncio.sleep(0.1 + dice.random() * options.seconds)
    server.kill()
    done, late = await asyncio.wait(tasks, timeout=ANSWER_SECONDS)
    expect(not late, f"{len(late)} clients outlived the server")
    for task in done:
        task.result()


async def send_again(server, told, dice):
    """What was not answered is sent again with the same id, some of it twice, and must be answered this time."""
    unanswered = told.unanswered()
    again = unanswered + dice.sample(unanswered, len(unanswered) // 2)
    async with opened(server, told.name) as socket:
        await socket.recv()
        for id in again:
            await socket.send(json.dumps({"action": "update", "content": told.sent[id], "id": id}))
            waiting = [id]
            while waiting:
                note(told, waiting, json.loads(await asyncio.wait_for(socket.recv(), ANSWER_SECONDS)))
    equal(told.unanswered(), [], "still unanswered")


# --- the comparison ---


def compare(data, told):
    """Holds what clients were told against the log; returns the log's contents in order."""
    head, events = read_log(data, told.name)
    equal([seq for seq, _, _, _ in events], list(range(1, head + 1)), f"{told.name}: seqs")
    updates = [(id, content) for _, id, kind, content in events if kind == "update"]
    contents = [content for _, content in updates]
    stored = {content: n for n, content in enumerate(contents)}
    equal(len(stored), len(contents), f"{told.name}: number of different updates")
    ids = [id for id, _ in updates if id]
    equal(len(set(ids)), len(ids), f"{told.name}: number of different ids")
    for id in told.acknowledged:
        expect(told.sent[id] in stored, f"{told.name}: {id} was acknowledged and is not stored")
    for id in told.refused:
        expect(told.sent[id] not in stored, f"{told.name}: {id} was refused and is stored")
    for content in told.shown:
        expect(content in stored, f"{told.name}: shown and not stored: {content[:60]}")
    for greeting, run in told.runs:
        # Only the state before the first update has no place in the log.
        expect(greeting in stored or greeting == first_content(told.name), f"{told.name}: greeted with {greeting[:60]}, not stored")
        begin = stored[greeting] + 1 if greeting in stored else 0
        equal(run, contents[begin : begin + len(run)], f"{told.name}: an observer's run")
    told.runs.clear()
    return contents


def first_content(name):
    """What the Markdown file holds before anybody writes."""
    return f"before {name}"


async def greeting_of(server, told):
    async with opened(server, told.name) as socket:
        return json.loads(await socket.recv())["content"]


def one_round(server, all_told, options, dice, label):
    asyncio.run(round_of(server, all_told, options, dice, label))
    last = {told.name: compare(server.data, told) for told in all_told}
    begun = time.monotonic()
    server.start()
    started = time.monotonic() - begun

    async def after():
        for told in all_told:
            if last[told.name]:
                equal(await greeting_of(server, told), last[told.name][-1], f"{told.name}: greeting after the restart")
            await send_again(server, told, dice)

    asyncio.run(after())
    # Compared again at the next kill, with what was sent again.
    return started


# Every round compares the whole log; a log that grew over all rounds would make the last ones mostly comparison.
ROUNDS_ON_ONE_STORE = 20


def rounds(options, seed):
    dice = random.Random(seed)
    acknowledged = shown = 0
    starts = []
    for first in range(0, options.rounds, ROUNDS_ON_ONE_STORE):
        count = min(ROUNDS_ON_ONE_STORE, options.rounds - first)
        all_told = rounds_on_one_store(options, seed, dice, range(first, first + count), starts)
        acknowledged += sum(len(told.acknowledged) for told in all_told)
        shown += sum(len(told.shown) for told in all_told)
        print(f"     {first + count} rounds, {acknowledged} updates acknowledged, {shown} shown to others", flush=True)
    print(
        f"{options.rounds} rounds, {acknowledged} updates acknowledged, {shown} shown to others, "
        f"restart within {max(starts):.2f} s, 0 lost, 0 invented, 0 holes",
        flush=True,
    )
    expect(acknowledged > options.rounds, "hardly anything was written: nothing was tested")
    expect(shown > 0, "nobody was shown anything: nothing was tested")


def rounds_on_one_store(options, seed, dice, numbers, starts):
    names = [f"crash_{n}" for n in range(options.prompts)]
    server = Server(config="[limits]\nmessages_per_second = 0\nbytes_per_second = 0\n")
    for name in names:
        (server.prompts / f"{name}.md").write_text(first_content(name))
    with server:
        all_told = [Told(name) for name in names]
        for n in numbers:
            try:
                starts.append(one_round(server, all_told, options, dice, f"{seed}-{n}"))
            except BaseException:
                print(f"round {n} of seed {seed}: crash_rounds.py --seed {seed} --rounds {n + 1}", flush=True)
                raise
        server.kill()
        for told in all_told:
            compare(server.data, told)
    return all_told


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--writers", type=int, default=3, help="per prompt")
    parser.add_argument("--observers", type=int, default=2, help="per prompt")
    parser.add_argument("--seconds", type=float, default=0.6, help="longest time before a kill")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    tally = Tally()
    tally.run(f"{options.rounds} kills with seed {options.seed}", rounds, options, options.seed)
    tally.finish()


if __name__ == "__main__":
    sys.exit(main())
