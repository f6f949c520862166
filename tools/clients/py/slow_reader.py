"""One member that never reads, in a room with many others and a fast writer.

    slow_reader.py [--members 200] [--bytes 60000] [--rate 20] [--seconds 5] [--rounds 3] [--check]

Rounds without and with the silent member take turns, so that a noisy machine harms both alike. Printed: the p99 delivery
latency of the others in each round and the ratio of the medians; the server's memory. At the end of its round the silent
member reads again and must get every update once, in order. `--check` is shorter and leaves the ratio unjudged, since a
machine that also builds says nothing about latency.

The members are raw non-blocking sockets in one selector loop: a WebSocket library that copies 200 × 60 kB per update in
Python would measure itself.
"""

import argparse
import json
import selectors
import statistics
import sys
import time

from harness import Server, Tally, equal, expect
from raw_client import Member

PROMPT = "busy"
PATH = f"/ws/prompts/{PROMPT}"
RATIO_MAX = 1.5
MEMORY_MAX = 128 << 20
# The kernel's own buffers may swallow this much before a member that never reads makes itself felt.
KERNEL_BYTES = 1 << 20
CONFIG = """
[limits]
stall = "120s"
ping = "100s"
pong = "100s"
messages_per_second = 0
bytes_per_second = 0
"""


class Load:
    """The others and the writer, in one loop, so that one clock stamps both ends."""

    def __init__(self, server, options):
        self.server = server
        self.options = options
        self.padding = "x" * options.bytes
        self.selector = selectors.DefaultSelector()
        self.members = [Member(server.port, PATH) for _ in range(options.members)]
        self.writer = Member(server.port, PATH)
        for member in [*self.members, self.writer]:
            member.next_text()
            member.socket.setblocking(False)
            self.selector.register(member.socket, selectors.EVENT_READ, member)
        self.number = 0
        self.sent_at = {}
        self.acknowledged = 0
        self.seen = {member: 0 for member in self.members}
        self.latencies = []
        self.rss_max = 0

    def round(self, seconds):
        """Writes at the asked rate for a while, then waits until everybody has everything. Returns the latencies."""
        self.latencies = []
        begun = time.monotonic()
        due = begun
        first = self.number
        while (now := time.monotonic()) < begun + seconds:
            # A late writer does not catch up in a burst: that would measure itself.
            if now >= due and self.acknowledged == self.number:
                due = max(due + 1 / self.options.rate, now)
                self.write()
            self.turn(max(0.0, min(due - time.monotonic(), 0.05)))
        deadline = time.monotonic() + 30
        while self.acknowledged < self.number or any(seen < self.number for seen in self.seen.values()):
            behind = sum(seen < self.number for seen in self.seen.values())
            expect(time.monotonic() < deadline, f"{behind} of {len(self.members)} members did not get everything")
            self.turn(0.05)
        equal(len(self.latencies), (self.number - first) * len(self.members), "deliveries")
        return self.latencies

    def write(self):
        self.number += 1
        content = json.dumps({"action": "update", "content": f"#{self.number}#{self.padding}", "id": f"n{self.number}"})
        self.writer.socket.setblocking(True)
        self.sent_at[self.number] = time.monotonic()
        self.writer.send(content.encode())
        self.writer.socket.setblocking(False)
        self.rss_max = max(self.rss_max, self.server.rss())

    def turn(self, wait):
        for key, _ in self.selector.select(wait):
            member = key.data
            member.receive()
            for opcode, payload in member.frames():
                if opcode != 1:
                    member.answer(opcode, payload)
                elif member is self.writer:
                    self.acknowledge(payload)
                else:
                    self.deliver(member, payload)

    def acknowledge(self, payload):
        status = json.loads(payload)
        equal((status["action"], status["success"]), ("update_status", True), "answer to the writer")
        self.acknowledged += 1

    def deliver(self, member, payload):
        number = number_of(payload)
        equal(number, self.seen[member] + 1, "the next update of a member")
        self.seen[member] = number
        self.latencies.append(time.monotonic() - self.sent_at[number])


def number_of(payload):
    """Found in the text rather than parsed: 200 × 60 kB of JSON would be the client's time, not the server's."""
    _, number, _ = payload[:200].split(b"#", 2)
    return int(number)


def p99(latencies):
    return sorted(latencies)[int(len(latencies) * 0.99)] * 1000


def silent_round(server, load, seconds):
    """A round with a member that reads its greeting and then nothing until the round is over."""
    silent = Member(server.port, PATH, receive_buffer=4096)
    greeting = silent.next_text()
    first = load.number
    latencies = load.round(seconds)
    written = load.number - first
    expect(written * load.options.bytes > KERNEL_BYTES, "too little was written to make anybody fall behind")
    expect(b'"initial"' in greeting[:200], f"{greeting[:80]}")
    heard = [number_of(silent.next_text()) for _ in range(written)]
    equal(heard, list(range(first + 1, load.number + 1)), "what the silent member got when it read again")
    silent.close()
    return latencies


def measure(options):
    server = Server(config=CONFIG)
    (server.prompts / f"{PROMPT}.md").write_text("#0#nothing yet")
    with server:
        load = Load(server, options)
        load.round(1)
        before = server.rss()
        load.rss_max = before
        without, with_silent = [], []
        for n in range(options.rounds):
            without.append(p99(load.round(options.seconds)))
            with_silent.append(p99(silent_round(server, load, options.seconds)))
            print(f"round {n}: p99 {without[-1]:.1f} ms without, {with_silent[-1]:.1f} ms with a silent member", flush=True)
        ratio = statistics.median(with_silent) / statistics.median(without)
        grown = load.rss_max - before
        print(f"{load.number} updates of {options.bytes} bytes to {options.members} members: p99 ratio {ratio:.2f}", flush=True)
        print(f"memory {before >> 20} MiB before, {load.rss_max >> 20} MiB at most", flush=True)
        expect(grown < MEMORY_MAX, f"memory grew by {grown >> 20} MiB")
        if not options.check:
            expect(ratio <= RATIO_MAX, f"p99 ratio {ratio:.2f} is above {RATIO_MAX}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--bytes", type=int, default=60_000)
    parser.add_argument("--rate", type=float, default=20, help="updates per second")
    parser.add_argument("--seconds", type=float, default=5, help="of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="short, and judge everything but the latency")
    options = parser.parse_args()
    if options.check:
        options.seconds, options.rounds = min(options.seconds, 3), 1
    tally = Tally()
    tally.run("a member that never reads", measure, options)
    tally.finish()


if __name__ == "__main__":
    sys.exit(main())
