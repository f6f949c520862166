"""Starts, stops and kills a real server for the suites beside this file, and counts what passed.

Standard library only, so that a suite without `websockets` can use it too. The server is a black box: a program, a
directory, a port.
"""

import asyncio
import atexit
import base64
import hashlib
import hmac
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 20
STOP_SECONDS = 40


def program():
    """The binary under test: $COMMITCAST, or the release build of this clone."""
    if os.environ.get("COMMITCAST"):
        return Path(os.environ["COMMITCAST"])
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "commitcast"


def free_port():
    # Somebody else may take it before the server does; `Server.start` then says so, which is rare and loud.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One server with a data directory and a Markdown directory of its own, both kept over restarts."""

    def __init__(self, config="", arguments=(), prompts=True):
        self.home = tempfile.TemporaryDirectory(prefix="commitcast-")
        self.dir = Path(self.home.name)
        self.data = self.dir / "data"
        self.prompts = self.dir / "prompts"
        self.prompts.mkdir()
        self.log = self.dir / "server.log"
        self.config = self.dir / "commitcast.toml"
        documents = f"[documents]\ndirectories = [{json.dumps(str(self.prompts))}]\n" if prompts else ""
        self.config.write_text(documents + config)
        self.arguments = list(arguments)
        self.port = free_port()
        self.environment = None  # the process's own; ours without one
        self.process = None
        # A suite that fails before its `with` block is entered must not leave a server behind.
        atexit.register(self.kill)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            print(f"--- the server's last words ---\n{self.last_words()}", flush=True)
        self.kill()
        self.home.cleanup()

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        command = [str(program()), "serve", "--config", str(self.config), "--listen", f"127.0.0.1:{self.port}"]
        command += ["--data", str(self.data), *self.arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.dir, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode} at start:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server was not ready within {START_SECONDS} s:\n{self.last_words()}")
            time.sleep(0.01)

    def is_ready(self):
        try:
            return self.get("/readyz", timeout=1)[0] == 200
        except OSError:
            return False

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self):
        """SIGKILL, which no process can prepare for."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def last_words(self, bytes_max=4000):
        return self.log.read_bytes()[-bytes_max:].decode("utf-8", "replace") if self.log.exists() else ""

    def ws(self, path):
        return f"ws://127.0.0.1:{self.port}{path}"

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def request(self, method, path, body=None, headers=None, timeout=10):
        """One HTTP request: (status, headers, parsed JSON or text). Refusals are answers here, not exceptions."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = dict(headers or {})
        if data is not None:
            headers.setdefault("Content-Type", "application/json")
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with OPENER.open(request, timeout=timeout) as response:
                return response.status, response.headers, parsed(response.read())
        except urllib.error.HTTPError as refused:
            return refused.code, refused.headers, parsed(refused.read())

    def rss(self):
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


class Child:
    """A helper process with a process group and a directory of its own, both gone at the end whatever happens."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix=f"commitcast-{type(self).__name__.lower()}-"))
        self.log = self.dir / "log"
        self.process = None
        atexit.register(self.end)

    def spawn(self, command):
        environment = os.environ | {"TMPDIR": str(self.dir)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.dir,
                env=environment,
            )

    def end(self):
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
            self.process = None
        shutil.rmtree(self.dir, ignore_errors=True)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


# No proxy from the environment: the server is here.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)


def parsed(body):
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


class Http:
    """One connection for many requests, one after the other: for suites that ask often, or at the same moment."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port):
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    async def ask(self, method, path, body=None, headers=None):
        """(status, parsed JSON or text). Refusals are answers here, not exceptions."""
        self.send(method, path, body, headers)
        return await self.answer()

    def send(self, method, path, body=None, headers=None):
        """Into the kernel without waiting for anything, so that several connections can be made to ask at once."""
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(data)}"]
        lines += ["Content-Type: application/json"] if data else []
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    async def answer(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        return int(head[0].split()[1]), parsed(await self.reader.readexactly(int(fields.get("content-length", 0))))


PAGE = 500


async def read_events(port, room, after=0, headers=None):
    """Every event of a room's log behind `after`, as backends read it."""
    events = []
    async with await Http.connect(port) as http:
        while True:
            status, page = await http.ask("GET", f"/v1/rooms/{room}/events?after={after}&limit={PAGE}", headers=headers)
            if status == 404:
                return events
            equal(status, 200, f"reading the log of {room}")
            events += page["events"]
            # A page is bounded in bytes too: that it is short says nothing, the head does.
            if not page["events"] or events[-1]["seq"] >= page["head"]:
                return events
            after = events[-1]["seq"]


def signed(secret, **claims):
    """A JWT of these claims, made without the server's help."""
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    seal = hmac.new(secret.encode(), text, hashlib.sha256).digest()
    return (text + b"." + base64.urlsafe_b64encode(seal).rstrip(b"=")).decode()


class Tally:
    """Runs tests one by one and counts. A test is a function that raises when something is wrong."""

    def __init__(self):
        self.passed = 0
        self.failed = []

    def run(self, name, test, *arguments, seconds=60):
        begun = time.monotonic()
        try:
            result = test(*arguments)
            if inspect.isawaitable(result):
                asyncio.run(asyncio.wait_for(result, seconds))
        except Exception as error:  # a suite reports every test, whatever the first one met
            self.failed.append(name)
            print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
            for frame in frames[-3:]:
                print(f"     {Path(frame.filename).name}:{frame.lineno}: {frame.line}", flush=True)
        else:
            self.passed += 1
            print(f"ok   {name} ({time.monotonic() - begun:.2f} s)", flush=True)

    def finish(self):
        """The line that tools/check reads, and the exit code."""
        print(f"{self.passed} passed, {len(self.failed)} failed", flush=True)
        for name in self.failed:
            print(f"  failed: {name}", flush=True)
        sys.exit(1 if self.failed else 0)


def expect(condition, what):
    """Like assert, but never compiled away and always with words."""
    if not condition:
        raise AssertionError(what() if callable(what) else what)


def equal(actual, wanted, what="value"):
    expect(actual == wanted, lambda: f"{what}: wanted {wanted!r}, got {actual!r}"[:600])
