"""What compressing a room's messages costs the server, and what it saves on the wire.

    deflate_cost.py [--members 200] [--messages 300] [--size 1024] [--level 1] [--rounds 5]

Two rooms with as many members each: those of one have agreed on permessage-deflate, those of the other have offered nothing. A
writer publishes JSON, the next message when everybody has the one before, and the rooms take turns within a round. CPU is the
server's own (/proc/PID/task/*/schedstat), so what Python costs is not in it; server on one core, this on the other.
"""

import argparse
import json
import os
import random
import select
import socket
import statistics
import struct
import time
from pathlib import Path

from harness import Server, expect

PATIENCE = 20
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
STAGES = ["storyboard", "keyframes", "rendering", "compositing", "sound", "subtitles"]


class Client:
    """A native client on a bare socket, which looks at no more of a frame than where it ends."""

    def __init__(self, port, offer=""):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"GET /v1/connect HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{KEY}"
        self.socket.sendall(f"{head}Sec-WebSocket-Version: 13\r\n{offer}\r\n".encode())
        self.heard = b""
        while b"\r\n\r\n" not in self.heard:
            self.heard += self.socket.recv(65536)
        head, self.heard = self.heard.split(b"\r\n\r\n", 1)
        expect(head.startswith(b"HTTP/1.1 101") and (b"permessage-deflate" in head) == bool(offer), head)
        self.hear()

    def say(self, message):
        payload = json.dumps(message, separators=(",", ":")).encode()
        length = bytes([0x80 | len(payload)]) if len(payload) < 126 else struct.pack("!BH", 0x80 | 126, len(payload))
        self.socket.sendall(b"\x81" + length + bytes(4) + payload)

    def hear(self):
        """Waits for one text."""
        while not (frames := self.frames()):
            self.heard += self.socket.recv(65536)
        return frames

    def read(self):
        """What has come: texts and the bytes they had."""
        self.heard += self.socket.recv(65536)
        return self.frames()

    def frames(self):
        found = []
        while len(self.heard) >= 2:
            short = self.heard[1]
            start = {126: 4, 127: 10}.get(short, 2)
            end = start + (int.from_bytes(self.heard[2:start]) if start > 2 else short)
            if len(self.heard) < max(start, end):
                break
            opcode = self.heard[0] & 15
            if opcode == 9:
                self.socket.sendall(b"\x8a\x80" + bytes(4))
            else:
                expect(opcode == 1, f"opcode {opcode}")
                found.append(end)
            self.heard = self.heard[end:]
        return found


class Room:
    def __init__(self, port, name, offer, members):
        self.name, self.said = name, 0
        self.writer = Client(port)
        self.members = {}
        self.poll = select.epoll()
        for _ in range(members):
            client = Client(port, offer)
            client.say({"op": "join", "room": name})
            client.hear()
            self.members[client.socket.fileno()] = client
            self.poll.register(client.socket, select.EPOLLIN)

    def spread(self, dice, messages, size):
        """Bytes that all members together were sent."""
        total = 0
        for _ in range(messages):
            self.said += 1
            message = {"op": "publish", "room": self.name, "id": str(self.said), "type": "progress", "data": data(dice, size)}
            self.writer.say(message)
            self.writer.hear()
            left, begun = len(self.members), time.monotonic()
            while left:
                expect(time.monotonic() - begun < PATIENCE, f"{left} members were not told of message {self.said}")
                for ready, _ in self.poll.poll(1):
                    frames = self.members[ready].read()
                    left -= len(frames)
                    total += sum(frames)
        return total


def data(dice, size):
    """JSON of the kind that pages are sent while something runs: the same names each time, other values."""
    steps, length = [], 50
    while length < size:
        step = {
            "stage": dice.choice(STAGES),
            "state": "running",
            "progress": round(dice.random(), 3),
            "message": f"shot {dice.randrange(40)} of {40 + dice.randrange(20)}, take {dice.randrange(9)}",
            "cost_usd": round(dice.random() * 7, 2),
        }
        steps.append(step)
        length += len(json.dumps(step, separators=(",", ":"))) + 1
    return {"workflow_id": f"{dice.getrandbits(96):024x}", "steps": steps}


def cpu_seconds(pid):
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def pin(pid, core):
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in [("members", 200), ("messages", 300), ("size", 1024), ("level", 1), ("rounds", 5)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    limits = "[limits]\nmessages_per_second = 0\nbytes_per_second = 0\n"
    config = f"reactors = 1\n{limits}[log]\nlevel = 'warn'\n[deflate]\nenabled = true\nlevel = {options.level}\n"
    dice = random.Random(1)
    cores = sorted(os.sched_getaffinity(0))
    with Server(config, prompts=False) as server:
        if len(cores) > 1:
            pin(server.pid, cores[0])
            os.sched_setaffinity(0, {cores[1]})
        rooms = [
            Room(server.port, name, offer, options.members) for name, offer in [("plain", ""), ("compressed", OFFER)]
        ]
        for room in rooms:
            room.spread(dice, options.messages // 5, options.size)
        ratios = []
        for number in range(1, options.rounds + 1):
            costs, lengths = [], []
            for room in rooms:
                before = cpu_seconds(server.pid)
                deliveries = options.messages * options.members
                lengths.append(room.spread(dice, options.messages, options.size) / deliveries)
                costs.append((cpu_seconds(server.pid) - before) / deliveries * 1e6)
            ratios.append(costs[1] / costs[0])
            print(
                f"round {number}: {costs[0]:.2f} and {costs[1]:.2f} µs of CPU a delivery, ratio {ratios[-1]:.2f}; "
                f"{lengths[0]:.0f} and {lengths[1]:.0f} bytes",
                flush=True,
            )
        print(f"ratio: median {statistics.median(ratios):.2f}, best {min(ratios):.2f}, worst {max(ratios):.2f}")


if __name__ == "__main__":
    main()
