"""A run with a human in it, from `execute` to `complete`, while the backend or the server is killed in the middle.

    agent_run.py [FILTER]                    the suite
    agent_run.py --backend URL [--poll] [--hold WHERE]
                                             the backend that it starts and kills: an application's side in a few lines

A page says `execute`; a backend, another process, is given the task, says `thinking`, `tool_call`, and asks for an approval;
something is killed with -9; another page approves; the decision reaches a backend, which completes. Held after each run:
  - both pages were shown the same frames, each once, in the log's order, and a native client the seqs without a hole;
  - the log has each event of the run once, although a task may have been played twice;
  - the decision was given to one backend, once, with a higher fence than the task before it;
  - whoever lost a task can neither finish it nor publish on its behalf;
  - nothing is left to be handed out.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import uuid
from collections import deque
from urllib.parse import urlsplit

from harness import Http, Server, Tally, equal, expect, read_events

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

SOON = 20
# The shortest there is: what a killed poller holds comes back when it is over.
LEASE_MS = 1000
KINDS = ["execute", "cancel", "decision"]


def opened(url):
    return connect(url, proxy=None, compression=None, max_size=None, open_timeout=SOON)


# --- the backend ---


class OverSocket:
    """Tasks come by themselves, between the answers."""

    def __init__(self, socket):
        self.socket = socket
        self.tasks = deque()

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, url):
        async with opened(url.replace("http", "ws", 1) + "/v1/backend") as socket:
            link = cls(socket)
            await link.hear()
            await socket.send(json.dumps({"op": "take", "kinds": KINDS, "max": 4}))
            yield link

    async def hear(self):
        return json.loads(await self.socket.recv())

    async def next(self):
        return self.tasks.popleft() if self.tasks else await self.hear()

    async def say(self, op, **fields):
        await self.socket.send(json.dumps({"op": op, **fields}))
        while (heard := await self.hear())["op"] == "task":
            self.tasks.append(heard)
        return heard


class OverHttp:
    """Tasks are asked for, and held by a lease."""

    PATHS = {"publish": "/v1/publish", "approval": "/v1/approvals", "done": "/v1/tasks/{task}/done"}

    def __init__(self, http):
        self.http = http

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, url):
        async with await Http.connect(urlsplit(url).port) as http:
            yield cls(http)

    async def next(self):
        while True:
            path = f"/v1/tasks?kinds={','.join(KINDS)}&wait=20&lease_ms={LEASE_MS}"
            status, body = await self.http.ask("GET", path)
            equal(status, 200, "the poll's status")
            if body["tasks"]:
                return body["tasks"][0]

    async def say(self, op, **fields):
        status, body = await self.http.ask("POST", self.PATHS[op].format(**fields), fields)
        return {**body, "op": "ok" if status < 300 else "refused"}


async def play(task, say):
    """What this application does. Ids follow from the run, so that playing it again after a crash changes nothing; the
    fence goes along, so that a backend that lost the task is not heard any more."""
    data, held = task["data"], {"task": task["task"], "fence": task["fence"]}
    run = data["execution_id"]

    async def publish(kind, **more):
        event = {"room": task["room"], "type": kind, "id": f"{run}:{kind}", "data": {"execution_id": run, **more}}
        await well(say("publish", **event, **held))

    if task["kind"] == "execute":
        await publish("thinking", step=1, total_steps=2)
        await publish("tool_call", tool_id="pay-1", tool_name="pay", tool_args={"to": "bob", "amount": 10})
        asked = {"session": data["session_id"], "execution_id": run, "id": approval_of(run), "tool_name": "pay"}
        await well(say("approval", **asked, tool_args={"to": "bob", "amount": 10}, reason="more than 5", amount="10"))
    if task["kind"] == "decision":
        await publish("tool_result", tool_id="pay-1", result={"paid": True}, success=True)
        await publish("complete", result={"paid": True}, success=True, total_cost="0.0 USD", duration_ms=1, tool_calls=1)


def approval_of(run):
    return str(uuid.uuid5(uuid.NAMESPACE_URL, run))


async def well(answer):
    answer = await answer
    expect(answer["op"] == "ok", f"the backend was answered {answer}")


async def backend(url, way, hold):
    """Every line it prints is one thing that happened: the suite's only view of it. It ends with whoever started it."""
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: os._exit(0))
    while True:
        with contextlib.suppress(OSError, EOFError, ConnectionClosed, InvalidHandshake):
            async with way.to(url) as link:
                say_line(event="connected")
                while True:
                    task = await link.next()
                    facts = {key: task[key] for key in ("task", "kind", "attempt", "fence")}
                    say_line(event="got", **facts)
                    if hold == task["kind"]:
                        await asyncio.Event().wait()
                    await play(task, link.say)
                    if hold == f"{task['kind']} played":
                        say_line(event="played", **facts)
                        await asyncio.Event().wait()
                    await well(link.say("done", task=task["task"], fence=task["fence"]))
                    say_line(event="finished", **facts)
        # The server is gone: it comes back, or the suite ends this process.
        await asyncio.sleep(0.05)


def say_line(**facts):
    print(json.dumps(facts), flush=True)


# --- the suite's view of a backend ---


class Backend:
    """A backend in a process of its own."""

    def __init__(self, process):
        self.process = process
        self.said = []

    @classmethod
    async def start(cls, server, way, hold=None):
        command = [sys.executable, __file__, "--backend", f"http://127.0.0.1:{server.port}"]
        command += ["--poll"] if way is OverHttp else []
        command += ["--hold", hold] if hold else []
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        started = cls(process)
        await started.says("connected")
        return started

    async def says(self, event, **wanted):
        """The next line of this kind that was not asked for before."""
        while True:
            line = await asyncio.wait_for(self.process.stdout.readline(), SOON)
            expect(line, f"the backend ended before it said {event} {wanted}; it said {self.said}")
            said = json.loads(line)
            self.said.append(said)
            if said["event"] == event and wanted.items() <= said.items():
                return said

    async def kill(self):
        """SIGKILL; what it had printed is still read."""
        if self.process.returncode is None:
            self.process.kill()
        self.said += [json.loads(line) for line in (await self.process.stdout.read()).splitlines()]
        await self.process.wait()

    def got(self, kind):
        return [said for said in self.said if said["event"] == "got" and said["kind"] == kind]


# --- the pages ---


class Page:
    """A socket of the session: what it was shown, in order."""

    def __init__(self, server, session, name):
        self.server, self.session, self.name = server, session, name
        self.frames = []

    async def open(self):
        # The spellings differ from page to page, and mean the same room.
        path = {"page": "/api/v1/ws", "other": "/api/v1/ws/"}[self.name]
        self.socket = await opened(self.server.ws(f"{path}?session_id={self.session}&token=test-token-123"))
        equal((await self.hear_any())["type"], "connected", f"{self.name}: first frame")
        return self

    async def hear_any(self):
        return json.loads(await asyncio.wait_for(self.socket.recv(), SOON))

    async def hear(self, *kinds):
        """Exactly these events, in this order, and nothing between them."""
        for kind in kinds:
            heard = await self.hear_any()
            equal(heard["type"], kind, f"{self.name}: next frame ({heard})")
            self.frames.append(heard)
        return self.frames[-1]["data"]

    async def send(self, kind, **data):
        await self.socket.send(json.dumps({"type": kind, "data": data}))


class Native:
    """Follows the room's log over connections that break: it resumes from where it was."""

    def __init__(self, server, room):
        self.server, self.room = server, room
        self.seq, self.epoch, self.events = 0, "", []

    async def open(self):
        self.socket = await opened(self.server.ws("/v1/connect"))
        await self.hear("hello")
        await self.socket.send(json.dumps({"op": "join", "room": self.room, "since": {"epoch": self.epoch, "seq": self.seq}}))
        joined = await self.hear("joined")
        expect(joined["recovered"], f"the native client was not given what it missed: {joined}")
        self.epoch = joined["epoch"]
        return self

    async def hear(self, op):
        heard = json.loads(await asyncio.wait_for(self.socket.recv(), SOON))
        equal(heard["op"], op, f"native: next frame ({heard})")
        return heard

    async def follow(self, until):
        while not self.events or self.events[-1]["type"] != until:
            event = await self.hear("event")
            equal(event["seq"], self.seq + 1, "native: seq")
            self.seq = event["seq"]
            self.events.append(event)


class Scene:
    """One session with two pages and a native client, and the backends of one run."""

    def __init__(self, server, way):
        self.server, self.way = server, way
        self.session = str(uuid.uuid4())
        self.room = f"session:{self.session}"
        self.backends = []

    async def begin(self, **options):
        """Up to the approval: what every run begins with. Gives the run's id."""
        status, _, body = self.server.request("POST", "/v1/sessions", {"id": self.session})
        equal(status, 201, f"a session ({body})")
        self.page, self.other = Page(self.server, self.session, "page"), Page(self.server, self.session, "other")
        self.native = Native(self.server, self.room)
        await self.open()
        await self.start_backend(**options)
        await self.page.send("execute", command="pay bob")
        return (await self.both("thinking"))["execution_id"]

    async def open(self):
        for client in (self.page, self.other, self.native):
            await client.open()

    async def start_backend(self, **options):
        self.backends.append(await Backend.start(self.server, self.way, **options))

    @property
    def backend(self):
        return self.backends[-1]

    async def both(self, *kinds):
        heard = await asyncio.gather(self.page.hear(*kinds), self.other.hear(*kinds))
        equal(self.page.frames, self.other.frames, "what the two pages were shown")
        return heard[0]

    async def asked(self):
        """Thinking, the call, the request; and the task is finished."""
        request = await self.both("thinking", "tool_call", "approval_required")
        self.executed = await self.backend.says("finished", kind="execute")
        return request["request_id"]

    async def restart_server(self):
        self.server.kill()
        await asyncio.to_thread(self.server.start)
        await self.open()

    async def approve(self, request):
        await self.other.send("approve", request_id=request)
        equal((await self.both("approved"))["request_id"], request, "which one was approved")

    async def completed(self, request, attempts=1):
        """The end of every run, and what must hold of it. Gives the decision's task as its last holder had it."""
        await self.both("tool_result", "complete")
        finished = await self.backend.says("finished", kind="decision")
        await self.native.follow("complete")
        await self.no_second_decision(request)
        await self.nothing_is_left()
        await self.compare()
        for backend in self.backends:
            await backend.kill()
        holders = [got for backend in self.backends for got in backend.got("decision")]
        equal([got["attempt"] for got in holders], list(range(1, attempts + 1)), "the decision's deliveries")
        equal(holders[-1]["fence"], finished["fence"], "the last holder's fence")
        fences = [self.executed["fence"]] + [got["fence"] for got in holders]
        expect(all(a < b for a, b in zip(fences, fences[1:])), f"fences must rise: {fences}")
        return holders[-1]

    async def no_second_decision(self, request):
        """Whoever is late is told so, alone."""
        await self.page.send("reject", request_id=request)
        heard = await self.page.hear_any()
        equal((heard["type"], heard["data"].get("decision")), ("error", "approved"), f"a late rejection ({heard})")

    async def nothing_is_left(self):
        async with opened(self.server.ws("/v1/backend")) as socket:
            await socket.recv()
            await socket.send('{"op":"status"}')
            status = json.loads(await asyncio.wait_for(socket.recv(), SOON))
        open_tasks = {kind: tasks["open"] for kind, tasks in status["tasks"].items() if kind in KINDS}
        equal(set(open_tasks.values()), {0}, f"tasks that are left ({status})")

    async def compare(self):
        log = [event for event in await read_events(self.server.port, self.room) if event["type"] != "session_created"]
        kinds = ["thinking", "thinking", "tool_call", "approval_required", "approved", "tool_result", "complete"]
        equal([event["type"] for event in log], kinds, "the log")
        shown = [(event["type"], event["data"]) for event in log]
        for page in (self.page, self.other):
            equal([(frame["type"], frame["data"]) for frame in page.frames], shown, f"{page.name}: frames against the log")
        followed = [event for event in self.native.events if event["type"] != "session_created"]
        equal([(event["type"], event["data"]) for event in followed], shown, "native: events against the log")

    async def refuses_stale(self, held):
        """The holder that was deposed: over HTTP, over a socket, and as a publisher."""
        held = {"task": held["task"], "fence": held["fence"]}
        status, _, body = self.server.request("POST", f"/v1/tasks/{held['task']}/done", held)
        equal((status, body.get("code")), (409, "stale_fence"), "done with a stale fence over HTTP")
        event = {"room": self.room, "type": "thinking", "data": {"thought_process": "from the dead"}}
        status, _, body = self.server.request("POST", "/v1/publish", {**event, **held})
        equal((status, body.get("code")), (409, "stale_fence"), "publish with a stale fence over HTTP")
        async with opened(self.server.ws("/v1/backend")) as socket:
            await socket.recv()
            for message in ({"op": "done"}, {"op": "fail"}, {"op": "publish", **event}):
                await socket.send(json.dumps({**message, **held}))
                heard = json.loads(await asyncio.wait_for(socket.recv(), SOON))
                equal((heard["op"], heard.get("code")), ("refused", "stale_fence"), f"{message['op']} with a stale fence")

    async def close(self):
        for backend in self.backends:
            await backend.kill()


# --- the runs ---


async def run_undisturbed(scene, figures):
    await scene.begin()
    request = await scene.asked()
    await scene.approve(request)
    await scene.completed(request)
    figures["fences"].append((scene.executed["fence"], scene.backend.got("decision")[0]["fence"]))


async def run_backend_killed_before_the_decision(scene, figures):
    await scene.begin()
    request = await scene.asked()
    await scene.backend.kill()
    await scene.start_backend()
    await scene.approve(request)
    decided = await scene.completed(request)
    equal(len(scene.backends[0].got("decision")), 0, "decisions that reached the killed backend")
    figures["fences"].append((scene.executed["fence"], decided["fence"]))


async def run_decided_while_no_backend_is_there(scene, figures):
    await scene.begin()
    request = await scene.asked()
    await scene.backend.kill()
    await scene.approve(request)
    await scene.start_backend()
    decided = await scene.completed(request)
    figures["fences"].append((scene.executed["fence"], decided["fence"]))


async def run_server_killed_before_the_decision(scene, figures):
    """The backend comes back by itself; the undecided request is still there, and once."""
    await scene.begin()
    request = await scene.asked()
    await scene.native.follow("approval_required")
    await scene.restart_server()
    await scene.backend.says("connected")
    _, _, pending = scene.server.get(f"/api/v1/approvals/pending?session_id={scene.session}")
    equal([item["id"] for item in pending["requests"]], [request], "what is undecided after the restart")
    await scene.approve(request)
    decided = await scene.completed(request)
    figures["fences"].append((scene.executed["fence"], decided["fence"]))


async def run_server_killed_after_the_decision(scene, figures):
    """Decided with no backend there, then killed: the decision waits on the disk."""
    await scene.begin()
    request = await scene.asked()
    await scene.backend.kill()
    await scene.approve(request)
    await scene.restart_server()
    await scene.start_backend()
    decided = await scene.completed(request)
    figures["fences"].append((scene.executed["fence"], decided["fence"]))


async def run_backend_killed_holding_the_execute_task(scene, figures):
    await scene.begin(hold="execute")
    held = await scene.backend.says("got", kind="execute", attempt=1)
    await scene.backend.kill()
    await scene.start_backend()
    again = await scene.backend.says("got", kind="execute", attempt=2)
    equal(again["task"], held["task"], "the task that was handed out again")
    expect(again["fence"] > held["fence"], f"its fence must rise: {held['fence']}, {again['fence']}")
    await scene.refuses_stale(held)
    request = await scene.asked()
    await scene.approve(request)
    decided = await scene.completed(request)
    await scene.refuses_stale(held)
    figures["redelivered"] += 1
    figures["fences"].append((held["fence"], again["fence"], decided["fence"]))


async def run_backend_killed_between_its_last_event_and_done(scene, figures):
    """The task is played twice; nobody is shown anything twice, and the human is asked once."""
    await scene.begin(hold="execute played")
    request = (await scene.both("thinking", "tool_call", "approval_required"))["request_id"]
    held = await scene.backend.says("played", kind="execute")
    await scene.backend.kill()
    await scene.start_backend()
    scene.executed = await scene.backend.says("finished", kind="execute")
    equal((scene.executed["task"], scene.executed["attempt"]), (held["task"], 2), "the task that was handed out again")
    await scene.refuses_stale(held)
    await scene.approve(request)
    decided = await scene.completed(request)
    figures["redelivered"] += 1
    figures["fences"].append((held["fence"], scene.executed["fence"], decided["fence"]))


async def run_backend_killed_holding_the_decision(scene, figures):
    await scene.begin(hold="decision")
    request = await scene.asked()
    await scene.approve(request)
    held = await scene.backend.says("got", kind="decision", attempt=1)
    await scene.backend.kill()
    await scene.start_backend()
    await scene.backend.says("got", kind="decision", attempt=2)
    decided = await scene.completed(request, attempts=2)
    await scene.refuses_stale(held)
    figures["redelivered"] += 1
    figures["fences"].append((scene.executed["fence"], held["fence"], decided["fence"]))


async def run_server_killed_while_a_backend_holds_the_decision(scene, figures):
    await scene.begin(hold="decision")
    request = await scene.asked()
    await scene.approve(request)
    held = await scene.backend.says("got", kind="decision", attempt=1)
    await scene.native.follow("approved")
    await scene.backend.kill()
    await scene.restart_server()
    await scene.start_backend()
    decided = await scene.completed(request, attempts=2)
    await scene.refuses_stale(held)
    figures["redelivered"] += 1
    figures["fences"].append((scene.executed["fence"], held["fence"], decided["fence"]))


async def one(server, way, run, figures):
    scene = Scene(server, way)
    try:
        await run(scene, figures)
        figures["runs"] += 1
    finally:
        await scene.close()


def suite(wanted):
    runs = [(name.removeprefix("run_"), run) for name, run in globals().items() if name.startswith("run_")]
    tally = Tally()
    figures = {"runs": 0, "redelivered": 0, "fences": []}
    with Server() as server:
        for way, how in ((OverSocket, "over a socket"), (OverHttp, "by long poll")):
            for name, run in runs:
                label = f"{name} {how}".replace("_", " ")
                if wanted in label:
                    tally.run(label, one, server, way, run, figures)
    fences = " ".join("<".join(map(str, run)) for run in figures["fences"])
    print(
        f"behaviour: {figures['runs']} runs completed, each decision made and acted on once, "
        f"{figures['redelivered']} tasks given again after a kill with attempt 2, stale fences refused; fences {fences}",
        flush=True,
    )
    tally.finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("filter", nargs="?", default="", help="only runs with this in their name")
    parser.add_argument("--backend", metavar="URL", help="be the backend")
    parser.add_argument("--poll", action="store_true", help="as the backend: over HTTP instead of a socket")
    parser.add_argument("--hold", metavar="WHERE", help="as the backend: stop for ever at a task of this kind, or when `KIND played`")
    options = parser.parse_args()
    if options.backend:
        asyncio.run(backend(options.backend, OverHttp if options.poll else OverSocket, options.hold))
    suite(options.filter)


if __name__ == "__main__":
    main()
