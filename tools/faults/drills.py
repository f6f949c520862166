"""Faults of the surroundings, one function each: no space, a slow disk, a foreign lock, no descriptors, a stopped process, a
stepped clock. Each says in `behaviour:` lines what it measured and raises when a promise was not kept."""

import asyncio
import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from faulty import STALL, SYNC, FaultyServer, Server, expect, harness, not_run, variables
from harness import equal, signed
from told import ANSWER_SECONDS, Socket, Told, observe, read, settle, write

from websockets.exceptions import ConnectionClosed

CONFIG = """reactors = 2
[limits]
messages_per_second = 0
bytes_per_second = 0
{limits}
[drain]
window = "{window}"
timeout = "10s"
"""
# A fast machine writes more than is kept by default, and every event is compared.
KEEP_ALL = '[rooms]\nkeep = [{ room = "*", events = 1000000 }]\n'
SOON = 1.0  # what does not touch the store is answered within this, whatever the store does
RECOVERY = {"space": 5.0, "store": 2.0, "descriptors": 1.0}


def config(limits="", more="", window="0s"):
    return CONFIG.format(limits=limits, window=window) + (more if "[rooms]" in more else KEEP_ALL + more)


def say(text):
    print(f"behaviour: {text}", flush=True)


class Company:
    """Clients of one room that go on while something is wrong: writers, an observer, and two who only signal and ping."""

    def __init__(self, server, told, dice):
        self.server, self.told, self.dice = server, told, dice
        self.stop = asyncio.Event()
        self.tasks = []

    async def __aenter__(self):
        self.tasks.append(asyncio.create_task(observe(await Socket.open(self.server, self.told.room), self.told)))
        self.left = await Socket.open(self.server, "talk")
        self.right = await Socket.open(self.server, "talk")
        return self

    async def __aexit__(self, *_):
        self.stop.set()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def start_writers(self, count, window=2, patience=ANSWER_SECONDS):
        writers = []
        for n in range(count):
            name = f"w{n}-{len(self.tasks)}"
            own = random.Random(self.dice.random())
            socket = await Socket.open(self.server)
            writers.append(asyncio.create_task(write(socket, self.told, name, own, self.stop, window, patience)))
        self.tasks += writers
        return writers

    async def talk(self):
        """What needs no store: a signal to a neighbour, a ping; in seconds, the slower of the two."""
        begun = time.monotonic()
        await self.left.say(op="signal", room="talk", data={"at": begun})
        heard = await self.right.hear(SOON)
        equal((heard["op"], heard["data"]), ("signal", {"at": begun}), "a neighbour's signal")
        await self.right.ping(SOON)
        return time.monotonic() - begun

    async def publish(self, seconds=ANSWER_SECONDS):
        """One operation on a socket of its own: the answer, or None where the socket was closed over it."""
        id = f"one-{len(self.told.sent)}"
        self.told.sent[id] = {"id": id}
        socket = await Socket.open(self.server)
        try:
            await socket.publish(self.told, id)
            return (await socket.answer(self.told, seconds))[1]
        except ConnectionClosed:
            equal(socket.close_code(), 1012, "the close of a socket whose operation has no answer")
            return None
        finally:
            socket.drop()

    async def is_stored_within(self, seconds, what):
        """Until a write is taken again."""
        begun = time.monotonic()
        while True:
            frame = await self.publish()
            if frame is not None and frame["op"] == "ok":
                return time.monotonic() - begun
            expect(time.monotonic() - begun < seconds, lambda: f"{what}, and {seconds} s later the answer is {frame}")

    async def everybody_is_at_head(self, seconds=5):
        head = max(self.told.acknowledged.values(), default=0)
        begun = time.monotonic()
        while any(run.last < head for run in self.told.runs):
            expect(time.monotonic() - begun < seconds, f"an observer is not at {head} within {seconds} s")
            await asyncio.sleep(0.005)

    async def finish(self, writers):
        self.stop.set()
        done, late = await asyncio.wait(writers, timeout=ANSWER_SECONDS + 5)
        expect(not late, f"{len(late)} writers are still not answered")
        for task in done:
            task.result()


async def ready(server):
    async with await harness.Http.connect(server.port) as http:
        return (await http.ask("GET", "/readyz"))[0]


def stop_well(server):
    server.process.send_signal(signal.SIGTERM)
    try:
        code = server.process.wait(15)
    except subprocess.TimeoutExpired:
        raise AssertionError("it does not end within 15 s of SIGTERM") from None
    equal(code, 0, "the exit code")


def judge_after_a_kill(server, told, dice):
    """What everybody was told holds against the log that a killed process leaves, and the next one ends in order."""
    server.kill()
    settle_after_restart(server, told, dice)
    stop_well(server)


def settle_after_restart(server, told, dice):
    server.start()
    asyncio.run(settle(server, told, dice))


# --- no space ---


@contextlib.contextmanager
def small_file_system(size=16 << 20):
    """ext4 on a loop device, or memory where there is none; (path, what it is)."""
    if os.geteuid() != 0:
        not_run("mounting a file system of 16 MiB needs root")
    home = Path(tempfile.mkdtemp(prefix="commitcast-disk-"))
    mounted = home / "mounted"
    mounted.mkdir()
    image = home / "image"
    with image.open("wb") as file:
        file.truncate(size)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def succeeds(*command):
        return shutil.which(command[0]) is not None and subprocess.run(command, **quiet).returncode == 0

    try:
        if succeeds("mkfs.ext4", "-q", "-m", "0", str(image)) and succeeds("mount", "-o", "loop", str(image), str(mounted)):
            kind = "ext4"
        elif succeeds("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mounted)):
            kind = "tmpfs"
        else:
            not_run("neither ext4 on a loop device nor tmpfs can be mounted here")
        yield mounted, kind
    finally:
        subprocess.run(["umount", "-l", str(mounted)], **quiet)
        shutil.rmtree(home, ignore_errors=True)


def disk(_, options):
    """L3, threat row 72."""
    cycles = 50 if options.nightly else 3
    dice = random.Random(options.seed)
    # What fills the disk beside the filler is kept short; the room that is compared keeps everything.
    keep = 'keep = [{ room = "bulk", events = 8 }]\n'
    with small_file_system() as (mounted, kind):
        server = Server(config=config(more=f"[rooms]\n{keep}"), prompts=False)
        server.data = mounted / "data"
        told = Told("small")
        with server:
            waits, refusals = asyncio.run(fill_and_empty(server, mounted, told, dice, cycles))
            stop_well(server)
            settle_after_restart(server, told, dice)
            server.kill()
    say(
        f"{cycles} cycles of a full {kind} of 16 MiB: {refusals} refused as store_full, {len(told.acknowledged)} stored, "
        f"writes resumed within {max(waits):.2f} s, 0 lost, 0 invented"
    )


async def fill_and_empty(server, mounted, told, dice, cycles):
    waits, refusals = [], 0
    async with Company(server, told, dice) as company:
        bulk = await Socket.open(server)
        bulk_told = Told("bulk")
        for cycle in range(cycles):
            in_a_row = attempt = 0
            # Space that the log already has is written without asking the disk: it takes some until it needs more.
            while in_a_row < 3:
                fill(mounted / "filler")
                id = f"{cycle}-{attempt}"
                attempt += 1
                expect(attempt < 2000, "a full disk refuses nothing")
                bulk_told.sent[id] = {"filler": "x" * 50_000}
                await bulk.publish(bulk_told, id)
                _, frame = await bulk.answer(bulk_told)
                in_a_row = in_a_row + 1 if frame["op"] == "refused" else 0
                if frame["op"] == "refused":
                    equal(frame["code"], "store_full", "the code of a refusal")
                    refusals += 1
                await company.publish()
            # Whoever is there stays, hears and reads.
            await company.talk()
            await company.everybody_is_at_head()
            await read(server, told)
            (mounted / "filler").unlink()
            waits.append(await company.is_stored_within(RECOVERY["space"], "there is space again"))
            await company.everybody_is_at_head()
        expect(server.process.poll() is None, "the server has ended")
        equal(told.unknown, set(), "answered unknown")
        bulk.drop()
    return waits, refusals + len(told.refused)


def fill(path):
    """Takes all that is left."""
    with open(path, "ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\7" * size)


# --- a store that is slow or taken ---


def stall(shim, options):
    """L1, L2, threat row 81: the disk takes ten seconds for one sync."""
    server = FaultyServer(shim, config())
    dice = random.Random(options.seed)
    told = Told("slow")
    with server:
        asyncio.run(stalled(server, told, dice))
        judge_after_a_kill(server, told, dice)


async def stalled(server, told, dice, millis=10_000):
    async with Company(server, told, dice) as company:
        writers = await company.start_writers(3)
        while len(told.acknowledged) < 20:
            await asyncio.sleep(0.005)
        server.control.arm(SYNC, nth=5, action=STALL, millis=millis)
        while server.control.hits == 0:
            await asyncio.sleep(0.002)
        begun = time.monotonic()
        since = lambda: time.monotonic() - begun  # noqa: E731
        slowest, red_at, one = 0.0, None, asyncio.create_task(company.publish())
        while since() < millis / 1000 - 0.5:
            slowest = max(slowest, await company.talk())
            # A reader needs no writer: history, and whoever joins.
            async with asyncio.timeout(SOON):
                await read(server, told)
                (await Socket.open(server, told.room)).drop()
            status = await ready(server)
            if status == 503 and red_at is None:
                red_at = since()
            expect(status == 200 or since() >= 4.9, f"not ready after {since():.1f} s, which is too early")
            await asyncio.sleep(0.05)
        expect(red_at is not None and red_at < 6.0, f"readiness turned red after {red_at} s")
        answer = await one
        expect(answer is None or answer["op"] == "unknown", f"an operation past its time was answered {answer}")
        while server.control.syncs < 5 or since() < millis / 1000:
            await asyncio.sleep(0.005)
        recovered = await company.is_stored_within(RECOVERY["store"], "the disk has answered")
        expect(await ready(server) == 200, "ready again")
        await company.finish(writers)
        await company.everybody_is_at_head()
        equal(set(told.closes) - {1012}, set(), "close codes of those who waited")
    say(
        f"a sync of {millis / 1000:.0f} s: signals, pings and reads within {slowest * 1000:.0f} ms, readiness red after "
        f"{red_at:.1f} s, writes within {recovered:.2f} s of its end"
    )


def hang(shim, options):
    """Threat row 81: a sync that does not come back. The process ends by itself, and the next one knows what became of it."""
    server = FaultyServer(shim, config())
    dice = random.Random(options.seed)
    told = Told("hanging")
    with server:
        ended = asyncio.run(hung(server, told, dice))
        settle_after_restart(server, told, dice)
        stop_well(server)
    say(f"a sync that hangs: the process ended by itself after {ended:.0f} s, {len(told.acknowledged)} acknowledged, 0 lost")


async def hung(server, told, dice):
    async with Company(server, told, dice) as company:
        await company.start_writers(3)
        while len(told.acknowledged) < 20:
            await asyncio.sleep(0.005)
        server.control.arm(SYNC, action=STALL, millis=120_000)
        server.wait_for_hit(10)
        begun = time.monotonic()
        while server.is_running():
            expect(time.monotonic() - begun < 40, "it neither goes on nor ends")
            await asyncio.sleep(0.05)
    equal(server.process.returncode, -signal.SIGABRT, "the end of a process whose commit hangs")
    expect("a commit hangs" in server.last_words(), "it does not say why it ended")
    return time.monotonic() - begun


def lock(_, options):
    """L2, threat row 75: a foreign program holds the database for ten seconds."""
    server = Server(config=config(), prompts=False)
    dice = random.Random(options.seed)
    told = Told("taken")
    with server:
        asyncio.run(locked(server, told, dice))
        judge_after_a_kill(server, told, dice)


async def locked(server, told, dice, seconds=10):
    async with Company(server, told, dice) as company:
        writers = await company.start_writers(3)
        while len(told.acknowledged) < 20:
            await asyncio.sleep(0.005)
        database = sqlite3.connect(server.data / "commitcast.sqlite", isolation_level=None, timeout=5)
        try:
            database.execute("BEGIN EXCLUSIVE")
            begun, memory, slowest = time.monotonic(), server.rss(), 0.0
            while time.monotonic() - begun < seconds:
                slowest = max(slowest, await company.talk())
                async with asyncio.timeout(SOON):
                    await read(server, told)
                await asyncio.sleep(0.05)
            grown = server.rss() - memory
            database.execute("ROLLBACK")
        finally:
            database.close()
        recovered = await company.is_stored_within(RECOVERY["store"], "the lock is free")
        await company.finish(writers)
        await company.everybody_is_at_head()
        equal(told.closes, [], "sockets that were closed over it")
        # With an id of their own they may be resends of what is stored, and nobody could look: neither ok nor refused.
        equal(told.refused, {}, "refused")
        expect(told.unknown, "nobody was answered unknown: nothing was tested")
        expect(grown < 32 << 20, f"memory grew by {grown >> 20} MiB meanwhile")
    say(
        f"a foreign lock of {seconds} s: {len(told.unknown)} answered unknown, nobody disconnected, signals and pings "
        f"within {slowest * 1000:.0f} ms, writes within {recovered:.2f} s of its end"
    )


# --- no descriptors ---


def files(_, options):
    """L4, F5, threat row 68. The limit is lowered below what the server counts with, so that `accept` itself fails."""
    del options
    server = Server(config=config(), prompts=False)
    with server:
        cpu, resumed, inside = asyncio.run(without_descriptors(server))
        stop_well(server)
    say(f"64 descriptors, 200 clients, {inside} inside: {cpu:.1f} % of a core while idle, accepting again after {resumed:.2f} s")


async def without_descriptors(server, limit=64, clients=200):
    guests = [await Socket.open(server, "guests") for _ in range(4)]
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, limit))
    crowd = []
    for _ in range(clients):
        # Accepted by the kernel, whoever serves it.
        crowd.append((await asyncio.open_connection("127.0.0.1", server.port))[1])
    # The reserve descriptor refuses some of those who wait, one at each try: let that come to an end.
    await until_quiet(server)
    before, begun = cpu_seconds(server), time.monotonic()
    await asyncio.sleep(2)
    cpu = 100 * (cpu_seconds(server) - before) / (time.monotonic() - begun)
    expect(cpu < 5, f"{cpu:.1f} % of a core while nobody says anything")
    inside = len(os.listdir(f"/proc/{server.pid}/fd"))
    expect(inside >= limit - 1, f"only {inside} descriptors are taken: nothing ran out")
    told = Told("guests")
    for number, guest in enumerate(guests):
        told.sent[f"g{number}"] = {"id": number}
        await guest.publish(told, f"g{number}")
        equal((await guest.answer(told))[1]["op"], "ok", "the answer to somebody who was there before")
    for writer in crowd:
        writer.transport.abort()
    freed = time.monotonic()
    newcomer = await Socket.open(server, "guests")
    resumed = time.monotonic() - freed
    expect(resumed <= RECOVERY["descriptors"], f"accepted {resumed:.2f} s after descriptors were free")
    told.compare(await read(server, told))
    for socket in [*guests, newcomer]:
        await socket.ping()
        socket.drop()
    return cpu, resumed, inside


async def until_quiet(server, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        before = cpu_seconds(server)
        await asyncio.sleep(0.5)
        if cpu_seconds(server) - before < 0.02:
            return
        expect(time.monotonic() < deadline, "it never comes to rest")


def cpu_seconds(server):
    """Of all its threads, in nanoseconds of the scheduler rather than ticks."""
    nanos = 0
    for thread in Path(f"/proc/{server.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            nanos += int((thread / "schedstat").read_text().split()[0])
    return nanos / 1e9


# --- a stopped process ---


def pause(_, options):
    """Threat row 80. Deadlines shorter than the pause, so that all of them have passed when it goes on."""
    seconds = 60 if options.nightly else 12
    server = Server(config=config(limits='ping = "2s"\npong = "2s"\nstall = "3s"'), prompts=False)
    dice = random.Random(options.seed)
    told = Told("paused")
    with server:
        asyncio.run(paused(server, told, dice, seconds))
        judge_after_a_kill(server, told, dice)


async def paused(server, told, dice, seconds):
    async with Company(server, told, dice) as company:
        writers = await company.start_writers(3, patience=seconds + ANSWER_SECONDS)
        # It upgrades and never answers a ping: as good as gone.
        dead_reader, dead = await asyncio.open_connection("127.0.0.1", server.port)
        dead.write(
            b"GET /v1/connect HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await dead_reader.readuntil(b"\r\n\r\n")
        while len(told.acknowledged) < 50:
            await asyncio.sleep(0.005)
        server.process.send_signal(signal.SIGSTOP)
        try:
            stopped_at = len(told.acknowledged)
            # Until now everything was answered at once; what is asked from now on waits.
            await asyncio.sleep(seconds / 2)
            waiting = asyncio.create_task(company.left.say(op="signal", room="talk", data={"at": "the pause"}))
            await asyncio.sleep(seconds / 2)
        finally:
            server.process.send_signal(signal.SIGCONT)
        begun = time.monotonic()
        await waiting
        heard = await company.right.hear(2)
        equal(heard.get("data"), {"at": "the pause"}, "the signal that was said in the pause")
        recovered = await company.is_stored_within(RECOVERY["store"], "it goes on")
        await company.talk()
        # The dead one is found; the living have all answered and are still there.
        async with asyncio.timeout(15):
            while await dead_reader.read(4096):
                pass
        found = time.monotonic() - begun
        await company.finish(writers)
        await company.everybody_is_at_head()
        equal(set(told.closes) - {1012}, set(), "close codes of the living")
        for socket in (company.left, company.right):
            await socket.ping(SOON)
        equal(server.get("/metrics")[2].count('commitcast_ws_close_total{code="4000"} 1\n'), 1, "closes for a missing pong")
        expect(len(told.acknowledged) > stopped_at, "nothing was stored behind the pause")
    say(
        f"stopped for {seconds} s: writes within {recovered:.2f} s, the dead peer found after {found:.1f} s, "
        f"{len(told.closes)} of 3 writers told to come again, {len(told.acknowledged)} acknowledged, 0 lost"
    )


# --- a stepped clock ---

DAY = 86_400
FAKETIME = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
SECRET = "the secret of a drill, long enough for HS256"
KEY = "the key of a drill"
CREDENTIAL_SECONDS = 10  # S4


class SteppedServer(Server):
    """Its wall clock is what the file says; its monotonic clock is the machine's."""

    def __init__(self, library, settings):
        super().__init__(config=settings, prompts=False)
        self.offset = self.dir / "offset"
        self.step(0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def start(self):
        with variables(**self.environment):
            super().start()

    def kill(self):
        super().kill()
        if self.process is not None:
            # The library removes what it shares with children at an end in order alone.
            for name in (f"faketime_shm_{self.pid}", f"sem.faketime_sem_{self.pid}"):
                Path("/dev/shm", name).unlink(missing_ok=True)

    def step(self, seconds):
        """Renamed into place: half a file would be another time."""
        fresh = self.offset.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.rename(self.offset)


def clock(_, options):
    """L9, threat row 71."""
    del options
    found = (Path(folder) / "faketime/libfaketimeMT.so.1" for folder in FAKETIME)
    library = next((path for path in found if path.exists()), None)
    if library is None:
        not_run("libfaketime is missing: install the package faketime")
    key = f'api_keys = [{{ name = "worker", key = "{KEY}", rights = ["*"] }}]'
    more = f'[auth]\nmode = "token"\nhs256_secret = "{SECRET}"\n{key}\n'
    settings = config(limits='ping = "1s"\npong = "1s"\nstall = "2s"', more=more, window="3s")
    server = SteppedServer(library, settings)
    with server:
        asyncio.run(stepped(server))
        drained = asyncio.run(drained_meanwhile(server))
        server.step(-DAY)
        server.start()
        asyncio.run(after_the_restart(server))
        stop_well(server)
    say(f"the wall clock stepped by a day, forward and back: nobody cut off but an expired token, drained in {drained:.1f} s")


SESSION = str(uuid.UUID(int=4711))
ROOM = f"session:{SESSION}"


class Stepped:
    """What the drill asks of the server over HTTP, as its backend."""

    def __init__(self, server):
        self.server = server

    def ask(self, method, path, body=None):
        return self.server.request(method, path, body, headers={"X-API-Key": KEY})

    def approval(self, n, expires_in):
        body = {"session": SESSION, "id": str(uuid.UUID(int=n)), "tool_name": "pay", "tool_args": {}, "expires_in": expires_in}
        status, _, answer = self.ask("POST", "/v1/approvals", body)
        equal(status, 201, f"making approval {n}: {answer}")

    def decided(self):
        """How often each approval was decided in the log."""
        _, _, page = self.ask("GET", f"/v1/rooms/{ROOM}/events?after=0&limit=500")
        ids = [event["data"]["request_id"] for event in page["events"] if "decision" in event["data"]]
        equal([event["seq"] for event in page["events"]], list(range(1, page["head"] + 1)), "seqs")
        return {uuid.UUID(id).int: ids.count(id) for id in ids}

    async def until_decided(self, wanted, seconds):
        deadline = time.monotonic() + seconds
        while self.decided() != wanted:
            expect(time.monotonic() < deadline, lambda: f"decided: wanted {wanted}, got {self.decided()}")
            await asyncio.sleep(0.05)


async def open_as(server, name, expires):
    token = signed(SECRET, sub=name, user_id=name, exp=int(time.time()) + expires, rooms={"*": ["read", "write"]})
    socket = await Socket.open(server, None, query=f"?token={token}")
    await socket.say(op="join", room="stepped")
    while (await socket.hear())["op"] != "joined":
        pass
    return socket


async def quietly(socket, seconds):
    """Listens; answers pings underneath."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(TimeoutError):
            frame = await socket.hear(left)
            expect(frame["op"] in ("event", "expiring"), f"it was told {frame}")


async def stepped(server):
    backend = Stepped(server)
    equal(backend.ask("POST", "/v1/sessions", {"id": SESSION, "user_id": "ann"})[0], 201, "making a session")
    short = await open_as(server, "ann", DAY // 2)
    long = await open_as(server, "bob", 10 * DAY)
    # 1 runs out in a while of its own, 2 with the step forward, 3 not even then, 4 while the clock is behind.
    backend.approval(1, 1)
    backend.approval(2, DAY // 2)
    backend.approval(3, 9 * DAY)
    await backend.until_decided({1: 1}, 5)

    server.step(DAY)
    begun = time.monotonic()
    try:
        while True:
            await short.hear(CREDENTIAL_SECONDS)
    except ConnectionClosed:
        equal(short.close_code(), 4401, "the close of a token that is too old now")
    expect(time.monotonic() - begun < CREDENTIAL_SECONDS, "the token's end was noticed too late")
    await backend.until_decided({1: 1, 2: 1}, 5)
    # Longer than a ping and its pong, and than the stall: nobody is blamed for time that has not passed.
    await quietly(long, 3)

    told = Told("stepped")
    for place, offset in enumerate((0, -DAY, 0)):
        server.step(offset)
        if offset < 0:
            backend.approval(4, 1)
        told.sent[f"at-{place}"] = {"id": place}
        await long.publish(told, f"at-{place}")
        equal((await long.answer(told))[1]["op"], "ok", f"a write at {offset:+d} s")
        await quietly(long, 1.5)
        # Nothing fires a second time because its moment comes round again.
        wanted = {1: 1, 2: 1} if place == 0 else {1: 1, 2: 1, 4: 1}
        await backend.until_decided(wanted, 5)
    fresh = await open_as(server, "eve", 600)
    await fresh.ping(SOON)
    for socket in (long, fresh):
        socket.drop()


async def drained_meanwhile(server):
    """The drain keeps to the monotonic clock as well: a step of a day neither ends its window nor prolongs it."""
    sockets = [await open_as(server, "bob", 10 * DAY) for _ in range(8)]
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    server.step(DAY)
    for socket in sockets:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.hear(5)
        equal(socket.close_code(), 1012, "the close of a drain")
    equal(server.process.wait(5), 0, "the exit code of a drain in which the clock was stepped")
    drained = time.monotonic() - begun
    expect(0.3 < drained < 5, f"a drain over 3 s took {drained:.1f} s")
    return drained


async def after_the_restart(server):
    """A day behind what it has stored: the log goes on, what was decided stays decided, what was not waits."""
    backend = Stepped(server)
    equal(backend.decided(), {1: 1, 2: 1, 4: 1}, "decided after the restart")
    backend.approval(5, 1)
    await backend.until_decided({1: 1, 2: 1, 4: 1, 5: 1}, 5)
    server.step(10 * DAY)
    await backend.until_decided({1: 1, 2: 1, 3: 1, 4: 1, 5: 1}, 5)
