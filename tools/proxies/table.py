"""The threat table as data: what a stranger may send at the door (PROMISES.md, rows 1-38), what clients may send behind it
(rows 40-52), and what each is answered with directly.

A proxy may answer in our place, and may mend what it forwards. `Row.mended` names the proxies that do: through them the row
is a good handshake, and is judged as one. Any other answer through a proxy must be a refusal, ours or the proxy's own.
"""

from dataclasses import dataclass, field

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HOST = "app.example.com"
TARGET = "/v1/connect"
SMUGGLED = "smuggled"
API_KEY = "the smuggler knows even a key"
BODY = f'{{"room":"{SMUGGLED}","type":"x","data":{{}}}}'
# A second request that none of the recipes passes on: the room is there only if the bytes behind a handshake were taken for
# a request of their own, past the proxy's rules.
SECOND = (
    f"POST /v1/publish HTTP/1.1\r\nHost: {HOST}\r\nX-API-Key: {API_KEY}\r\n"
    f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}"
)


@dataclass(frozen=True)
class Row:
    number: int
    what: str
    bytes: bytes
    status: int
    reason: str = ""
    # Proxies through which it becomes a good request.
    mended: tuple = field(default=())
    # Proxies that speak HTTP/2 to whoever begins it: a language of their own with the client, of which we see nothing.
    http2: tuple = field(default=())


def handshake(target=TARGET, fields="", host=HOST):
    return (
        f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    )


def but(old, new, fields=""):
    """A good handshake with one thing changed."""
    good = handshake(fields=fields)
    assert old in good, f"{old!r} is not in the handshake: the row would test nothing"
    return good.replace(old, new, 1)


def with_fields(fields):
    return handshake(fields=fields)


def method(name):
    return but("GET ", f"{name} ")


def rows():
    """Every handshake of the table, ours first."""
    key = f"Sec-WebSocket-Key: {KEY}\r\n"
    both = "Upgrade: websocket\r\nConnection: Upgrade"
    # A proxy writes the list headers anew from its own recipe, and speaks its own HTTP version to us.
    every = ("nginx", "haproxy")
    table = [
        (0, "a good handshake", handshake(), 101),
        (0, "a query", handshake(TARGET + "?a=b"), 101),
        (1, "a head without an end", head_of(9000)[:8500], 431, "head_too_big"),
        (1, "a target of 3,000 bytes", handshake(TARGET + "?" + "q" * 3000), 414, "target_too_long"),
        (1, "a line of 4 KiB and more", with_fields(f"x: {'y' * 4200}\r\n"), 431, "head_too_big"),
        (2, "65 header lines", with_fields("x: y\r\n" * 60), 431, "headers"),
        (5, "three empty lines before it", "\r\n\r\n\r\n" + handshake(), 400, "syntax", every),
        (5, "endless empty lines", "\r\n" * 3000, 400, "syntax"),
        (6, "a bare LF", but("\r\nUpgrade", "\nUpgrade"), 400, "syntax", every),
        (6, "LF and LF at the end", but(f"{KEY}\r\n\r\n", f"{KEY}\n\n"), 400, "syntax", every),
        (6, "a bare CR", with_fields("x: a\rb\r\n"), 400, "syntax"),
        (6, "a NUL", with_fields("x: a\0b\r\n"), 400, "syntax"),
        (6, "a folded line", with_fields("x: a\r\n b\r\n"), 400, "syntax", ("haproxy",)),
        (6, "a space before the colon", with_fields("x : a\r\n"), 400, "syntax"),
        (6, "an empty name", with_fields(": a\r\n"), 400, "syntax"),
        (6, "no colon", with_fields("x\r\n"), 400, "syntax", ("nginx",)),
        (6, "two spaces", but("GET /", "GET  /"), 400, "syntax", every),
        (6, "a tab", but("GET /", "GET\t/"), 400, "syntax", ("haproxy",)),
        (6, "something behind the version", but("HTTP/1.1\r", "HTTP/1.1 x\r"), 400, "syntax"),
        (7, "no host", but(f"Host: {HOST}\r\n", ""), 400, "host"),
        (7, "an empty host", but(f"Host: {HOST}", "Host: "), 400, "host"),
        (7, "two hosts", with_fields("Host: other.example\r\n"), 400, "host"),
        (7, "a host with a path", but(f"Host: {HOST}", f"Host: {HOST}/admin"), 400, "host"),
        (7, "a host with a user", but(f"Host: {HOST}", f"Host: a@{HOST}"), 400, "host"),
        (8, "a Content-Length", with_fields(f"Content-Length: {len(SECOND)}\r\n") + SECOND, 400, "body"),
        (8, "a Transfer-Encoding", with_fields("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n" + SECOND, 400, "body", ("nginx",)),
        (8, "both", with_fields("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + SECOND, 400, "body"),
        (8, "an odd Transfer-Encoding", with_fields("Transfer-Encoding: xchunked\r\n") + SECOND, 400, "body"),
        (8, "two lengths", with_fields("Content-Length: 0\r\nContent-Length: 99\r\n") + SECOND, 400, "syntax"),
        (8, "a signed length", with_fields("Content-Length: +0\r\n"), 400, "syntax"),
        (9, "POST", method("POST"), 405, "method"),
        (9, "PUT", method("PUT"), 405, "method"),
        (9, "get", method("get"), 405, "method"),
        (9, "CONNECT", but("GET /v1/connect", "CONNECT test:80"), 400, "target"),
        (9, "HTTP/1.0", but("HTTP/1.1", "HTTP/1.0"), 505, "http_version", ("nginx",)),
        (9, "the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version", (), ("haproxy",)),
        (9, "h2c", but(both, "Upgrade: h2c\r\nConnection: Upgrade, close"), 426, "not_an_upgrade"),
        (10, "version 8", but("n: 13", "n: 8") + SECOND, 426, "version"),
        (10, "no version", but("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: "), 426, "version"),
        (11, "no key", but(key, ""), 400, "key"),
        (11, "a key of 15 bytes", but(KEY, "AAAAAAAAAAAAAAAAAAAA"), 400, "key"),
        (11, "a key that is no base64", but(KEY, "!!!!!!!!!!!!!!!!!!!!!!=="), 400, "key"),
        (11, "two keys", with_fields(key), 400, "key"),
        (12, "mixed case", but("Upgrade: websocket", "Upgrade: WebSocket"), 101),
        (12, "a list", but("Upgrade: websocket", "Upgrade: websocket, foo"), 101),
        (12, "no Connection", but("Connection: Upgrade\r\n", ""), 426, "not_an_upgrade", ("nginx",)),
        (13, "a request behind an unknown path", handshake("/v1/connect/nowhere") + SECOND, 404, "unknown_path"),
        (13, "a request behind an unknown prompt", handshake("/ws/prompts/nowhere") + SECOND, 403, "unknown_prompt"),
        (16, "an absolute target", handshake(f"http://{HOST}{TARGET}"), 400, "target", ("nginx",)),
        (16, "a fragment", handshake("/v1/connect#x"), 400, "target"),
        (16, "dots", handshake("/v1/../v1/connect"), 400, "target"),
        (16, "escaped dots", handshake("/ws/%2e%2e/v1/connect"), 400, "target"),
        (16, "two slashes", handshake("/v1//connect"), 404, "unknown_path"),
        (16, "an escaped letter", handshake("/v1/%63onnect"), 404, "unknown_path"),
        (17, "10,000 offers", with_fields("Sec-WebSocket-Extensions: " + ",".join(["a"] * 10000) + "\r\n"), 431, "head_too_big"),
        (17, "offers we do not know", with_fields("Sec-WebSocket-Extensions: x-a; b=1\r\nSec-WebSocket-Protocol: mqtt\r\n"), 101),
        (18, "a path of others", handshake("/ws/mqtt"), 404, "unknown_path"),
        (19, "an expectation", with_fields("Expect: 100-continue\r\n"), 417, "expectation", ("nginx",)),
        (20, "a TLS ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "syntax"),
        (20, "64 NULs", b"\0" * 64, 400, "syntax"),
        (22, "an origin without a place", with_fields("Origin: null\r\n"), 403, "origin"),
        (23, "a foreign origin", with_fields("Origin: https://evil.net\r\n"), 403, "origin"),
        (23, "an origin that begins like ours", with_fields(f"Origin: https://{HOST}.evil.net\r\n"), 403, "origin"),
        (23, "our origin", with_fields(f"Origin: https://{HOST}\r\n"), 101),
        (24, "two origins", with_fields(f"Origin: https://{HOST}\r\nOrigin: https://evil.net\r\n"), 403, "origin"),
        (24, "two origins, ours last", with_fields(f"Origin: https://evil.net\r\nOrigin: https://{HOST}\r\n"), 403, "origin"),
        (24, "the older name of it", with_fields(f"Sec-WebSocket-Origin: https://{HOST}\r\nOrigin: https://evil.net\r\n"), 403, "origin"),
    ]
    return [Row(number, what, raw(sent), *rest) for number, what, sent, *rest in table]


def raw(text):
    return text if isinstance(text, bytes) else text.encode()


def head_of(size):
    """A head of so many bytes in lines that are short enough."""
    lines = size // 1000
    return with_fields("".join(f"x{number}: {'y' * 990}\r\n" for number in range(lines)))


def frame(first, payload=b"", mask=True):
    """One client frame; the mask is zero, so that the payload is what is seen."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    else:
        length = b"\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x7f" + size.to_bytes(8, "big")
    return bytes([first, length[0] | (0x80 if mask else 0)]) + length[1:] + (bytes(4) if mask else b"") + payload


TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A


@dataclass(frozen=True)
class Stream:
    number: int
    what: str
    bytes: bytes
    code: int
    reason: str


def streams():
    """What an accepted client may send, and the close that answers it."""
    long = lambda size: b"\xff" + size.to_bytes(8, "big")  # noqa: E731
    table = [
        (40, "text without a mask", frame(TEXT, b"hi", mask=False), 1002, "mask"),
        (40, "a ping without a mask", frame(PING, mask=False), 1002, "mask"),
        (41, "a reserved bit", frame(TEXT | 0x40, b"x"), 1002, "reserved_bits"),
        (41, "a reserved opcode", frame(0x83, b"x"), 1002, "reserved_opcode"),
        (41, "a reserved control opcode", frame(0x8B), 1002, "reserved_opcode"),
        (42, "the top bit of a length", bytes([TEXT]) + long(1 << 63), 1002, "length_top_bit"),
        (42, "64 bits for a short length", bytes([TEXT]) + long(100), 1002, "length_not_minimal"),
        (42, "16 bits for a short length", bytes([TEXT]) + b"\xfe\x00\x7d", 1002, "length_not_minimal"),
        (43, "beyond every limit", bytes([TEXT]) + long(16 * 1024 * 1024 + 1), 1009, "message_too_big"),
        (45, "a long ping", frame(PING, b"x" * 126), 1002, "control_too_long"),
        (45, "a ping in fragments", frame(0x09), 1002, "control_fragmented"),
        (49, "a message inside a message", frame(0x01, b"a") + frame(TEXT, b"b"), 1002, "interleaved_message"),
        (49, "a continuation of nothing", frame(0x80, b"a"), 1002, "continuation_without_start"),
        (50, "text that is no UTF-8", frame(TEXT, b"\xff"), 1007, "utf8"),
        (50, "half a character at the end", frame(0x01, b"\xc3") + frame(0x80), 1007, "utf8"),
        (51, "a close of one byte", frame(CLOSE, b"\x03"), 1002, "close_payload"),
        (51, "a close with a reserved code", frame(CLOSE, (1005).to_bytes(2, "big")), 1002, "close_code"),
        (51, "a close with a reason that is no text", frame(CLOSE, b"\x03\xe8\xff"), 1007, "utf8"),
    ]
    return [Stream(*row) for row in table]


# Row 37: lines of X-Forwarded-For that a client sends, none of which may name it.
SPOOFED = ["6.6.6.6", "127.0.0.1", "6.6.6.6, 7.7.7.7", "unknown", "::1", "", "6.6.6.6" + " " * 500]
