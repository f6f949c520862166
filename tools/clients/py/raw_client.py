"""A WebSocket client on a plain socket: its reads, its buffer and its pace are the caller's own.

For suites that measure, flood or break rules: a library would measure itself, and keep the rules.
"""

import base64
import os
import socket

from harness import expect


def handshake(port, path, key="dGhlIHNhbXBsZSBub25jZQ==", fields=""):
    """The request of an upgrade. `fields` are whole lines."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    ).encode()


def frame(payload, first=0x81):
    """A frame masked with zeros: masking is for proxies, and whoever sends this is to be fast."""
    length = len(payload)
    if length < 126:
        head = bytes([first, 0x80 | length])
    elif length < 1 << 16:
        head = bytes([first, 0xFE]) + length.to_bytes(2, "big")
    else:
        head = bytes([first, 0xFF]) + length.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload


class Member:
    """A WebSocket client that takes frames apart as they come and keeps no more than it must."""

    def __init__(self, port, path, receive_buffer=None, fields=""):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.shake_hands(port, path, fields)

    def shake_hands(self, port, path, fields):
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(handshake(port, path, key, fields))
        while b"\r\n\r\n" not in self.buffer:
            self.receive()
        head, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        expect(head.startswith(b"HTTP/1.1 101"), f"{head[:200]}")
        self.buffer = bytearray(rest)

    def receive(self):
        data = self.socket.recv(1 << 18)
        expect(data, "the server closed the connection")
        self.buffer += data

    def frames(self):
        """The whole frames in the buffer, as (opcode, payload)."""
        while len(self.buffer) >= 2:
            opcode, short = self.buffer[0] & 15, self.buffer[1]
            head = 2 if short < 126 else 4 if short == 126 else 10
            length = short if short < 126 else int.from_bytes(self.buffer[2:head], "big")
            if len(self.buffer) < head + length:
                return
            payload = bytes(self.buffer[head : head + length])
            del self.buffer[: head + length]
            yield opcode, payload

    def next_text(self, seconds=30):
        self.socket.settimeout(seconds)
        while True:
            for opcode, payload in self.frames():
                if opcode == 1:
                    return payload
                self.answer(opcode, payload)
            self.receive()

    def answer(self, opcode, payload):
        expect(opcode != 8, f"closed with {int.from_bytes(payload[:2], 'big')} {payload[2:]!r}")
        if opcode == 9:
            self.send(payload, opcode=10)

    def send(self, payload, opcode=1):
        self.socket.sendall(frame(payload, 0x80 | opcode))

    def close(self):
        self.socket.close()
