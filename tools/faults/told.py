"""What native clients were told and shown of one room, and the comparison with its log.

The rules are PROMISES.md G1 to G6: what was shown is in the log as it was shown, what was acknowledged is there under its
number, what was refused is not there, an id is there once however often it was sent, and everybody saw a run without a hole.
"""

import asyncio
import json

from harness import equal, expect, read_events

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

ANSWER_SECONDS = 20


class Run:
    """What one observer was shown, behind the head that it was told when it joined."""

    def __init__(self, head):
        self.head = head
        self.events = []  # (seq, id, data) in the order of sight

    @property
    def last(self):
        return self.events[-1][0] if self.events else self.head


class Told:
    """Of one room, over all connections and processes."""

    def __init__(self, room):
        self.room = room
        self.sent = {}  # id → data
        self.acknowledged = {}  # id → seq
        self.refused = {}  # id → code; certain
        self.unknown = set()  # ids that were answered so
        self.runs = []  # of each observer
        self.closes = []  # code of each socket's end, None for one without a close frame

    def unanswered(self):
        return [id for id in self.sent if id not in self.acknowledged and id not in self.refused]

    def note(self, answer):
        """One answer to a publish; returns its id, or None for a frame that is none."""
        id = answer.get("id")
        match answer["op"]:
            case "ok":
                equal(self.acknowledged.setdefault(id, answer["seq"]), answer["seq"], f"{self.room}: the seq of {id}")
                expect(id not in self.refused, lambda: f"{self.room}: {id} was refused ({self.refused[id]}), and then ok")
                self.unknown.discard(id)
            case "refused" if answer.get("code") == "overloaded":
                # Certain as well; only its resend is expected.
                self.refused[id] = "overloaded"
            case "refused":
                self.refused[id] = answer["code"]
            case "unknown":
                self.unknown.add(id)
            case _:
                return None
        return id

    def compare(self, events):
        """Against the log as a backend reads it."""
        equal([event["seq"] for event in events], list(range(1, len(events) + 1)), f"{self.room}: seqs")
        log = [(event["seq"], event["id"], event["data"]) for event in events]
        where = {id: seq for seq, id, _ in log}
        equal(len(where), len(log), f"{self.room}: number of different ids")
        for seq, id, data in log:
            expect(id in self.sent, lambda: f"{self.room}: {id} at {seq} was never sent")
            equal(data, self.sent[id], f"{self.room}: data of {id}")
        for id, seq in self.acknowledged.items():
            equal(where.get(id), seq, f"{self.room}: place of {id}, which was acknowledged")
        for id, code in self.refused.items():
            expect(id not in where, lambda: f"{self.room}: {id} was refused ({code}) and is stored at {where[id]}")
        for run in self.runs:
            equal(run.events, log[run.head : run.last], f"{self.room}: what an observer was shown behind {run.head}")
        return where


class Socket:
    """A native client; every wait has a deadline."""

    def __init__(self, socket):
        self.socket = socket

    @classmethod
    async def open(cls, server, room=None, since=None, query=""):
        options = {"proxy": None, "compression": None, "max_size": None, "open_timeout": ANSWER_SECONDS, "close_timeout": 1}
        self = cls(await connect(server.ws(f"/v1/connect{query}"), ping_interval=None, **options))
        equal((await self.hear())["op"], "hello", "the first frame")
        if room is not None:
            await self.say(op="join", room=room, **({} if since is None else {"since": since}))
            self.joined = await self.hear()
            equal(self.joined["op"], "joined", "the answer to a join")
        return self

    async def say(self, **message):
        await self.socket.send(json.dumps(message))

    async def hear(self, seconds=ANSWER_SECONDS):
        async with asyncio.timeout(seconds):
            return json.loads(await self.socket.recv())

    async def publish(self, told, id):
        await self.say(op="publish", room=told.room, id=id, type="note", data=told.sent[id])

    async def answer(self, told, seconds=ANSWER_SECONDS):
        """The next answer to a publish, as (id, whole frame); a member's own events stand before it."""
        while True:
            frame = await self.hear(seconds)
            id = told.note(frame)
            if id is not None:
                return id, frame

    async def ping(self, seconds=ANSWER_SECONDS):
        """Answered behind everything that was asked before."""
        await self.say(op="ping")
        while (await self.hear(seconds))["op"] != "pong":
            pass

    def close_code(self):
        return self.socket.close_code

    async def close(self):
        await self.socket.close()

    def drop(self):
        """Without a goodbye."""
        self.socket.transport.abort()


async def write(socket, told, name, dice, stop, window, patience=ANSWER_SECONDS):
    """Pipelines publishes until `stop` is set, then waits for what is unanswered; or until the socket ends. `patience`: how
    long an answer may take, for a server that is stopped meanwhile."""
    waiting = 0
    number = 0
    try:
        while True:
            while waiting < window and not stop.is_set():
                id = f"{name}-{number}"
                number += 1
                told.sent[id] = {"id": id, "filler": "x" * dice.choice((4, 60, 400, 3000, 3000, 9000))}
                # Noted first: the end may come while it is being sent.
                waiting += 1
                await socket.publish(told, id)
            if waiting == 0:
                return await socket.close()
            await socket.answer(told, patience)
            waiting -= 1
    except ConnectionClosed:
        told.closes.append(socket.close_code())
    except TimeoutError:
        raise AssertionError(f"{name} has waited {patience} s for {waiting} answers") from None


async def observe(socket, told):
    """Is shown the room until the socket ends."""
    run = Run(socket.joined["head"])
    told.runs.append(run)
    try:
        while True:
            frame = json.loads(await socket.socket.recv())
            if frame["op"] == "event":
                run.events.append((frame["seq"], frame["id"], frame["data"]))
    except ConnectionClosed:
        told.closes.append(socket.close_code())


async def read(server, told):
    return await read_events(server.port, told.room)


async def settle(server, told, dice):
    """After a restart: the log against what was told, then everything without an answer is sent again with its id, some of
    it twice on two sockets, and some that had its answer; then the log once more."""
    where = told.compare(await read(server, told))
    again = told.unanswered()
    again += dice.sample(again, len(again) // 2)
    again += dice.sample(sorted(told.acknowledged), min(3, len(told.acknowledged)))
    # What was refused for certain may be tried again under its own id.
    retried = dice.sample(sorted(told.refused), min(3, len(told.refused)))
    for id in retried:
        del told.refused[id]
    again += retried
    if not again:
        return
    sockets = [await Socket.open(server), await Socket.open(server)]
    for place, id in enumerate(again):
        await sockets[place % 2].publish(told, id)
    first = set()
    for place, _ in enumerate(again):
        id, frame = await sockets[place % 2].answer(told)
        equal(frame["op"], "ok", f"{told.room}: the answer to {id}, sent again: {frame}")
        if id in where:
            equal((frame["seq"], frame.get("dup")), (where[id], True), f"{told.room}: {id}, stored before it was sent again")
        elif not frame.get("dup"):
            expect(id not in first, lambda: f"{told.room}: {id} was carried out twice")
            first.add(id)
    for socket in sockets:
        await socket.close()
    equal(told.unanswered(), [], f"{told.room}: still unanswered")
    told.compare(await read(server, told))
