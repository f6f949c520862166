#!/usr/bin/env python3
"""Drills of the end of a server under many clients: a drain, hot restarts, and the storm of those who come back after a kill.

    restart_drill.py [units] [drain] [hot] [storm] [--clients N] [--restarts N] [--rate N] [--storm N] [--seed N]

units  systemd's own programs read the unit files under tools/systemd and pass a socket on, where there are any.
drain  every client publishes as fast as it is answered; SIGTERM. What was answered is compared with what is stored: what
       was acknowledged is there at its seq, what was shown is there, what is there was answered, and an operation that was
       never read is stored when it is sent again. The server ends with 0 and in time, its goodbyes spread over the window.
hot    so many new connections a second, directly and through nginx, while SIGUSR2 exchanges the server again and again:
       none of them fails, and those who were there go on without a gap.
storm  SIGKILL with so many clients in rooms, who all come back to a new server and resume: all of them within 30 s, and the
       log is read once for a room and a place and not once for a client.

Standard library only. The clients of one process share one thread, so what they measure is an upper bound; what is called a
latency of operations is measured by a process of its own.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Server, Tally, equal, expect, program, read_events

KEY = "a key for looking at the log"
HEADERS = {"Authorization": f"Bearer {KEY}"}
API_KEY = f'[auth]\napi_keys = [{{ name = "drill", key = "{KEY}", rights = ["*"] }}]\n'
NOT_RUN = 77
# What a storm may take (PROMISES.md L8).
STORM_SECONDS = 30
HANDSHAKE = (
    "GET /v1/connect HTTP/1.1\r\nHost: drill\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {base64.b64encode(b'a drill, no dice').decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()
# Where clients come from: one address has ports for 28,000 of them to one server.
SOURCES = [f"127.0.0.{last}" for last in range(2, 6)]


# --- a client that costs little: no task, no queue, and a mask of zeros, which leaves the payload as it is ---


def masked(opcode, payload):
    length = len(payload)
    head = bytes((0x80 | opcode, 0x80 | length)) if length < 126 else bytes((0x80 | opcode, 0xFE)) + length.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


class Wire(asyncio.Protocol):
    """One WebSocket; a subclass says what it makes of what it hears."""

    def __init__(self):
        self.buffer = bytearray()
        self.is_open = False
        self.goodbye = None  # (code, reason)
        self.bye = None
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        transport.write(HANDSHAKE)

    def data_received(self, data):
        self.buffer += data
        if not self.is_open:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end])
            del self.buffer[: end + 4]
            if not head.startswith(b"HTTP/1.1 101 "):
                self.refused(head.decode("latin-1"))
                self.transport.abort()
                return
            self.is_open = True
        while self.goodbye is None and self.take_frame():
            pass

    def take_frame(self):
        buffer = self.buffer
        if len(buffer) < 2:
            return False
        length, start = buffer[1], 2
        if length == 126:
            length, start = int.from_bytes(buffer[2:4], "big"), 4
        elif length == 127:
            length, start = int.from_bytes(buffer[2:10], "big"), 10
        if len(buffer) < start + length:
            return False
        opcode, payload = buffer[0] & 0xF, bytes(buffer[start : start + length])
        del buffer[: start + length]
        if opcode == 1:
            value = json.loads(payload)
            if value["op"] == "bye":
                self.bye = value
            else:
                self.heard(value)
        elif opcode == 8:
            self.goodbye = (int.from_bytes(payload[:2], "big"), payload[2:].decode())
            self.transport.write(masked(8, payload[:2]))
        elif opcode == 9:
            self.transport.write(masked(10, payload))
        return True

    def say(self, **value):
        self.transport.write(masked(1, json.dumps(value).encode()))

    def connection_lost(self, _error):
        self.ended()

    def heard(self, value):
        raise NotImplementedError

    def refused(self, head):
        """The handshake was answered with something else than 101."""

    def ended(self):
        """The connection is over."""


async def connect(port, wire, number=0):
    source = (SOURCES[number % len(SOURCES)], 0)
    await asyncio.get_running_loop().create_connection(lambda: wire, "127.0.0.1", port, local_addr=source)
    return wire


async def gather(coroutines, at_once):
    limit = asyncio.Semaphore(at_once)

    async def one(coroutine):
        async with limit:
            return await coroutine

    return await asyncio.gather(*map(one, coroutines))


async def until(is_so, seconds, what):
    deadline = time.monotonic() + seconds
    while not is_so():
        expect(time.monotonic() < deadline, lambda: f"not within {seconds} s: {what()}")
        await asyncio.sleep(0.02)


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def check_goodbye(wire, who):
    """1012, with a pause to come back after that is not everybody's."""
    code, reason = wire.goodbye or (None, None)
    equal(code, 1012, f"the close code of {who}")
    pause = re.fullmatch(r"restart retry_after_ms=(\d+)", reason)
    expect(pause and 250 <= int(pause[1]) < 4250, f"no pause in {reason!r}")
    equal((wire.bye or {}).get("retry_after_ms"), int(pause[1]), "the pause of `bye`")
    return int(pause[1])


# --- units ---

UNITS = Path(__file__).resolve().parents[2] / "systemd"


async def units(_options):
    """Neither program is needed by anybody else, so a machine without them has lost nothing: it is said, and not counted."""
    analyze, activate = shutil.which("systemd-analyze"), shutil.which("systemd-socket-activate")
    if analyze:
        with tempfile.TemporaryDirectory() as place:
            for unit in UNITS.iterdir():
                # Where a package would have put it.
                text = unit.read_text().replace("/usr/local/bin/commitcast", str(program()))
                (Path(place) / unit.name).write_text(text)
            verified = subprocess.run(
                [analyze, "verify", *map(str, Path(place).iterdir())], capture_output=True, text=True, timeout=60
            )
            equal((verified.returncode, verified.stderr.strip()), (0, ""), "systemd-analyze verify")
    if activate:
        with Activated(prompts=False) as server:
            visits = []
            await visit(server.port, 0, visits)
            equal([problem for _, _, problem in visits], [None], "through systemd's socket")
            equal(server.stop(), 0, "the exit code")
    missing = [name for name, path in (("systemd-analyze", analyze), ("systemd-socket-activate", activate)) if not path]
    print(f"behaviour: units read by systemd's own programs{' but ' + ', '.join(missing) if missing else ''}", flush=True)


class Activated(Server):
    """Started by the first who connects to a socket that systemd's program listens on."""

    def start(self):
        command = ["systemd-socket-activate", "-l", f"127.0.0.1:{self.port}", str(program()), "serve", "--data", str(self.data)]
        command += ["--config", str(self.config), "--listen", f"127.0.0.1:{self.port}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while "Listening on" not in self.last_words():
            expect(time.monotonic() < deadline and self.process.poll() is None, self.last_words)
            time.sleep(0.01)


# --- drain ---

AHEAD = 4  # operations of one client under way: there is hardly a moment without one
ROOM_OF = 10  # publishers of one room, one of whom is a member and is shown everything


class Publisher(Wire):
    """Publishes again with every answer."""

    def __init__(self, number, book):
        super().__init__()
        self.number, self.book = number, book
        self.room = f"game:{number // ROOM_OF}"
        self.sent = 0
        self.ended_at = None

    def publish(self, id):
        self.say(op="publish", room=self.room, id=id, data={"by": self.number})

    def publish_next(self):
        self.sent += 1
        id = f"{self.number}.{self.sent}"
        self.book.unanswered[id] = self.room
        self.publish(id)

    def heard(self, value):
        op = value["op"]
        if op == "hello":
            if self.number % ROOM_OF == 0:
                self.say(op="join", room=self.room)
            for _ in range(AHEAD):
                self.publish_next()
        elif op == "event":
            self.book.shown.append((self.room, value["seq"], value.get("id")))
        elif op in ("ok", "refused", "unknown"):
            self.book.answers[value["id"]] = (self.room, op, value.get("seq"))
            self.book.unanswered.pop(value["id"], None)
            self.publish_next()

    def ended(self):
        self.ended_at = time.monotonic()


class Book:
    def __init__(self):
        self.unanswered = {}  # id → room
        self.answers = {}  # id → (room, answer, seq)
        self.shown = []  # (room, seq, id)


class Again(Wire):
    """Sends again what had no answer."""

    def __init__(self, todo):
        super().__init__()
        self.todo, self.answers = todo, {}

    def heard(self, value):
        if value["op"] == "hello":
            for id, room in self.todo:
                self.say(op="publish", room=room, id=id, data={"again": True})
        elif value["op"] in ("ok", "refused", "unknown"):
            self.answers[value["id"]] = value


async def drain(options):
    window, timeout = options.window, options.window + 10
    config = f'{API_KEY}[drain]\nwindow = "{window}s"\ntimeout = "{timeout}s"\n'
    with Server(config, prompts=False) as server:
        book = Book()
        clients = [Publisher(number, book) for number in range(options.clients)]
        await gather([connect(server.port, client, client.number) for client in clients], 200)
        # Under way when the signal comes: everybody has been answered at least once.
        await until(lambda: all(client.sent > AHEAD for client in clients), 60, lambda: "everybody publishes")
        at_signal = len(book.answers)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        await until(
            lambda: server.process.poll() is not None, timeout + 10, lambda: f"the server ends:\n{server.last_words()}"
        )
        took = time.monotonic() - begun
        equal(server.process.returncode, 0, f"the exit code after {took:.1f} s")
        expect(took <= timeout, f"it took {took:.1f} s, drain.timeout is {timeout} s")
        await until(lambda: all(client.ended_at for client in clients), 20, lambda: "every client has read its end")
        pauses = {check_goodbye(client, f"client {client.number}") for client in clients}
        expect(len(pauses) > min(100, options.clients // 4), f"{len(pauses)} different pauses")
        ends = sorted(client.ended_at - begun for client in clients)
        expect(quantile(ends, 0.5) > window / 5, f"not spread over the window: half had gone after {quantile(ends, 0.5):.1f} s")
        print(
            f"behaviour: drain of {options.clients} publishing clients: {len(book.answers)} operations answered, "
            f"{len(book.answers) - at_signal} of them after SIGTERM, {len(book.unanswered)} never read; gone by quarters "
            f"{', '.join(f'{quantile(ends, share):.1f}' for share in (0.25, 0.5, 0.75, 1))} s, exit 0 after {took:.1f} s "
            f"(window {window} s)",
            flush=True,
        )
        server.start()
        rooms = {client.room for client in clients}
        stored = {}  # id → (room, seq)
        for room, events in zip(rooms, await gather([read_events(server.port, room, 0, HEADERS) for room in rooms], 20)):
            equal([event["seq"] for event in events], list(range(1, len(events) + 1)), f"the seqs of {room}")
            stored.update({event["id"]: (room, event["seq"]) for event in events})
        for id, (room, answer, seq) in book.answers.items():
            if answer == "ok":
                equal(stored.get(id), (room, seq), f"the acknowledged {id}")
            elif answer == "refused":
                expect(id not in stored, f"{id} was refused and is stored")
        for room, seq, id in book.shown:
            equal(stored.get(id), (room, seq), "an event that was shown")
        silent = [id for id in book.unanswered if id in stored]
        expect(not silent, lambda: f"{len(silent)} operations are stored and were never answered, such as {silent[:3]}")
        todo = list(book.unanswered.items())
        again = [Again(todo[start :: 50]) for start in range(min(50, len(todo)))]
        await gather([connect(server.port, client) for client in again], 50)
        await until(
            lambda: all(len(client.answers) == len(client.todo) for client in again), 30, lambda: "what is sent again is answered"
        )
        for client in again:
            for id, value in client.answers.items():
                equal((value["op"], value.get("dup", False)), ("ok", False), f"{id}, sent again")
            client.transport.abort()


# --- hot restarts ---


class Hot(Server):
    """A server whose process is not always the same."""

    def __init__(self, *arguments, **options):
        self.successor = None
        super().__init__(*arguments, **options)

    def exchange(self):
        """SIGUSR2; the new process's id, when it serves."""
        os.kill(self.serving, signal.SIGUSR2)
        return self.log.stat().st_size

    @property
    def serving(self):
        return self.successor or self.pid

    def handed_over(self, since):
        """Looks whether the log says so behind `since`."""
        text = self.log.read_text()[since:]
        expect("no hand-over" not in text and "failed" not in text, text)
        found = re.search(r"handed over to process (\d+)", text)
        if found:
            self.successor = int(found[1])
        return bool(found)

    def kill(self):
        started = re.findall(r" is started as process (\d+)", self.log.read_text()) if self.log.exists() else []
        super().kill()
        for process in map(int, started):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Visitor(Wire):
    """Comes, is greeted, goes."""

    def __init__(self):
        super().__init__()
        self.done = asyncio.get_running_loop().create_future()

    def settle(self, problem):
        if not self.done.done():
            self.done.set_result(problem)

    def heard(self, value):
        self.settle(None if value["op"] == "hello" else f"{value}")
        self.transport.abort()

    def refused(self, head):
        self.settle(head.splitlines()[0])

    def ended(self):
        self.settle("the connection ended before it was greeted")


async def visit(port, number, results):
    begun = time.monotonic()
    try:
        visitor = await connect(port, Visitor(), number)
        problem = await asyncio.wait_for(visitor.done, 20)
    except (OSError, asyncio.TimeoutError) as error:
        problem = f"{type(error).__name__}: {error}"
    results.append((begun, time.monotonic() - begun, problem))


async def visits(port, rate, stop, results):
    """An open loop: the next one comes at its time, whether or not those before it have been served."""
    tasks, begun = [], time.monotonic()
    while not stop.is_set():
        tasks.append(asyncio.ensure_future(visit(port, len(tasks), results)))
        await asyncio.sleep(max(0, begun + len(tasks) / rate - time.monotonic()))
    await asyncio.gather(*tasks)


class Resident(Wire):
    """A member of a room that goes on where it was."""

    def __init__(self, room, epoch, seq):
        super().__init__()
        self.room, self.epoch, self.seq = room, epoch, seq
        self.problem = None
        self.joined = False
        self.over = asyncio.get_running_loop().create_future()

    def heard(self, value):
        op = value["op"]
        if op == "hello":
            since = {"epoch": self.epoch, "seq": self.seq} if self.epoch else None
            self.say(op="join", room=self.room, since=since)
        elif op == "joined":
            self.joined = True
            if self.epoch and not value["recovered"]:
                self.problem = f"not recovered from {self.seq}: {value}"
            self.seq = self.seq if self.epoch else value["head"]
            self.epoch = value["epoch"]
        elif op == "event":
            if value["seq"] != self.seq + 1:
                self.problem = f"{value['seq']} behind {self.seq} in {self.room}"
            self.seq = value["seq"]
        elif op in ("reset", "refused"):
            self.problem = f"{value}"

    def refused(self, head):
        self.problem = head.splitlines()[0]

    def ended(self):
        if not self.over.done():
            self.over.set_result(None)


async def reside(port, room, number, stop, seats):
    """Comes back as often as it is told to go; the last connection stays in its seat."""
    epoch, seq = None, 0
    while not stop.is_set():
        wire = await connect(port, Resident(room, epoch, seq), number)
        seats[number] = wire
        await wire.over
        expect(wire.problem is None, lambda: wire.problem)
        if stop.is_set():
            return
        check_goodbye(wire, f"resident {number}")
        epoch, seq = wire.epoch, wire.seq


class Writer(Wire):
    """Publishes one operation after the other, and again what had no answer."""

    def __init__(self, rooms, number):
        super().__init__()
        self.rooms, self.number = rooms, number
        self.over = asyncio.get_running_loop().create_future()

    def publish(self):
        self.say(op="publish", room=self.rooms[self.number % len(self.rooms)], id=f"w{self.number}", data=self.number)

    def heard(self, value):
        if value["op"] == "hello":
            self.publish()
        elif value["op"] == "ok":
            self.number += 1
            asyncio.get_running_loop().call_later(0.005, self.publish)

    def ended(self):
        self.over.set_result(None)


async def write(port, rooms, stop):
    number = 0
    while not stop.is_set():
        wire = await connect(port, Writer(rooms, number))
        await asyncio.wait([wire.over, asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        number = wire.number
        wire.transport.abort()
    return number


async def hot(options):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "proxies"))
    from ways import Nginx

    if Nginx.find() is None:
        print(f"NOT RUN: {Nginx.program} is missing: apt-get install {Nginx.package}", flush=True)
        sys.exit(NOT_RUN)
    with Hot(API_KEY, prompts=False) as server:
        nginx = Nginx.begin(server.port)
        try:
            await hot_through(options, server, nginx)
        finally:
            nginx.end()


async def hot_through(options, server, nginx):
    stop = asyncio.Event()
    ways = {"direct": server.port, "nginx": nginx.port}
    results = {way: [] for way in ways}
    rooms = [f"game:{number}" for number in range(5)]
    seats = {}
    first = await connect(server.port, Writer(rooms, 0))
    # A room without an event has no epoch to go on from.
    await until(lambda: first.number >= len(rooms), 20, lambda: "every room has an event")
    first.transport.abort()
    writing = asyncio.ensure_future(write(server.port, rooms, stop))
    residing = [
        asyncio.ensure_future(reside(list(ways.values())[number % 2], rooms[number % len(rooms)], number, stop, seats))
        for number in range(options.residents)
    ]
    visiting = [asyncio.ensure_future(visits(port, options.rate / 2, stop, results[way])) for way, port in ways.items()]

    def broken():
        done = [task for task in residing if task.done()]
        return done[0].exception() if done else None

    await until(lambda: len(seats) == options.residents and all(seat.joined for seat in seats.values()), 20, lambda: "residents")
    gaps = []
    for number in range(options.restarts):
        await asyncio.sleep(options.pause)
        begun, since = time.monotonic(), server.exchange()
        await until(lambda: server.handed_over(since), 30, lambda: f"exchange {number}:\n{server.last_words()}")
        slow = [took for way in ways for at, took, _ in results[way] if at + took > begun]
        gaps.append((time.monotonic() - begun, max(slow, default=0)))
        expect(broken() is None, lambda: f"{broken()}")
    await asyncio.sleep(options.pause)
    expect(broken() is None, lambda: f"{broken()}")
    stop.set()
    written = await writing
    await asyncio.gather(*visiting)
    heads = {room: len(await read_events(server.port, room, 0, HEADERS)) for room in rooms}
    await until(
        lambda: all(seat.seq == heads[seat.room] for seat in seats.values()),
        20,
        lambda: f"everybody is at the head: {[(seat.room, seat.seq, heads[seat.room]) for seat in seats.values() if seat.seq != heads[seat.room]][:3]}",
    )
    for seat in seats.values():
        seat.transport.abort()
    await asyncio.gather(*residing)
    for way in ways:
        failed = [problem for _, _, problem in results[way] if problem]
        took = [took for _, took, problem in results[way] if not problem]
        print(
            f"behaviour: {options.restarts} hot restarts, {way}: {len(results[way])} connections, {len(failed)} failed; "
            f"greeted after {statistics.median(took) * 1000:.0f} ms at the median, {max(took) * 1000:.0f} ms at most",
            flush=True,
        )
        expect(not failed, lambda: f"{len(failed)} connections failed, such as {failed[:3]}")
    print(
        f"behaviour: hand-over from signal to service {max(took for took, _ in gaps):.2f} s at most; {options.residents} "
        f"members went on without a gap, {written} operations written meanwhile, {sum(heads.values())} stored",
        flush=True,
    )
    # The last one may have been stored while its answer was on its way.
    expect(sum(heads.values()) in (written, written + 1), f"{sum(heads.values())} stored, {written} written")


# --- the storm ---

MISSED = 20  # events that each client has missed when it comes back
MEMBERS = 100  # of one room


class Member(Wire):
    """Joins its room, and after the kill again from where it was."""

    def __init__(self, number, since=None):
        super().__init__()
        self.number, self.since = number, since
        self.room = f"game:{number // MEMBERS}"
        self.seqs = []
        self.joined = None
        self.over = asyncio.get_running_loop().create_future()

    def heard(self, value):
        if value["op"] == "hello":
            self.say(op="join", room=self.room, since=self.since)
        elif value["op"] == "joined":
            self.joined = value
        elif value["op"] == "event":
            self.seqs.append(value["seq"])

    def is_back(self):
        return self.joined is not None and (self.since is None or len(self.seqs) >= MISSED)

    def ended(self):
        if not self.over.done():
            self.over.set_result(None)


async def come_back(port, number, since, dice, members):
    """As a client does that was told nothing: after a random pause, and again with a longer one."""
    pause = 0.5
    while True:
        await asyncio.sleep(dice.uniform(0, pause))
        pause = min(pause * 2, 4)
        try:
            members[number] = await connect(port, Member(number, since), number)
            return
        except OSError:
            pass


class Probe:
    """Operations at a steady pace, timed from their intended moment, by a process of its own."""

    def __init__(self, port, per_second=50):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=Probe.run, args=(port, per_second, theirs), daemon=True)
        self.process.start()
        theirs.close()
        expect(self.ours.recv() == "ready", "the probe is ready")

    def stop(self):
        """Milliseconds, each."""
        self.ours.send("stop")
        latencies = self.ours.recv()
        self.process.join()
        return latencies

    @staticmethod
    def run(port, per_second, theirs):
        with socket.create_connection(("127.0.0.1", port)) as stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream.sendall(HANDSHAKE)
            reader = stream.makefile("rb")
            while reader.readline() != b"\r\n":
                pass

            def hear():
                head = reader.read(2)
                length = head[1] if head[1] < 126 else int.from_bytes(reader.read(2), "big")
                payload = reader.read(length)
                if head[0] & 0xF == 9:
                    stream.sendall(masked(10, payload))
                    return {}
                return json.loads(payload)

            while hear().get("op") != "hello":
                pass
            theirs.send("ready")
            latencies, begun, number = [], time.monotonic(), 0
            name = os.urandom(4).hex()
            while not theirs.poll():
                due = begun + number / per_second
                time.sleep(max(0, due - time.monotonic()))
                number += 1
                frame = {"op": "publish", "room": "probe", "id": f"{name}.{number}", "data": number}
                stream.sendall(masked(1, json.dumps(frame).encode()))
                while hear().get("op") != "ok":
                    pass
                latencies.append((time.monotonic() - due) * 1000)
            theirs.send(latencies)


def metric(server, name):
    _, _, text = server.get("/metrics")
    return int(float(re.search(rf"^commitcast_{name}(?:_total)? (\S+)$", text, re.M)[1]))


async def storm(options):
    dice = random.Random(options.seed)
    loop = asyncio.get_running_loop()
    with Server(API_KEY, prompts=False) as server:
        rooms = [f"game:{number}" for number in range(-(-options.storm // MEMBERS))]
        wire = await connect(server.port, Again([(f"{room}.{number}", room) for room in rooms for number in range(2 * MISSED)]))
        await until(lambda: len(wire.answers) == len(wire.todo), 60, lambda: "the rooms have a past")
        wire.transport.abort()
        members = {}
        for number in range(options.storm):
            members[number] = Member(number)
        await gather([connect(server.port, member, member.number) for member in members.values()], 200)
        await until(lambda: all(member.is_back() for member in members.values()), 60, lambda: "everybody is in")
        probe = await loop.run_in_executor(None, Probe, server.port)
        await asyncio.sleep(options.probe)
        before = await loop.run_in_executor(None, probe.stop)
        epochs = {member.room: member.joined["epoch"] for member in members.values()}
        heads = {member.room: member.joined["head"] for member in members.values()}

        begun = time.monotonic()
        server.kill()
        await until(lambda: all(member.over.done() for member in members.values()), 20, lambda: "everybody has noticed")
        away = dict(members)
        members.clear()
        tasks = []
        for number, member in away.items():
            since = {"epoch": epochs[member.room], "seq": heads[member.room] - MISSED}
            tasks.append(asyncio.ensure_future(come_back(server.port, number, since, dice, members)))
        await loop.run_in_executor(None, server.start)
        started = time.monotonic() - begun
        probe = await loop.run_in_executor(None, Probe, server.port)
        await asyncio.gather(*tasks)

        def missing():
            return options.storm - sum(member.is_back() for member in members.values())

        await until(lambda: missing() == 0, STORM_SECONDS, lambda: f"{missing()} are not back")
        took = time.monotonic() - begun
        during = await loop.run_in_executor(None, probe.stop)
        for member in members.values():
            equal(member.joined["recovered"], True, f"client {member.number}")
            head = heads[member.room]
            equal(member.seqs, list(range(head - MISSED + 1, head + 1)), f"what client {member.number} was shown")
        reads = await loop.run_in_executor(None, metric, server, "store_reads")
        pages = await loop.run_in_executor(None, metric, server, "lagging_reads")
        print(
            f"behaviour: storm of {options.storm} clients in {len(rooms)} rooms: all back {took:.1f} s after the kill "
            f"(serving again after {started:.1f} s), {MISSED} missed events each, {reads} reads of the store, "
            f"{pages} of them pages ({reads / len(rooms):.1f} a room, {options.storm / max(1, reads):.0f} clients a read)",
            flush=True,
        )
        print(
            f"behaviour: operations beside the storm: p99 {quantile(during, 0.99):.1f} ms during it, "
            f"{quantile(before, 0.99):.1f} ms before it (p50 {quantile(during, 0.5):.1f} and {quantile(before, 0.5):.1f} ms)",
            flush=True,
        )
        expect(took <= STORM_SECONDS, f"it took {took:.1f} s")
        # A page for each room and reactor, and a look at where the room stands for those who came before that was known.
        expect(reads <= options.storm / 10, f"{reads} reads for {options.storm} clients are not coalesced")


DRILLS = {"units": units, "drain": drain, "hot": hot, "storm": storm}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("drills", nargs="*", metavar="drill", help=f"of {', '.join(DRILLS)}; none: all")
    parser.add_argument("--clients", type=int, default=1500, help="of the drain; 5000 in a long run")
    parser.add_argument("--window", type=int, default=4, help="drain.window in seconds")
    parser.add_argument("--restarts", type=int, default=3, help="20 in a long run")
    parser.add_argument("--rate", type=int, default=200, help="new connections a second while restarting")
    parser.add_argument("--residents", type=int, default=60, help="members of rooms while restarting")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two restarts")
    parser.add_argument("--storm", type=int, default=2000, help="clients of the storm; 10000 in a long run")
    parser.add_argument("--probe", type=float, default=4, help="seconds of measuring operations before the storm")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    unknown = [drill for drill in options.drills if drill not in DRILLS]
    if unknown:
        parser.error(f"no drill {unknown[0]}")
    print(f"seed {options.seed}", flush=True)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    tally = Tally()
    for name in options.drills or DRILLS:
        tally.run(name, DRILLS[name], options, seconds=600)
    tally.finish()


if __name__ == "__main__":
    main()
