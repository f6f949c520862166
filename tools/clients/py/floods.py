"""Floods of every kind (PROMISES.md 3.3 and 3.4) against a real server while two clients behave: how long a turn of a reactor
takes meanwhile, what memory comes to, and whether the two are served.

Attackers are processes of their own, each with some connections that it uses in turn without ever waiting for one. Whoever
is closed comes back.

*The lag.* The server's own histogram says how long each turn of a reactor took, by the wall clock: that is what a client
waits. On a machine that also does other things a thread that may run does not always run, and its turn then seems long. So a
turn that took longer than the bound is held against the server unless the kernel's own account (schedstat) says that its
threads stood in the run queue for at least as long as all such turns were over the bound.
"""

import contextlib
import json
import multiprocessing
import os
import random
import socket
import struct
import threading
import time
from pathlib import Path

from harness import Server, expect
from raw_client import Member, frame, handshake

CONNECTIONS = 2000
# In the kernel, of each: PROMISES.md 5.2 as limits.rs has it.
KERNEL_BYTES = (2 * 32 + 2 * 64 + 4) << 10
CONFIG = f"""
[auth]
mode = "open"
[limits]
connections = {CONNECTIONS}
memory = "2GiB"
"""
LAG_SECONDS = 0.01
LATE_SHARE = 0.001
RESET = struct.pack("ii", 1, 0)


def is_wanted():
    """The suite that started this process is still there: nobody else would end it."""
    parent = multiprocessing.parent_process()
    return parent is not None and parent.is_alive()


class Attacker:
    """Connections that say the same again and again, as much as the server takes."""

    def __init__(self, port, words, clients, path="/v1/connect", reads=True, receive_buffer=None, pause=0.0):
        self.port, self.words, self.path, self.reads = port, words, path, reads
        self.receive_buffer, self.pause = receive_buffer, pause
        self.seats = [None] * clients

    def run(self):
        while is_wanted():
            for place, seat in enumerate(self.seats):
                try:
                    self.seats[place] = self.turn(place, seat)
                except BlockingIOError:
                    pass
                except OSError:
                    if seat:
                        seat[0].close()
                    self.seats[place] = None
            time.sleep(self.pause)

    def turn(self, place, seat):
        sock, left = seat or (self.dial(), b"")
        if self.reads:
            with contextlib.suppress(BlockingIOError):
                if not sock.recv(1 << 18):
                    raise ConnectionResetError
        left = left or self.words(place)
        with contextlib.suppress(BlockingIOError):
            left = left[sock.send(left) :]
        return sock, left

    def dial(self):
        sock = socket.socket()
        if self.receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        sock.settimeout(5)
        sock.connect(("127.0.0.1", self.port))
        if self.path:
            sock.sendall(handshake(self.port, self.path))
            while b"\r\n\r\n" not in sock.recv(1 << 16):
                pass
        sock.setblocking(False)
        return sock


def say(**message):
    return frame(json.dumps(message).encode())


def attack(**options):
    """A flood that is always the same words."""
    return lambda port, words, clients=20: Attacker(port, lambda _: words, clients, **options).run()


def fragments(port, content=b"x"):
    attack()(port, frame(content, 0x01) + frame(content, 0x00) * 300)


def empty_fragments(port):
    fragments(port, b"")


def pings(port):
    attack()(port, frame(b"p" * 20, 0x89) * 100)


def pongs(port):
    attack()(port, frame(b"p" * 20, 0x8A) * 100)


def deep(port):
    data = b"[" * 20_000 + b"]" * 20_000
    attack()(port, frame(b'{"op":"publish","room":"r","id":"1","type":"t","data":' + data + b"}"))


def keys(port):
    data = {f"key{number}": number for number in range(50_000)}
    attack()(port, say(op="publish", room="r", id="1", type="t", data=data))


def nonsense(port):
    attack()(port, frame(b'{"op":"\\ud800","room":1e999,"room":2}') * 20)


def publishes(port, clients=20, room="flooded"):
    dice = random.Random(port)

    def words(place):
        return b"".join(
            say(op="publish", room=room, id=str(dice.getrandbits(60)), type="t", data="x" * 50) for _ in range(32)
        )

    Attacker(port, words, clients).run()


def joins(port):
    dice = random.Random(port)
    words = lambda _: b"".join(say(op="join", room=f"room:{dice.randrange(10_000)}") for _ in range(50))
    Attacker(port, words, 20).run()


def noise(port):
    Attacker(port, lambda _: os.urandom(2000), 20, path=None).run()


def connects(port):
    request = handshake(port, "/v1/connect")
    while is_wanted():
        sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        with contextlib.suppress(OSError):
            sock.sendall(request)
            sock.recv(1000)
        sock.close()


def half_heads(port):
    Attacker(port, lambda place: handshake(port, "/v1/connect")[:60] if place % 2 else b"G", 300, path=None, pause=0.05).run()


def half_messages(port):
    length = 1 << 20
    Attacker(port, lambda _: frame(b"x" * length)[:-1], 150, reads=False).run()


def big_messages(port):
    dice = random.Random(port)

    def words(place):
        return say(op="publish", room="big", id=str(dice.getrandbits(60)), type="t", data="x" * 1_000_000)

    Attacker(port, words, 8).run()


def requests(port):
    words = b"GET /api/prompts/all HTTP/1.1\r\nHost: x\r\n\r\n" * 20
    attack(path=None)(port, words)


def unread_responses(port):
    words = b"GET /asyncapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20
    attack(path=None, reads=False, receive_buffer=2048)(port, words, 100)


def unread_answers(port):
    words = say(op="join", room="crowd") + say(op="presence", room="crowd") * 50
    attack(reads=False, receive_buffer=2048)(port, words, 100)


def deaf_members(port):
    """Members that never read, in a room that two of them fill with 60 kB at a time."""
    dice = random.Random(port)

    def words(place):
        return say(op="publish", room="deaf", id=str(dice.getrandbits(60)), type="t", data="x" * 60_000)

    loud = threading.Thread(target=Attacker(port, words, 2).run, daemon=True)
    deaf = Attacker(port, lambda _: say(op="join", room="deaf"), 300, reads=False, receive_buffer=2048, pause=0.2)
    loud.start()
    deaf.run()


ALL = {
    "fragments": (fragments, "row 46: millions of 1-byte fragments"),
    "empty-fragments": (empty_fragments, "row 47: endless empty fragments"),
    "pings": (pings, "row 53"),
    "pongs": (pongs, "row 54"),
    "deep": (deep, "row 58: JSON forty thousand brackets deep"),
    "keys": (keys, "row 58: fifty thousand keys"),
    "nonsense": (nonsense, "row 58: messages without sense"),
    "publishes": (publishes, "row 59: a message flood"),
    "joins": (joins, "row 60: ten thousand rooms"),
    "noise": (noise, "row 20: random bytes"),
    "connects": (connects, "rows 67 and 70: connects as fast as they go"),
    "half-heads": (half_heads, "I7: heads that never end"),
    "half-messages": (half_messages, "I2: a megabyte each, but for the last byte"),
    "big-messages": (big_messages, "the largest messages"),
    "requests": (requests, "HTTP requests in one go"),
    "unread-responses": (unread_responses, "row 65: HTTP answers that nobody reads"),
    "unread-answers": (unread_answers, "row 65: answers that nobody reads"),
    "deaf": (deaf_members, "row 65: members that never read"),
}


@contextlib.contextmanager
def attackers(flood, port, processes, **options):
    started = [multiprocessing.Process(target=flood, args=(port,), kwargs=options, daemon=True) for _ in range(processes)]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.join()


class Pair:
    """Two clients that behave: one says something, the other hears it, and then again."""

    def __init__(self, port):
        # An id is for ever: another pair's first word is no repetition of ours.
        self.name = os.urandom(6).hex()
        self.writer, self.reader = Member(port, "/v1/connect"), Member(port, "/v1/connect")
        self.number = 0
        for member in (self.writer, self.reader):
            member.next_text()
        self.reader.send(json.dumps({"op": "join", "room": "good"}).encode())
        self.reader.next_text()

    def go_on(self, seconds, look):
        """For so long; returns how long each delivery took."""
        took = []
        end = time.monotonic() + seconds
        while (begun := time.monotonic()) < end:
            self.number += 1
            name = f"{self.name}-{self.number}"
            self.writer.socket.sendall(say(op="publish", room="good", id=name, type="t", data=1))
            heard = json.loads(self.reader.next_text())
            took.append(time.monotonic() - begun)
            expect(heard["op"] == "event" and heard["id"] == name, f"the good one heard {heard}")
            self.writer.next_text()
            look()
            time.sleep(0.01)
        return sorted(took)

    def close(self):
        self.writer.close()
        self.reader.close()


def waited(pid):
    """Seconds that the reactors' threads could have run and did not, and how long they ran."""
    tasks = [task for task in Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text().startswith("reactor")]
    fields = [[int(field) for field in (task / "schedstat").read_text().split()] for task in tasks]
    return sum(field[1] for field in fields) / 1e9, sum(field[0] for field in fields) / 1e9


def histogram(before, after, name):
    """(upper bound, how many) of each bucket."""
    bounds = []
    for key in after:
        if key.startswith(f"{name}_bucket"):
            bound = key.split('le="')[1].split('"')[0]
            bounds.append((float("inf") if bound == "+Inf" else float(bound), after[key] - before.get(key, 0)))
    bounds.sort()
    counts = [0, *(count for _, count in bounds)]
    return [(bound, count - below) for (bound, count), below in zip(bounds, counts)]


def quantile(buckets, share):
    """The upper bound of the bucket in which it lies."""
    total, below = sum(count for _, count in buckets), 0
    for bound, count in buckets:
        below += count
        if below >= share * total:
            return bound
    return float("inf")


def late(buckets, total):
    """Turns over the bound, and the most that they can have been over it when all turns took `total` seconds."""
    longest = max((bound for bound, _ in buckets if bound != float("inf")), default=0)
    over = [(min(bound, 2 * longest), count) for bound, count in buckets if bound > LAG_SECONDS]
    turns = sum(count for _, count in over)
    return turns, min(sum(count * (bound - LAG_SECONDS) for bound, count in over), total - turns * LAG_SECONDS)


def judge(name, server, options, samples):
    flood, what = ALL[name]
    pair = Pair(server.port)
    before, (queue_before, ran_before) = samples(server), waited(server.pid)
    memory = [server.rss()]
    with attackers(flood, server.port, 1):
        took = pair.go_on(options.seconds, lambda: memory.append(server.rss()))
    after, (queue_after, ran_after) = samples(server), waited(server.pid)
    pair.close()
    buckets = histogram(before, after, "loop_lag_seconds")
    turns, lag = sum(count for _, count in buckets), quantile(buckets, 1 - LATE_SHARE)
    late_turns, over = late(buckets, after["loop_lag_seconds_sum"] - before["loop_lag_seconds_sum"])
    queued = queue_after - queue_before
    bound = after["memory_bound_bytes"] - CONNECTIONS * KERNEL_BYTES
    print(
        f"behaviour: {name} ({what}): {turns:.0f} turns, p99.9 ≤ {lag * 1e3:g} ms, {late_turns:.0f} over 10 ms, "
        f"{(ran_after - ran_before) / max(turns, 1) * 1e6:.0f} µs a turn on the processor, {queued * 1e3:.0f} ms in the run "
        f"queue; good p99 {took[int(len(took) * 0.99)] * 1e3:.1f} ms of {len(took)}; memory {max(memory) >> 20} of "
        f"{int(bound) >> 20} MiB",
        flush=True,
    )
    expect(max(memory) <= bound, f"{max(memory) >> 20} MiB, and the bound is {int(bound) >> 20} MiB")
    if lag > LAG_SECONDS:
        expect(queued >= over, f"{late_turns:.0f} of {turns:.0f} turns were late, and the scheduler is not to blame")


def run(tally, options, samples):
    """One server for all floods: what one leaves behind, the next would show."""
    with Server(config=CONFIG, prompts=False) as server:
        for name in ALL:
            if not options.only or "floods" in options.only or name in options.only:
                tally.run(f"flood: {name}", judge, name, server, options, samples)
