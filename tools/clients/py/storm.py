"""Connects by the thousand, each with an end of its own that dice choose: for suites that then look for what is left behind.

Plain blocking sockets in batches: everybody of a batch dials and says his first words, then everybody is heard, then everybody
ends. Addresses are named in X-Forwarded-For, so that each connection has a place among those of its address; the sockets
themselves come from all over 127.0.0.0/8, or the ports of one address would be used up by connections that have just ended.
"""

import collections
import json
import multiprocessing
import random
import socket
import struct
import time

from harness import expect
from raw_client import frame, handshake

BATCH = 64
ADDRESSES = 4096
SECONDS = 20
RESET = struct.pack("ii", 1, 0)
IP_BIND_ADDRESS_NO_PORT = 24

ROOM = "storm:{}"
BODY = b"POST /api/prompts/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 200000\r\n"


def native(dice, **message):
    return frame(json.dumps(message).encode())


def join(dice):
    return native(dice, op="join", room=ROOM.format(dice.randrange(500)))


def publish(dice):
    room = ROOM.format(dice.randrange(500))
    return native(dice, op="publish", room=room, id=str(dice.getrandbits(60)), type="t", data="x" * dice.randrange(200))


# What is said behind the 101, and how it then ends: name -> (words, end).
OPEN_ENDS = {
    "close": (lambda dice: frame(b"\x03\xe8", 0x88), "heard"),
    "rst": (lambda dice: b"", "rst"),
    "fin": (lambda dice: b"", "fin"),
    "half frame": (lambda dice: frame(b"x" * 500)[: dice.randrange(1, 500)], "either"),
    "mid message": (lambda dice: frame(b"y" * 65536, 0x01) + frame(b"z", 0x00), "either"),
    "joined": (lambda dice: join(dice) + join(dice), "either"),
    "watching": (lambda dice: native(dice, op="join", room="storm:1") + native(dice, op="presence", room="storm:1"), "either"),
    "mid commit": (lambda dice: b"".join(publish(dice) for _ in range(4)), "either"),
    "joined, closes": (lambda dice: join(dice) + publish(dice) + frame(b"\x03\xe8", 0x88), "heard"),
    "broken frame": (lambda dice: b"\xff\x00", "heard"),
    "oversized": (lambda dice: b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"\0\0\0\0", "heard"),
}
def door(fields="", path="/v1/connect"):
    """A handshake that the door refuses, or that is left at the door."""
    return lambda port, shown, dice: handshake(port, path.format(dice.randrange(999)), fields=shown + fields)


def half_head(port, shown, dice):
    return handshake(port, "/v1/connect", fields=shown)[: dice.randrange(1, 120)]


def wrong_token(port, shown, dice):
    return handshake(port, "/v1/connect", fields=shown.replace("Bearer ", "Bearer x"))


def half_body(port, shown, dice):
    return BODY + shown.encode() + b"\r\n" + b"x" * dice.randrange(100_000)


def greedy(port, shown, dice):
    return (f"GET /asyncapi.json HTTP/1.1\r\nHost: x\r\n{shown}\r\n" * 4).encode()


# Ends of those who are never let in: name -> (request, end, status).
DOOR_ENDS = {
    "half head": (half_head, "either", None),
    "wrong token": (wrong_token, "heard", (401, 429)),
    "wrong origin": (door("Origin: http://evil.example\r\n"), "heard", (403,)),
    "unknown prompt": (door(path="/ws/prompts/none{}"), "heard", (403,)),
    "half body": (half_body, "either", None),
    "mid response": (greedy, "rst", None),
    "gone at once": (door(), "rst", None),
}
ENDS = [*OPEN_ENDS, *DOOR_ENDS]


def dial(port, dice):
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((f"127.{dice.randrange(1, 255)}.{dice.randrange(256)}.{dice.randrange(1, 255)}", 0))
    sock.settimeout(SECONDS)
    sock.connect(("127.0.0.1", port))
    return sock


def fields_of(token, dice):
    number = dice.randrange(ADDRESSES)
    return f"Authorization: Bearer {token}\r\nX-Forwarded-For: 10.7.{number >> 8}.{number & 255}\r\n"


def heard_head(sock):
    """The head of a response, byte for byte what is needed: what follows stays in the kernel or is thrown away with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(4096)
        expect(piece, f"the server closed before its answer: {data!r}")
        data += piece
    return int(data.split(b" ", 2)[1])


def end(sock, how, dice):
    if how == "either":
        how = dice.choice(("rst", "fin"))
    if how == "rst":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    elif how == "fin":
        sock.shutdown(socket.SHUT_WR)
    elif how == "heard":
        try:
            while sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
    sock.close()


def batch(port, token, dice, size):
    chosen = [(dice.choice(ENDS), dial(port, dice)) for _ in range(size)]
    for name, sock in chosen:
        fields = fields_of(token, dice)
        request = (DOOR_ENDS[name][0] if name in DOOR_ENDS else door())(port, fields, dice)
        try:
            sock.sendall(request)
        except (ConnectionResetError, BrokenPipeError):
            expect(name == "half body", f"{name}: reset while it said its first words")
    for name, sock in chosen:
        if name in OPEN_ENDS:
            status = heard_head(sock)
            expect(status == 101, f"{name}: answered {status}")
            sock.sendall(OPEN_ENDS[name][0](dice))
        elif DOOR_ENDS[name][2]:
            status = heard_head(sock)
            expect(status in DOOR_ENDS[name][2], f"{name}: answered {status}")
    for name, sock in chosen:
        end(sock, (OPEN_ENDS.get(name) or DOOR_ENDS[name])[1], dice)
    return collections.Counter(name for name, _ in chosen)


def work(port, token, seed, count, results):
    dice = random.Random(seed)
    ends = collections.Counter()
    try:
        while (left := count - sum(ends.values())) > 0:
            ends += batch(port, token, dice, min(BATCH, left))
        results.put((ends, None))
    except Exception as error:  # told to the one who started us, who has the seed
        results.put((ends, f"after {sum(ends.values())} connects: {type(error).__name__}: {error}"))


def storm(port, token, seed, count, workers=2):
    """How many ended in each way, and connects a second."""
    results = multiprocessing.Queue()
    begun = time.monotonic()
    shares = [count // workers + (number < count % workers) for number in range(workers)]
    processes = [
        multiprocessing.Process(target=work, args=(port, token, seed * 1000 + number, share, results), daemon=True)
        for number, share in enumerate(shares)
    ]
    for process in processes:
        process.start()
    ends, faults = collections.Counter(), []
    for _ in processes:
        found, fault = results.get()
        ends += found
        faults += [fault] if fault else []
    for process in processes:
        process.join()
    expect(not faults, f"seed {seed}: {faults}")
    return ends, count / (time.monotonic() - begun)
