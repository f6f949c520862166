"""Clients of every kind that write as much as makes the store work, and keep every byte that they receive.

What they write carries tokens, so that whatever they are shown can be found in the log again. A token, or an id, that begins
with REFUSED is asked for in a way that the server must refuse.
"""

import asyncio
import json
import os
import random
import uuid
from typing import NamedTuple

from harness import Http

REFUSED = "never-"
HOT = [f"hot:{n}" for n in range(10)]
SLOW = [f"slow:{n}" for n in range(4)]
STATES = [f"state:{n}" for n in range(2)]
PROMPTS = ["one", "two"]
DOCUMENTS = [f"doc:{prompt}" for prompt in PROMPTS]
KEEP_HOT = 24
KEEP = [{"room": "hot:*", "events": KEEP_HOT}, {"room": "doc:*", "events": 20}, {"room": "*", "events": 40}]
BATCH = 8
ANSWER_SECONDS = 30
# Whoever writes much at once waits so long between: a log that grows slowly has more short stretches to look at.
PACE = 0.01
LOOK_SECONDS = 0.02
LIFE_SECONDS = 120
AGAIN_WRITES = 200


class Life(NamedTuple):
    """Of a server, from its start to its end."""

    writes: int
    is_killed: bool
    until_checkpoint: bool = False  # and until the write-ahead log was moved into the database, and begun again


def keep(room):
    return next(rule["events"] for rule in KEEP if rule["room"] in ("*", room.partition(":")[0] + ":*"))


def session(life):
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"images-{life}"))


class Kept(asyncio.StreamReader):
    """Keeps what it is fed."""

    def __init__(self):
        super().__init__(limit=1 << 24)
        self.bytes = bytearray()

    def feed_data(self, data):
        self.bytes += data
        super().feed_data(data)


class Line:
    """One connection, and what is needed to read its bytes again: its path, and the port that the server saw."""

    def __init__(self, life, path, reader, writer):
        self.life, self.path, self.reader, self.writer = life, path, reader, writer
        self.port = writer.get_extra_info("sockname")[1]
        self.has_left = False  # before the server had said everything
        self.has_listener = False

    def is_idle(self):
        return self.path != "http" and not self.has_left and not self.has_listener

    async def say(self, **message):
        """One masked text frame; with a key of zeros, which is a key as any other."""
        text = json.dumps(message).encode()
        self.writer.write(b"\x81" + masked_length(len(text)) + bytes(4) + text)
        await self.writer.drain()

    async def hear(self):
        """The next text; pings are not answered, for nobody stays that long."""
        while True:
            first, second = await self.reader.readexactly(2)
            size = second & 127
            if size > 125:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
            payload = await self.reader.readexactly(size)
            if first & 15 == 8:
                self.writer.close()
                raise EOFError
            if first & 15 == 1:
                return json.loads(payload)


def masked_length(size):
    if size < 126:
        return bytes([128 | size])
    return b"\xfe" + size.to_bytes(2) if size < 1 << 16 else b"\xff" + size.to_bytes(8)


class Crowd:
    """All clients of one life of the server."""

    def __init__(self, port, life, seed, writers=2):
        self.port, self.life, self.writers = port, life, writers
        self.dice = random.Random(f"{seed} {life}")
        self.lines = []
        self.count = 0
        self.stopped = asyncio.Event()

    async def open(self, path):
        reader = Kept()
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(
            lambda: asyncio.StreamReaderProtocol(reader, loop=loop), "127.0.0.1", self.port
        )
        line = Line(self.life, path, reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        self.lines.append(line)
        return line

    async def socket(self, path):
        line = await self.open(path)
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        line.writer.write(head.encode())
        await line.reader.readuntil(b"\r\n\r\n")
        return line

    async def http(self):
        line = await self.open("http")
        return Http(line.reader, line.writer)

    def token(self, prefix=""):
        self.count += 1
        return f"{prefix}t{self.life}.{self.count}"

    def filler(self):
        """Mostly short; sometimes over several pages, so that rows have overflow pages."""
        size = self.dice.choices((20, 120, 800, 5000), (60, 33, 5, 2))[0]
        return self.dice.randbytes(self.dice.randrange(size)).hex()

    async def run(self, server, life):
        """Everybody at once, until the server is killed in the middle of it, or everybody was answered and it stops."""
        await self.prepare()
        begun = database_size(server.data)
        writers = [self.publish(n) for n in range(self.writers)]
        writers += [self.batch(), self.edit(0), self.edit(1), self.decide(), self.open_tickets()]
        writers += [self.come_back(), self.read_pages()]
        lookers = [self.watch(), self.watch(), self.look("/ws"), self.look("/ws/prompts/one")]
        writers = [asyncio.create_task(self.until_gone(part)) for part in writers]
        lookers = [asyncio.create_task(self.until_gone(part)) for part in lookers]
        await asyncio.wait_for(self.enough(life, server.data, begun), LIFE_SECONDS)
        if life.is_killed:
            server.kill()
        else:
            self.stopped.set()
            await asyncio.wait_for(asyncio.gather(*writers), ANSWER_SECONDS)
            # Whoever has written enough still listens, or the server would wait for its farewell.
            lookers += [asyncio.create_task(self.until_gone(self.listen(line))) for line in self.lines if line.is_idle()]
            for line in self.lines:
                if line.path == "http":
                    line.writer.close()
            await asyncio.to_thread(server.stop)
        await asyncio.wait_for(asyncio.gather(*writers, *lookers), ANSWER_SECONDS)
        for line in self.lines:
            line.writer.close()

    async def enough(self, life, data, begun):
        """By what was written and not by the time it takes: a busy machine must not make it a test of less."""
        while self.count < life.writes:
            await asyncio.sleep(LOOK_SECONDS)
        if life.until_checkpoint:
            while database_size(data) == begun:
                await asyncio.sleep(LOOK_SECONDS)
            # And some more, which stand at the front of the log again.
            await self.enough(Life(self.count + AGAIN_WRITES, False), data, begun)

    async def until_gone(self, part):
        try:
            await part
        except (EOFError, ConnectionError):
            pass

    async def prepare(self):
        http = await self.http()
        for prompt in PROMPTS:
            await http.ask("POST", "/api/prompts/", {"name": prompt, "content": self.token()})
        await http.ask("POST", "/v1/sessions", {"id": session(self.life)})

    # --- who writes ---

    async def publish(self, number):
        """Native publishes, pipelined, with a resend and a refusal now and then."""
        line = await self.socket("/v1/connect")
        await line.hear()
        window, waiting, last = self.dice.choice((1, 2, 8)), 0, None
        while not self.stopped.is_set() or waiting:
            while waiting < window and not self.stopped.is_set():
                last = await self.publish_one(line, number, last)
                waiting += 1
            answer = await line.hear()
            waiting -= answer["op"] in ("ok", "refused", "conflict", "unknown")

    async def publish_one(self, line, number, last):
        chance = self.dice.random()
        if chance < 0.04 and last:
            await line.say(**last)
        elif chance < 0.06 and last:
            # The id is another operation's.
            await line.say(**{**last, "data": {"token": self.token(REFUSED)}})
        elif chance < 0.08:
            wrong = self.token(REFUSED)
            await line.say(op="publish", room=STATES[0], id=wrong, data={"token": wrong}, if_rev=999_999)
        elif chance < 0.12:
            state = {"token": self.token(), "filler": self.filler()}
            await line.say(op="publish", room=STATES[1], id=self.token(), type="state", data=state)
        else:
            room = self.dice.choice(HOT) if chance < 0.95 else self.dice.choice(SLOW)
            data = {"token": self.token(), "filler": self.filler()}
            last = {"op": "publish", "room": room, "id": f"{number}-{self.token()}", "type": "note", "data": data}
            await line.say(**last)
        return last

    async def batch(self):
        """Many publishes of a backend in one request: each for itself, and most in one commit."""
        http = await self.http()
        while not self.stopped.is_set():
            lines = [self.batched() for _ in range(self.dice.randrange(1, BATCH))]
            body = "\n".join(map(json.dumps, lines)).encode()
            head = f"POST /v1/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
            head += "Content-Type: application/x-ndjson\r\n\r\n"
            http.writer.write(head.encode() + body)
            await http.reader.readuntil(b"\r\n\r\n")
            # The answers come in chunks, as they are known.
            while size := int(await http.reader.readline(), 16):
                await http.reader.readexactly(size + 2)
            await http.reader.readline()

    def batched(self):
        data = {"token": self.token(), "filler": self.filler()}
        return {"room": self.dice.choice(HOT), "type": "batched", "data": data, "id": self.token()}

    async def edit(self, number):
        """A prompt's page, and the same prompt over REST: its content and its description are two events of one operation."""
        prompt = PROMPTS[number]
        line = await self.socket(f"/ws/prompts/{prompt}")
        await line.hear()
        http = await self.http()
        while not self.stopped.is_set():
            token = self.token()
            await asyncio.sleep(PACE)
            if self.dice.random() < 0.3:
                both = {"content": f"{token} {self.filler()}", "description": token, "tags": [token]}
                await http.ask("PUT", f"/api/prompts/{prompt}", both)
                continue
            await line.say(action="update", content=f"{token} {self.filler()}", id=token)
            while (await line.hear())["action"] != "update_status":
                pass

    async def decide(self):
        """An agent's run: a command, requests for a decision, the decisions, and a cancellation, which is several events."""
        id = session(self.life)
        line = await self.socket(f"/api/v1/ws/?session_id={id}")
        await line.hear()
        native = await self.socket("/v1/connect")
        await native.hear()
        await native.say(op="join", room=f"session:{id}")
        http = await self.http()
        while not self.stopped.is_set():
            await line.say(type="execute", data={"command": self.token(), "plan": None})
            run = (await heard(line, "thinking"))["data"]["execution_id"]
            asked = [await self.ask_for_decision(http, id, run) for _ in range(5)]
            await line.say(type="approve", data={"request_id": asked[0]["request_id"]})
            await heard(line, "approved")
            await line.say(type="reject", data={"request_id": asked[1]["request_id"], "reason": self.token()})
            await heard(line, "rejected")
            decision = {"approval": asked[2]["request_id"], "decision": "approve", "seen": asked[2]["digest"]}
            await native.say(op="decide", room=f"session:{id}", id=self.token(), **decision)
            late = {**decision, "decision": "reject"}
            await native.say(op="decide", room=f"session:{id}", id=self.token(REFUSED), **late)
            while (await native.hear())["op"] != "refused":
                pass
            await line.say(type="cancel", data={"execution_id": run})
            await heard(line, "cancelled")
            await asyncio.sleep(PACE)

    async def ask_for_decision(self, http, id, run):
        request = {"session": id, "id": str(uuid.UUID(int=self.dice.getrandbits(128), version=4)), "execution_id": run}
        request |= {"tool_name": "pay", "tool_args": {"n": self.token()}}
        status, answer = await http.ask("POST", "/v1/approvals", request)
        if status != 201:
            raise AssertionError(f"an approval was answered {status}: {answer}")
        return answer

    async def open_tickets(self):
        http = await self.http()
        while not self.stopped.is_set():
            await http.ask("POST", "/tickets/create", {"ticket_name": self.token(), "description": None})
            await asyncio.sleep(PACE)

    # --- who looks ---

    async def watch(self):
        """A native client that is in every room, and so is shown every event with its seq."""
        line = await self.socket("/v1/connect")
        await line.hear()
        for room in [*HOT, *SLOW, *STATES, *DOCUMENTS, "tickets", "logs", f"session:{session(self.life)}"]:
            await line.say(op="join", room=room)
        await self.listen(line)

    async def look(self, path):
        await self.listen(await self.socket(path))

    async def listen(self, line):
        line.has_listener = True
        while True:
            await line.hear()

    async def come_back(self):
        """Joins where it says that it left, and is told what it missed, or is given the state."""
        at = {}
        while not self.stopped.is_set():
            line = await self.socket("/v1/connect")
            await line.hear()
            room = self.dice.choice(HOT + STATES)
            since = {}
            if room in at:
                epoch, head = at[room]
                since = {"since": {"epoch": epoch, "seq": max(0, head - self.dice.randrange(9))}}
            await line.say(op="join", room=room, **since)
            joined = await line.hear()
            at[room] = (joined["epoch"], joined["head"])
            await line.say(op="ping")
            while (await line.hear())["op"] != "pong":
                pass
            line.has_left = True
            line.writer.close()

    async def read_pages(self):
        """The log over HTTP."""
        http = await self.http()
        while not self.stopped.is_set():
            room = self.dice.choice(HOT)
            await http.ask("GET", f"/v1/rooms/{room}/events?after=0&limit=20")
            await asyncio.sleep(PACE)


def database_size(data):
    """Of the database: it grows when a checkpoint moves the write-ahead log into it."""
    return os.path.getsize(data / "commitcast.sqlite")


async def heard(line, type):
    while True:
        frame = await line.hear()
        if frame["type"] == type:
            return frame
        if frame["type"] == "error" and "404" in frame["data"].get("message", ""):
            raise AssertionError(f"the server answered {frame}")
