"""No secret in any log line, metric, error body, close reason, listing or file of the server's (PROMISES.md S6).

    secrets_suite.py [--plant]

Marks of their own are sent through every door, good credentials and bad ones, at log level trace, in both log formats and
both refusal styles; then everything that the server printed, returned, exposed or stored is searched for them: as they are,
in base64 (at each alignment), in hexadecimal, percent-encoded or JSON-escaped, and for every part of twelve characters.
`--plant` puts one such part into the log, to see that the suite fails.

Secret are: tokens, cookies, API keys, keys of the configuration, the values of a query, and whatever stands where one of
these belongs, well-formed or not. Not secret, and shown on purpose: paths, origins, addresses, names of users and rooms,
and ids (of operations, of connections, `jti`, `kid`). Three things are said back to the peer who said them, and to nobody
else, because their protocol asks for it: a ping's payload, a close frame's reason, and a subprotocol that was offered alone.

Standard library only.
"""

import base64
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

from harness import Server, Tally, equal, expect, program, signed

PART = 12
WAIT_SECONDS = 10
PAGE = "https://app.example"
SEED = int(os.environ.get("COMMITCAST_SEED", time.time_ns() % 1_000_000))
DICE = random.Random(SEED)


def mark():
    """Nothing that anybody would print by chance."""
    return "".join(DICE.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(40))


# --- the search ---


def forms(secret):
    """Every way to write it that a careless line could use."""
    raw = secret.encode()
    yield secret
    yield raw.hex()
    yield raw.hex().upper()
    for shift in range(3):
        # The first and the last characters depend on what stands beside it.
        text = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")[4 if shift else 0 : -1]
        yield text
        yield text.replace("+", "-").replace("/", "_")


def parts(text):
    return (text[at : at + PART] for at in range(len(text) - PART + 1))


def plain(text):
    """Percent-encoded and JSON-escaped text as it was meant."""
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text).replace("\\/", "/")
    return urllib.parse.unquote(text, errors="replace")


class Search:
    def __init__(self):
        self.parts = {}
        # Most refusals are the same one. What was clean before a secret existed cannot hold it.
        self.clean = set()

    def add(self, door, secret):
        for form in forms(secret):
            for part in parts(form):
                self.parts.setdefault(part, door)

    def find(self, where, text):
        """Whose secret stands in this text, and where."""
        found = []
        if text in self.clean:
            return found
        for spelled in {text, plain(text)}:
            for at, part in enumerate(parts(spelled)):
                door = self.parts.get(part)
                if door is not None:
                    found.append(f"{where}: {door}: …{spelled[max(0, at - 60) : at + PART]}…")
                    break
        if not found:
            self.clean.add(text)
        return found


def the_search_finds_what_is_planted():
    secret = mark() + "/+é~"
    search = Search()
    search.add("planted", secret)
    middle = secret[9:33]
    for how, text in [
        ("plain", middle),
        ("the shortest part", secret[20 : 20 + PART]),
        ("base64", base64.b64encode(f'{{"sub":"{middle}"}}'.encode()).decode()),
        ("base64, one further", base64.b64encode(f'{{"sub_":"{middle}"}}'.encode()).decode()),
        ("base64, two further", base64.b64encode(f'{{"sub__":"{middle}"}}'.encode()).decode()),
        ("of URLs", base64.urlsafe_b64encode(secret.encode()).decode()),
        ("hexadecimal", middle.encode().hex()),
        ("percent-encoded", "".join(f"%{byte:02x}" for byte in middle.encode())),
        ("JSON-escaped", "".join(f"\\u{ord(letter):04x}" for letter in middle)),
    ]:
        expect(search.find("here", f"a line with {text} in it"), f"{how} is not found")
    expect(not search.find("here", f"a line with {secret[20 : 19 + PART]} in it"), "eleven characters are found")


def complain(found):
    """Each once: one careless line is written a hundred times."""
    leaks = list(dict.fromkeys(leak.split(": …")[0] for leak in found))
    first = [next(leak for leak in found if leak.startswith(f"{door}: …")) for door in leaks[:20]]
    expect(not found, lambda: f"{len(found)} leaks through {len(leaks)} doors:\n  " + "\n  ".join(first))


# --- one exchange ---


def frame(first, payload, masked=True):
    key = bytes([0x37, 0xFA, 0x21, 0x3D])
    length = len(payload)
    if length < 126:
        size = bytes([length])
    else:
        size = b"\x7e" + struct.pack(">H", length) if length < 65536 else b"\x7f" + struct.pack(">Q", length)
    if not masked:
        return bytes([first]) + size + payload
    size = bytes([size[0] | 0x80]) + size[1:]
    return bytes([first]) + size + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def text(message):
    return frame(0x81, (message if isinstance(message, str) else json.dumps(message)).encode())


def goodbye(reason=b""):
    return frame(0x88, struct.pack(">H", 1000) + reason)


def exchange(port, head, frames=()):
    """Everything that the server says until it ends the stream. Frames are sent behind a 101."""
    said = bytearray()
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as peer:
        peer.sendall(head.encode("latin-1") if isinstance(head, str) else head)
        followed = False
        try:
            while piece := peer.recv(65536):
                said += piece
                if not followed and said.startswith(b"HTTP/1.1 101") and b"\r\n\r\n" in said:
                    followed = True
                    peer.sendall(b"".join(frames) + goodbye())
        except ConnectionResetError:
            pass  # it had enough of what we sent, and what it said before is here
    return said.decode("latin-1")


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def socket_head(path, *fields):
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n{UPGRADE}" + "".join(f"{field}\r\n" for field in fields) + "\r\n"


def request(method, path, *fields, body=""):
    head = f"{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {len(body.encode())}\r\n"
    return head + "".join(f"{field}\r\n" for field in fields) + "\r\n" + body


# --- the doors ---

PLACES = [
    "/ws/prompts/readme",
    "/ws/workflow/w",
    "/ws",
    "/ws/logs",
    "/api/v1/ws/?session_id=0af0bd5c-0000-4000-8000-00000000000a",
    "/v1/connect",
    "/nowhere",
]


class House:
    """What a server of this suite knows, and what is told it."""

    def __init__(self):
        self.search = Search()
        self.secret = self.secret_of("the configuration's secret")
        self.file = self.secret_of("a key file")
        self.key = self.secret_of("an API key")
        self.other_key = self.secret_of("another API key")
        self.count = 0

    def secret_of(self, door):
        secret = mark()
        self.search.add(door, secret)
        return secret

    def config(self, style):
        return (
            f'[auth]\nmode = "token"\nhs256_secret = "{self.secret}"\ncookie = "session"\n'
            'keys = [{ kid = "file", algorithm = "HS256", path = "file.key" }]\n'
            f'api_keys = [{{ name = "worker", key = "{self.key}", rights = ["*"] }}, '
            f'{{ name = "other", key = "{self.other_key}", rights = ["read:none"] }}]\n'
            f'[origins]\nallow = ["{PAGE}"]\n[refuse]\nstyle = "{style}"\n[limits]\nmessage = "64KiB"\n'
            '[proxy]\ntrusted = ["127.0.0.1/32"]\n'
        )

    def token(self, door, secret=None, **claims):
        """Good, unless its claims say otherwise; its signature and its claims are the secret."""
        self.count += 1
        rooms = {"*": ["read", "write", "signal", "presence", "approve"]}
        claims = {"sub": "ann", "user_id": "ann", "exp": int(time.time()) + 600, "jti": f"t-{self.count}", "rooms": rooms, **claims}
        token = signed(secret or self.secret, **claims)
        self.search.add(door, token.split(".")[2])
        # The head of every token is the same, and is no secret; the claims of most begin alike.
        return token

    def shown(self, door):
        """What may be shown in place of a credential: (what it is, the text)."""
        bad = lambda what: self.secret_of(f"{door}, {what}")
        yield "good", self.token(f"{door}, a good token")
        yield "expired", self.token(f"{door}, an expired token", exp=1)
        yield "of another key", self.token(f"{door}, another's token", secret=mark())
        yield "without sub", self.token(f"{door}, a token without sub", sub=None)
        yield "nonsense", bad("nonsense")
        yield "three parts", ".".join([bad("a head"), bad("claims"), bad("a signature")])
        yield "too long", bad("too long") * 120
        yield "the API key", self.key
        yield "the secret itself", self.secret


def doors(house):
    """(name, head, frames, whether it is said back to its peer)"""
    for place in PLACES:
        joint = "&" if "?" in place else "?"
        for what, token in house.shown(f"in a header of {place}"):
            bearer = f"Authorization: Bearer {token}"
            yield what, socket_head(place, bearer), [], False
            yield what, socket_head(place, bearer, bearer), [], False
            yield what, socket_head(place, f"Authorization: Basic {token}"), [], False
            yield what, socket_head(place, f"Authorization: {token}"), [], False
            yield what, socket_head(place, f"X-API-Key: {token}"), [], False
            yield what, request("GET", place, bearer), [], False
        for what, token in house.shown(f"as a subprotocol of {place}"):
            yield what, socket_head(place, f"Sec-WebSocket-Protocol: bearer.{token}"), [], True
            yield what, socket_head(place, f"Sec-WebSocket-Protocol: v1, bearer.{token}"), [], False
        for what, token in house.shown(f"as a cookie of {place}"):
            cookie = f"Cookie: theme=dark; session={token}; other={token}"
            yield what, socket_head(place, cookie, f"Origin: {PAGE}"), [], False
            yield what, socket_head(place, cookie, "Origin: https://evil.example"), [], False
            yield what, socket_head(place, cookie), [], False
        for what, token in house.shown(f"in the query of {place}"):
            for name in ["token", "%74oken", "access_token", "jwt", "api_key"]:
                if len(token) < 1500:
                    yield what, socket_head(f"{place}{joint}{name}={token}"), [], False
            yield what, socket_head(f"{place}{joint}token={token[:900]}&token={token[:900]}"), [], False
            yield what, request("GET", f"{place}{joint}token={token}"), [], False

    # The first message, a later one, and what should have been one.
    for what, token in house.shown("in band"):
        auth = {"op": "auth", "token": token}
        yield what, socket_head("/v1/connect"), [text(auth), text({"op": "ping"})], False
        good = f"Authorization: Bearer {house.token('in band, behind a good one')}"
        yield what, socket_head("/v1/connect", good), [text(auth), text(auth)], False
        broken = json.dumps(auth)[:-2]
        for message in [broken, broken + "}}", json.dumps([auth]), json.dumps({**auth, "token": [token]}), token]:
            yield what, socket_head("/v1/connect"), [text(message)], False
        raw = json.dumps(auth).encode()
        for malformed in [
            frame(0x82, raw),
            frame(0x81, raw, masked=False),
            frame(0xC1, raw),
            frame(0x83, raw),
            frame(0x81, b"\xff" + raw),
            frame(0x01, raw) + frame(0x81, raw),
            frame(0x80, raw),
            frame(0x81, raw * (70_000 // len(raw) + 1)),
            frame(0x89, raw * (200 // len(raw) + 1)),
        ]:
            yield what, socket_head("/v1/connect"), [malformed], False
        for place in PLACES[:5]:
            good = f"Authorization: Bearer {house.token('a page')}"
            yield what, socket_head(place, good), [text(auth), text(broken), text(token), frame(0x82, token.encode())], False
    said_back = house.secret_of("said back")
    yield "a ping and a close", socket_head("/v1/connect"), [frame(0x89, said_back.encode()), goodbye(said_back.encode())], True

    # Backends.
    for what, key in [("good", house.key), ("of few rights", house.other_key), ("nonsense", house.secret_of("a bad API key"))]:
        for field in [f"X-API-Key: {key}", f"Authorization: Bearer {key}"]:
            for path in ["/v1/connections", "/v1/rooms", "/v1/revocations", "/v1/tasks", "/v1/rooms/r/events", "/v1/nowhere"]:
                yield what, request("GET", path, field), [], False
                yield what, request("GET", path, field, field), [], False
                yield what, request("GET", f"{path}?key={key}&api_key={key}"), [], False
            yield what, socket_head("/v1/backend", field), [text({"op": "status", "key": key}), text(f'{{"op":"{key}')], False
            for path in ["/v1/publish", "/v1/batch", "/v1/sessions", "/v1/approvals", "/v1/revocations"]:
                for body in [f'{{"key":"{key}"', f'{{"key":"{key}","key":"{key}"}}', key, json.dumps({"token": key})]:
                    yield what, request("POST", path, field, body=body), [], False
    body = house.secret_of("in a body")
    good = f"Authorization: Bearer {house.token('with a body')}"
    for method, path in [("POST", "/api/prompts/"), ("PUT", "/api/prompts/readme"), ("POST", "/tickets/create")]:
        yield "a broken body", request(method, path, good, body=f'{{"token":"{body}"'), [], False
        yield "a body too deep", request(method, path, good, body="[" * 200 + f'"{body}"'), [], False

    # Heads that are none.
    for number in range(2):
        secret = house.secret_of("in a malformed head")
        yield "no head", f"{secret}\r\n\r\n", [], False
        yield "a target", f"GET {secret} HTTP/1.1\r\nHost: a\r\n\r\n", [], False
        yield "a fragment", f"GET /#{secret} HTTP/1.1\r\nHost: a\r\n\r\n", [], False
        yield "a version", f"GET / {secret}\r\nHost: a\r\n\r\n", [], False
        yield "a method", f"{secret} / HTTP/1.1\r\nHost: a\r\n\r\n", [], False
        yield "a name", request("GET", "/health", f"Authorization : Bearer {secret}"), [], False
        yield "a value", request("GET", "/health", f"Authorization: Bearer {secret}\0"), [], False
        yield "a host", f"GET / HTTP/1.1\r\nHost: {secret}@a\r\n\r\n", [], False
        yield "an expectation", request("GET", "/health", f"Expect: {secret}"), [], False
        yield "a length", f"POST /v1/publish?token={secret} HTTP/1.1\r\nHost: a\r\nContent-Length: {secret}\r\n\r\n", [], False
        yield "a key", socket_head("/v1/connect", f"Sec-WebSocket-Key: {secret}"), [], False
        yield "an extension", socket_head("/v1/connect", f"Sec-WebSocket-Extensions: {secret}; a={secret}"), [text({})], False
        yield "an address", socket_head("/v1/connect", f"X-Forwarded-For: {secret}"), [text({"op": "ping"})], False
        yield "a check", request("GET", f"/api/debug/websocket-check?token={secret}", f"Cookie: a={secret}", good), [], False
        for path in ["/health", "/healthz", "/readyz", "/metrics", "/", "/openapi.json", "/console"]:
            yield path, request("GET", f"{path}?token={secret}", f"Authorization: Bearer {secret}", f"Cookie: a={secret}"), [], False


EXPOSED = ["/metrics", "/health", "/readyz", "/", "/openapi.json", "/asyncapi.json", "/console", "/api/v1/metrics"]
LISTED = ["/v1/connections", "/v1/rooms", "/v1/revocations", "/v1/rooms/doc%3Areadme/events"]


def nothing_is_told(style, log_format, plant):
    house = House()
    found = []
    server = Server(house.config(style), ["--log-level", "trace", "--log-format", log_format, "--reactors", "2"], prompts=False)
    (server.dir / "file.key").write_text(house.file + "\n")
    with server:
        good = {"Authorization": f"Bearer {house.token('at the beginning')}"}
        backend = {"X-API-Key": house.key}
        prompt = {"directory": "", "name": "readme", "content": "text"}
        equal(server.request("POST", "/api/prompts/", prompt, good)[0], 201, "a prompt")
        session = {"id": "0af0bd5c-0000-4000-8000-00000000000a", "user_id": "ann"}
        equal(server.request("POST", "/v1/sessions", session, backend)[0], 201, "a session")
        let_in = told = 0
        for what, head, frames, says_back in doors(house):
            said = exchange(server.port, head, frames)
            told += 1
            let_in += said.startswith("HTTP/1.1 101") or said.startswith("HTTP/1.1 2")
            if not says_back:
                found += house.search.find(f"the answer to {what}", said)
        expect(told > 1000 and let_in > 200, f"{told} doors were tried, {let_in} let somebody in: no test of anything")
        # While somebody is there to be listed.
        with socket.create_connection(("127.0.0.1", server.port), WAIT_SECONDS) as peer:
            token = house.token("of somebody who is listed")
            peer.sendall(socket_head("/v1/connect", f"Authorization: Bearer {token}").encode())
            while b'"op":"hello"' not in (said := peer.recv(65536)):
                expect(said, "the socket that was to be listed was refused")
            answers = [server.get(path) for path in EXPOSED] + [server.get(path, headers=backend) for path in LISTED]
            expect('"user": "ann"' in json.dumps(answers[len(EXPOSED)][2]), "nobody is listed")
        # A revoked and a removed credential, a configuration that is refused and one that is taken.
        revoked = house.token("revoked", jti="t-revoked")
        equal(server.request("POST", "/v1/revocations", {"jti": "t-revoked"}, backend)[0], 201, "a revocation")
        answers.append(server.get("/api/prompts/all", headers={"Authorization": f"Bearer {revoked}"}))
        equal(answers[-1][0], 401, "a revoked token")
        for config in faulty(house):
            reload(server, config, "was not changed")
        reload(server, house.config(style).replace(house.other_key, house.secret_of("a new API key")), "read again")
        equal(server.stop(), 0, "exit code")
        log = server.log.read_text(errors="replace")
        if plant:
            log += f"\na careless line: {base64.b64encode(house.secret.encode()).decode()[8 : 8 + PART + 2]}\n"
        expect(log.count("\n") > 1000, f"the log was not at work: {log.count(chr(10))} lines")
        for line in log.splitlines():
            found += house.search.find("the log", line)
        for status, headers, body in answers:
            found += house.search.find("what is exposed", f"{status} {headers} {body if isinstance(body, str) else json.dumps(body)}")
        for file in server.data.iterdir():
            found += house.search.find(f"the file {file.name}", file.read_bytes().decode("latin-1"))
    print(f"behaviour: {style}, {log_format}: {told} doors tried, {let_in} let in, {log.count(chr(10))} lines of log", flush=True)
    complain(found)


def reload(server, config, until):
    server.config.write_text(config)
    before = server.log.read_text(errors="replace").count(until)
    server.process.send_signal(1)
    deadline = time.monotonic() + WAIT_SECONDS
    while server.log.read_text(errors="replace").count(until) == before:
        expect(time.monotonic() < deadline, f"the server never said that its configuration {until}")
        time.sleep(0.01)


# --- what is said of a configuration ---


def faulty(house):
    """Wrong in the line of a secret, or beside it."""
    secret = house.secret_of("a faulty configuration")
    head = '[auth]\nmode = "token"\n'
    yield f'{head}hs256_secret = "{secret}\n'
    yield f"{head}hs256_secret = {secret}\n"
    yield f'{head}hs256_secret = ["{secret}"]\n'
    yield f'{head}hs256_secret = {{ a = "{secret}" }}\n'
    yield f'{head}hs256_secret = "{secret}" "{secret}"\n'
    yield f'{head}hs256_secret = "{secret}"\nhs256_secret = "{secret}"\n'
    yield f'{head}hs256_secre = "{secret}"\n'
    yield f'{head}hs256_secret = "-----BEGIN PUBLIC KEY-----{secret}"\n'
    yield f'{head}x = "{secret}"\n'
    for key in [
        f'{{ nam = "a", key = "{secret}", rights = [] }}',
        f'{{ name = "a", key = "{secret}", rights = ["dance"] }}',
        f'{{ name = "a", key = "{secret}" }}, {{ name = "b", key = "{secret}", rights = [] }}',
        f'{{ name = "a", key = "{secret}", rights = "*" }}',
        f'{{ name = "", key = "{secret}", rights = [] }}',
        f'{{ name = "a", key = ["{secret}"], rights = [] }}',
        f'"{secret}"',
    ]:
        yield f'{head}hs256_secret = "{secret}"\napi_keys = [{key}]\n'
    for key in [
        f'{{ algorithm = "ES256", pem = "{secret}" }}',
        f'{{ algorithm = "none", pem = "{secret}" }}',
        f'{{ algorithm = "HS256", pem = "{secret}", path = "file.key" }}',
        f'{{ algorithm = "HS256", pem = {{ x = "{secret}" }} }}',
        f'{{ kid = "a", algorithm = "HS256", pem = "{secret}" }}, {{ kid = "a", algorithm = "HS256", pem = "{secret}" }}',
        '{ algorithm = "ES256", path = "file.key" }',
    ]:
        yield f"{head}keys = [{key}]\n"


def the_commands_tell_nothing():
    house = House()
    found = []
    # Not started: a directory with a configuration in it.
    server = Server(house.config("http"), prompts=False)
    with server.home:
        (server.dir / "file.key").write_text(house.file + "\n")

        def run(arguments, environment=None, wanted=None):
            command = [str(program()), *arguments]
            ran = subprocess.run(
                command, cwd=server.dir, env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=WAIT_SECONDS
            )
            found.extend(house.search.find(f"commitcast {arguments[0]} ({ran.returncode})", ran.stdout + ran.stderr))
            if wanted is not None:
                equal(ran.returncode, wanted, f"exit code of {arguments[0]}: {ran.stderr}")

        config = ["--config", str(server.config)]
        run(["check-config", *config], wanted=0)
        token = house.token("explained")
        for path in ["/v1/connect", "/ws/prompts/readme", "/v1/rooms", "/nowhere"]:
            for shown in [token, house.secret_of("explained nonsense"), house.key]:
                run(["explain", *config, "--path", f"{path}?token={shown}", "--token", shown])
                run(["explain", *config, "--path", path, "--header", f"X-API-Key: {shown}", "--header", f"Cookie: session={shown}"])
                run(["explain", *config, "--http", "--path", path, "--header", f"X-API-Key: {shown}"])
        secret = house.secret_of("in the environment")
        for name, value in [
            ("COMMITCAST_AUTH__HS256_SECRET", secret),
            ("COMMITCAST_AUTH__HS256_SECRE", secret),
            ("COMMITCAST_AUTH__API_KEYS", secret),
            ("COMMITCAST_AUTH__API_KEYS", f'[{{ name = "a", key = "{secret}"'),
            ("COMMITCAST_AUTH__API_KEYS", f'[{{ nam = "a", key = "{secret}" }}]'),
            ("COMMITCAST_AUTH__KEYS", f'[{{ algorithm = "ES256", pem = "{secret}" }}]'),
        ]:
            run(["check-config", *config], {name: value})
        count = 0
        for text_of_config in faulty(house):
            server.config.write_text(text_of_config)
            run(["check-config", *config], wanted=2)
            run(["serve", *config, "--listen", "127.0.0.1:0"], wanted=2)
            count += 1
    print(f"behaviour: {count} faulty configurations", flush=True)
    complain(found)


def main():
    print(f"seed {SEED}", flush=True)
    plant = "--plant" in sys.argv[1:]
    tally = Tally()
    tally.run("the search finds what is planted", the_search_finds_what_is_planted)
    tally.run("the commands tell nothing", the_commands_tell_nothing)
    for style, log_format in [("http", "text"), ("close", "json")]:
        tally.run(f"nothing is told in style {style}, log in {log_format}", nothing_is_told, style, log_format, plant)
    tally.finish()


if __name__ == "__main__":
    main()
