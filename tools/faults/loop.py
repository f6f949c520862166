"""The n-th write or sync fails (PROMISES.md G3, G11): for each n a server under load meets the fault, and the next process on
the same data directory is held against everything that anybody was told.

A case is "ERRNO:KIND:N", such as EIO:sync:37. With ":start" behind it calls are counted from the start of the process, with
":fresh" from its first start in a directory of its own. Cases that follow one another share a data directory: each begins where the fault of the one before it left off.
"""

import asyncio
import random
import shutil
import signal

from faulty import ERRNOS, EXIT_START, EXIT_STORE, FAIL, KINDS, SHORT, SYNC, WRITE, FaultyServer
from harness import equal, expect
from told import ANSWER_SECONDS, Socket, Told, observe, settle, write

# A short drain, no rates: the loop is about the store.
CONFIG = """reactors = 2
[limits]
messages_per_second = 0
bytes_per_second = 0
[drain]
window = "0s"
timeout = "10s"
"""
ROOMS, WRITERS = 2, 2
HIT_SECONDS = 240
END_SECONDS = 10
RESUME_SECONDS = 5
# What SQLite's log index says when it cannot grow: an I/O error, whatever the errno was, so the outcome is unknown.
SHM_SIZE = "SQLite code 4874"


class Case:
    def __init__(self, text):
        self.text = text
        self.errno, self.kind, number, *rest = text.split(":")
        self.number = int(number)
        self.is_fresh = rest == ["fresh"]
        self.at_start = self.is_fresh or rest == ["start"]

    def __str__(self):
        return self.text

    @property
    def is_fatal(self):
        """A failed sync, whatever its errno, and every failed write but that of a full disk."""
        return self.kind == "sync" or self.errno == "EIO"


class Counts:
    """What the runs came to."""

    def __init__(self):
        self.of = {}

    def add(self, name, count=1):
        self.of[name] = self.of.get(name, 0) + count

    def __str__(self):
        return ", ".join(f"{count} {name}" for name, count in sorted(self.of.items()))


class Chunk:
    """Cases that share a data directory."""

    def __init__(self, shim, seed, counts):
        self.server = FaultyServer(shim, CONFIG)
        self.seed = seed
        self.counts = counts
        self.told = []

    def run(self, cases):
        with self.server:
            for case in cases:
                try:
                    self.one(case)
                except BaseException:
                    print(f"case {case} of {','.join(map(str, cases))}", flush=True)
                    raise
            self.restart()

    def one(self, case):
        dice = random.Random(f"{self.seed} {case}")
        if case.at_start:
            self.kill()
            if case.is_fresh:
                shutil.rmtree(self.server.data, ignore_errors=True)
                self.told = []
            self.fail_at_start(case)
            self.restart()
        elif not self.server.is_running():
            self.restart()
        self.told = [Told(f"{case}.{n}".replace(":", "-")) for n in range(ROOMS)]
        logged = self.server.log_bytes()
        if case.at_start:
            # The restart has shown that nothing was lost; a few operations, so that the next one has something to lose.
            asyncio.run(self.load(case, dice, fault=False))
            return self.kill()
        asyncio.run(self.load(case, dice))
        log = self.server.last_run_log(logged)
        self.counts.add("acknowledged", sum(len(told.acknowledged) for told in self.told))
        self.counts.add("refused for certain", sum(len(told.refused) for told in self.told))
        self.counts.add("answered unknown", sum(len(told.unknown) for told in self.told))
        if case.is_fatal or (SHM_SIZE in log and not self.server.is_running()):
            self.check_the_end(log)
        else:
            self.end_well(dice)

    # --- a start ---

    def fail_at_start(self, case):
        control = self.server.control
        control.arm(KINDS[case.kind], case.number, ERRNOS[case.errno])
        logged = self.server.log_bytes()
        try:
            self.server.start()
            self.counts.add("starts in spite of it")
        except RuntimeError:
            # Whose fault it is and what to do, not a panic.
            equal(self.server.process.returncode, EXIT_START, "the exit code of a start that failed")
            log = self.server.last_run_log(logged)
            expect("could not start: " in log and "panicked" not in log, lambda: f"it does not say why:\n{log}")
            self.counts.add("failed starts")
        if control.hits == 0:
            self.counts.add("starts with fewer calls")
        control.disarm()
        self.kill()

    def restart(self):
        """The next process, without a fault, on what the last one left: it needs no repair and knows everything."""
        self.server.control.disarm()
        self.server.start()
        for told in self.told:
            asyncio.run(settle(self.server, told, random.Random(f"{self.seed} {told.room}")))
        self.told = []

    def kill(self):
        self.server.kill()

    # --- the load ---

    async def load(self, case, dice, fault=True):
        stop = asyncio.Event()
        clients, sockets = [], []
        for told in self.told:
            sockets.append(await Socket.open(self.server, told.room))
            clients.append(observe(sockets[-1], told))
            for n in range(WRITERS):
                own, window = random.Random(dice.random()), dice.choice((1, 2, 4))
                sockets.append(await Socket.open(self.server))
                clients.append(write(sockets[-1], told, f"w{n}", own, stop, window))
        tasks = []
        try:
            if fault:
                forever, action = dice.random() < 0.3, SHORT if case.kind == "write" and dice.random() < 0.25 else FAIL
                self.server.control.arm(KINDS[case.kind], case.number, ERRNOS[case.errno], forever, action)
            tasks = [asyncio.create_task(client) for client in clients]
            await self.until_hit(tasks, case.number if not fault else None)
            if fault and not case.is_fatal and self.server.is_running():
                await self.live_on(dice)
            elif fault:
                await asyncio.wait(tasks, timeout=ANSWER_SECONDS)
            stop.set()
            writers = [task for place, task in enumerate(tasks) if place % (1 + WRITERS)]
            done, late = await asyncio.wait(writers, timeout=ANSWER_SECONDS + 5)
            expect(not late, f"{len(late)} writers are still not answered")
            if self.server.is_running() and not case.is_fatal:
                await self.everybody_is_at_head()
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            for socket in sockets:
                socket.drop()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def until_hit(self, tasks, instead):
        """Until the fault was met; without one, until so many operations were acknowledged."""
        control = self.server.control
        try:
            async with asyncio.timeout(HIT_SECONDS):
                while control.hits == 0 if instead is None else sum(len(told.acknowledged) for told in self.told) < 5:
                    await asyncio.sleep(0.002)
                    for task in tasks:
                        if task.done() and not task.cancelled() and task.exception():
                            raise task.exception()
        except TimeoutError:
            raise AssertionError("the fault was never met") from None

    async def live_on(self, dice):
        """A full disk: refusals while it is full, and five seconds after it is not, every write is taken."""
        await asyncio.sleep(0.02 + 0.03 * dice.random())
        # What is stored is not refused, however full the disk is: a resend needs no space.
        for told in self.told:
            stored = dice.sample(sorted(told.acknowledged), min(2, len(told.acknowledged)))
            socket = await Socket.open(self.server)
            for id in stored:
                await socket.publish(told, id)
                _, frame = await socket.answer(told)
                equal((frame["op"], frame.get("dup")), ("ok", True), f"{told.room}: {id}, sent again to a full store")
            await socket.close()
        self.server.control.disarm()
        clock = asyncio.get_running_loop().time
        begun = clock()
        for told in self.told:
            socket = await Socket.open(self.server, told.room)
            for attempt in range(1000):
                id = f"again-{attempt}"
                told.sent[id] = {"id": id}
                await socket.publish(told, id)
                _, frame = await socket.answer(told)
                if frame["op"] == "ok":
                    break
                expect(clock() - begun < RESUME_SECONDS, lambda: f"there is space again, and the answer is {frame}")
            await socket.close()

    async def everybody_is_at_head(self):
        """Who was there has lost nothing by it: within five seconds each observer has seen what was stored last."""
        async with asyncio.timeout(RESUME_SECONDS):
            for told in self.told:
                head = max(told.acknowledged.values(), default=0)
                while any(run.last < head for run in told.runs):
                    await asyncio.sleep(0.002)

    # --- the end ---

    def check_the_end(self, _):
        """G11: an end of its own with its own code, a word about why, everybody told to come again, nothing committed."""
        equal(self.server.exit_code(END_SECONDS), EXIT_STORE, "the exit code")
        log = self.server.last_words(20_000)
        expect("nothing more is written" in log, lambda: f"it does not say why it ended:\n{log}")
        self.counts.add("of them while tidying", "failed while tidying" in log[log.rindex("startup complete") :])
        for told in self.told:
            for close in told.closes:
                equal(close, 1012, f"{told.room}: a close code")
            expect(len(told.closes) == 1 + WRITERS, f"{told.room}: {len(told.closes)} sockets heard a close")
            codes = set(told.refused.values())
            expect(codes <= {"store_broken", "store_full"}, lambda: f"{told.room}: refused as {codes}")
        control = self.server.control
        equal((control.writes_after, control.syncs_after), (0, 0), "writes and syncs of the database behind the first error")
        self.counts.add("ends with 4")

    def end_well(self, dice):
        expect(self.server.is_running(), lambda: f"a full disk ended it:\n{self.server.last_words()}")
        for told in self.told:
            codes = set(told.refused.values())
            expect(codes <= {"store_full"}, lambda: f"{told.room}: refused as {codes}")
            equal(told.unanswered(), [], f"{told.room}: unanswered")
        if dice.random() < 0.25:
            self.server.process.send_signal(signal.SIGTERM)
            equal(self.server.exit_code(END_SECONDS), 0, "the exit code of a server that has space again")
        else:
            self.kill()
        self.counts.add("lived on")


def run(shim, cases, seed):
    counts = Counts()
    Chunk(shim, seed, counts).run([Case(text) for text in cases])
    print(f"counts {counts}", flush=True)
