"""One process, one port: clients of all four applications and native clients together, while backends drive everything.

    mixed_suite.py [--seconds 60] [--clients 200] [--processes 3] [--demo PATH]

`--clients` of each: prompt editors, pages of the video pipeline (workflow, agent, coordinator, topics), sockets of the ticket
page, sockets of agent sessions (four to a session), and native clients that are in the very same rooms and in rooms of
their own. Some write: edits, answers, tickets, commands, approvals, publishes. A backend in Python publishes what is
numbered and plays every task; `cast demo`, where it is built, plays beside it and takes its share of the tasks.

Judged after the writing has stopped, against the log as it is stored: what each client was shown of each room is the log,
from where it came in, without its own edits where its page is not shown those. So a gap, a repetition, another order, or
something that was shown and never stored would all be seen, and are counted. An error is an answer that is one, a frame that
has no business there, a connection that ended. Native clients check their seqs as they come, too.

    mixed_suite.py --worker|--backend …      what the suite starts: clients or the backend, in processes of their own
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
import traceback
import uuid
from collections import Counter, defaultdict
from pathlib import Path

from harness import ROOT, Http, Server, Tally, equal, expect, read_events

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

SOON = 60
# How long a run with a human in it may take, when a demo plays it at a speed to watch.
RUN_SECONDS = 120
OPENING_AT_ONCE = 16
# With this many clients of a kind each does something every so many seconds as stands below; fewer do it more often.
PACED_FOR = 200
PACE_MIN = 0.2
# Clients that share a prompt, a workflow, a room of native clients.
CROWD = 20
SESSION_SOCKETS = 4
SAID_OF_ERRORS = 8


def opened(url):
    return connect(url, proxy=None, compression=None, max_size=None, open_timeout=SOON, ping_interval=None)


class Names:
    """What there is for so many clients: the same in every process. `directory`: what the server's ids of prompts begin
    with, since that depends on how it was configured."""

    def __init__(self, clients, directory=""):
        crowds = max(2, clients // CROWD)
        self.prompts = [f"mixed_{n}" for n in range(crowds)]
        self.documents = [f"doc:{directory}{prompt}" for prompt in self.prompts]
        self.workflows = [f"mixed-{n}" for n in range(crowds)]
        self.agents = [f"mixed-{n}" for n in range(max(2, crowds // 2))]
        self.topics = [f"mixed-{n}" for n in range(max(2, crowds // 2))]
        self.sessions = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"mixed-{n}")) for n in range(max(1, clients // SESSION_SOCKETS))]
        self.own = [f"mixed/room-{n}" for n in range(crowds)]

    @staticmethod
    def of(names, n):
        return names[n % len(names)]


# --- the clients: each keeps what it is shown of each room, and knows what the log says it should have been ---


class Client:
    """One socket. `seen` is by room; what is no event of a room goes to whoever waits for an answer, or is an error."""

    dialect = None

    def __init__(self, scene, number):
        self.scene, self.number = scene, number
        self.name = f"{self.dialect}-{number}"
        self.dice = random.Random(number)
        self.seen = defaultdict(list)
        self.frames = 0
        self.written = 0
        self.has_acted = False
        self.errors = []
        self.answers = asyncio.Queue()
        self.moved = asyncio.Event()

    async def open(self):
        self.socket = await opened(self.scene.ws(self.path()))
        await self.greeted()
        self.listening = asyncio.create_task(self.listen())

    async def greeted(self):
        """Whatever comes before the first event."""

    async def hear(self):
        return json.loads(await asyncio.wait_for(self.socket.recv(), SOON))

    async def say(self, **message):
        await self.socket.send(json.dumps(message))

    async def listen(self):
        try:
            async for text in self.socket:
                self.frames += 1
                self.take(json.loads(text))
                self.moved.set()
            self.wrong(f"the connection was closed: {self.socket.close_code} {self.socket.close_reason}")
        except ConnectionClosed as closed:
            self.wrong(f"the connection ended: {closed}")
        except Exception as error:  # a frame that breaks its reader is the server's error, and must be counted as one
            self.wrong(f"{type(error).__name__}: {error}: {traceback.format_exc(limit=-2)}")
        self.moved.set()

    def wrong(self, what):
        self.errors.append(f"{self.name}: {what}"[:500])

    async def answer(self, to):
        """The next frame that is an answer."""
        try:
            return await asyncio.wait_for(self.answers.get(), SOON)
        except TimeoutError:
            self.wrong(f"no answer to {to} within {SOON} s")
            raise Silent from None

    async def act(self):
        """What it does until `scene.stop`. Most only look."""

    async def pause(self, seconds):
        """Between two deeds; true when there is to be another. The first comes at any moment of the span."""
        share = 0.5 + self.dice.random() if self.has_acted else self.dice.random()
        self.has_acted = True
        return not await self.scene.stopped_within(seconds * share * self.scene.pace)

    def own_in(self, _logs):
        """What it wrote, as the logs have it; as much as `written` says."""
        return []

    async def settle(self, logs, deadline):
        """Waits until it has been shown as much as the log has, and for one answer more: what was sent twice is there by
        then."""
        wanted = {room: self.wanted(logs[room]) for room in self.rooms()}
        while any(len(self.seen[room]) < len(events) for room, events in wanted.items()) and not self.errors:
            self.moved.clear()
            if await self.scene.is_late(self.moved, deadline):
                break
        if not self.errors:
            await self.round_trip()
        return wanted


class Silent(Exception):
    """An answer did not come: it is counted, and its client does no more."""


class Editor(Client):
    """A prompt editor. It is shown everybody's edits but its own, and edits now and then."""

    dialect = "documents"

    def __init__(self, scene, number):
        super().__init__(scene, number)
        self.prompt = Names.of(scene.names.prompts, number)

    def path(self):
        # Both spellings lead to one room.
        return ("/ws/prompts/", "/api/prompts/ws/")[self.number % 2] + self.prompt

    def rooms(self):
        return [Names.of(self.scene.names.documents, self.number)]

    async def greeted(self):
        equal((await self.hear())["action"], "initial", f"{self.name}: greeting")

    def take(self, frame):
        if frame["action"] == "update":
            self.seen[self.rooms()[0]].append(frame["content"])
        elif frame["action"] in ("update_status", "details"):
            self.answers.put_nowait(frame)
        else:
            self.wrong(f"unexpected: {frame}")

    def wanted(self, log):
        contents = [event["data"]["content"] for event in log if event["type"] == "update"]
        return [content for content in contents if not content.startswith(f"{self.name} ")]

    async def act(self):
        while await self.pause(10):
            self.written += 1
            await self.say(action="update", content=f"{self.name} edit {self.written} [[x]]", id=f"{self.name}-{self.written}")
            status = await self.answer("an update")
            if status.get("success") is not True or "dup" in status:
                self.wrong(f"an update was answered {status}")

    async def round_trip(self):
        await self.say(action="get_details")
        await self.answer("get_details")

    def own_in(self, logs):
        log = logs[self.rooms()[0]]
        return [event for event in log if event["data"].get("content", "").startswith(f"{self.name} ")]


EVERYBODY = "workflows"


class PipelinePage(Client):
    """A page of the video pipeline: of a workflow, an agent, the coordinator, or of topics."""

    dialect = "workflows"

    def __init__(self, scene, number):
        super().__init__(scene, number)
        names, place = scene.names, number % CROWD
        if place < 10:
            self.kind, self.mine = "workflow", [f"workflow:{Names.of(names.workflows, number // CROWD)}"]
        elif place < 13:
            self.kind, self.mine = "agent", [f"agent:{Names.of(names.agents, number)}"]
        elif place < 16:
            self.kind, self.mine = "coordinator", ["coordinator"]
        else:
            self.kind, self.mine = "topics", [f"topic:{Names.of(names.topics, number + step)}" for step in (0, 1)]

    def path(self):
        place = {"topics": "/api/v1/ws/connect", "coordinator": "/ws/coordinator"}.get(self.kind)
        return (place or f"/ws/{self.kind}/{self.mine[0].split(':', 1)[1]}") + f"?client_id={self.name}"

    def rooms(self):
        return [*self.mine, EVERYBODY]

    async def greeted(self):
        equal((await self.hear())["client_id"], self.name, f"{self.name}: the welcome's client_id")
        for room in self.mine if self.kind == "topics" else []:
            topic = room.split(":", 1)[1]
            await self.say(action="subscribe", topic=topic)
            equal((await self.hear())["message"], f"Subscribed to topic: {topic}", f"{self.name}: subscribing")

    def take(self, frame):
        kind = frame["type"]
        if kind == "heartbeat":
            return
        if kind == "pong" or (kind == "info" and frame["message"] == "pong"):
            self.answers.put_nowait(frame)
        else:
            # What everybody is told bears a mark of its room, and so do topics; the rest is of the one room there is.
            room = frame["mark"].split()[0] if "mark" in frame else self.mine[0]
            if room not in self.rooms():
                self.wrong(f"of another room: {frame}")
            self.seen[room].append(frame)

    def wanted(self, log):
        return [event["data"] for event in log]

    async def act(self):
        while await self.pause(10):
            await self.round_trip()

    async def round_trip(self):
        await (self.say(action="ping") if self.kind == "topics" else self.say(type="ping"))
        await self.answer("a ping")


class TicketPage(Client):
    """A socket of the ticket page; it answers the agents' questions, and some make tickets."""

    dialect = "tickets"
    made = 0

    def path(self):
        return "/ws/logs" if self.number % CROWD == 1 else "/ws"

    def rooms(self):
        return ["logs" if self.number % CROWD == 1 else "tickets"]

    def take(self, frame):
        if frame["type"] in ("pong", "ack"):
            self.answers.put_nowait(frame)
        elif frame["type"] == "error":
            self.wrong(f"unexpected: {frame}")
        else:
            self.seen[self.rooms()[0]].append(frame)

    def wanted(self, log):
        return [event["data"] for event in log if event["type"] not in ("user_response", "job")]

    async def act(self):
        makes = self.number % CROWD == 0
        if makes:
            async with await Http.connect(self.scene.port) as http:
                while await self.pause(10):
                    self.made += 1
                    await self.make_ticket(http)
            return
        while await self.pause(20):
            self.written += 1
            session = f"{self.name}-{self.written}"
            await self.say(type="user_response", session_id=session, response=f"answer {self.written}")
            ack = await self.answer("a user_response")
            equal((ack["type"], ack.get("session_id"), ack.get("status")), ("ack", session, "received"), f"{self.name}: {ack}")

    async def make_ticket(self, http):
        status, body = await http.ask("POST", "/tickets/create", {"ticket_name": f"{self.name} ticket {self.made}"})
        if status != 200:
            return self.wrong(f"a ticket was answered {status} {body}")
        # Everybody is told before its maker is; over another connection that may still take a moment.
        if not await self.shows(lambda event: event.get("ticket_id") == body["ticket_id"]):
            self.wrong(f"ticket {body['ticket_id']} was made and not shown")

    async def shows(self, wanted):
        """Waits for an event; false when it does not come."""
        deadline = time.monotonic() + SOON
        while not any(map(wanted, self.seen["tickets"])):
            self.moved.clear()
            if self.errors or await self.scene.is_late(self.moved, deadline):
                return False
        return True

    async def round_trip(self):
        await self.say(type="ping")
        await self.answer("a ping")

    def own_in(self, logs):
        log = logs["tickets"]
        said = [event["data"]["session_id"] for event in log if event["type"] == "user_response"]
        return [session for session in said if str(session).startswith(f"{self.name}-")]


class AgentPage(Client):
    """A socket of an agent's session. Of the four of a session one gives commands and another decides."""

    dialect = "agents"

    def __init__(self, scene, number):
        super().__init__(scene, number)
        self.session = Names.of(scene.names.sessions, number // SESSION_SOCKETS)
        self.role = number % SESSION_SOCKETS
        self.completed = asyncio.Queue()

    def path(self):
        spelling = ("/api/v1/ws", "/api/v1/ws/", "/api/v1/ws/ws", "/ws")[self.role]
        return f"{spelling}?session_id={self.session}&token=test-token-123"

    def rooms(self):
        return [f"session:{self.session}"]

    async def greeted(self):
        equal((await self.hear())["type"], "connected", f"{self.name}: greeting")

    def take(self, frame):
        kind, data = frame["type"], frame["data"]
        if kind == "error":
            self.answers.put_nowait(frame)
            if data["message"] != "Unknown message type: ping":
                self.wrong(f"unexpected: {frame}")
            return
        self.seen[self.rooms()[0]].append((kind, data))
        if kind == "complete":
            self.completed.put_nowait(data["execution_id"])
        if kind == "approval_required" and self.role == 1:
            self.scene.also(self.say(type="approve", data={"request_id": data["request_id"]}))

    def wanted(self, log):
        return [(event["type"], event["data"]) for event in log if event["type"] not in ("session_created", "error")]

    async def act(self):
        while self.role == 0 and await self.pause(10):
            self.written += 1
            await self.say(type="execute", data={"command": f"{self.name} run {self.written}"})
            try:
                await asyncio.wait_for(self.completed.get(), RUN_SECONDS)
            except TimeoutError:
                return self.wrong(f"run {self.written} was not completed within {RUN_SECONDS} s")

    async def round_trip(self):
        await self.say(type="ping", data={})
        await self.answer("a ping")

    def own_in(self, logs):
        log = logs[self.rooms()[0]]
        if self.role != 0:
            return []
        runs = [event["data"]["execution_id"] for event in log if event["type"] == "thinking" and "step" not in event["data"]]
        ends = Counter(event["data"]["execution_id"] for event in log if event["type"] == "complete")
        return [run for run in dict.fromkeys(runs) if ends[run] == 1]


class Native(Client):
    """In one room of each application and in one of its own kind; it publishes there, and some edit a document."""

    dialect = "native"

    def __init__(self, scene, number):
        super().__init__(scene, number)
        names = scene.names
        self.own = Names.of(names.own, number)
        self.document = Names.of(names.documents, number)
        rooms = [f"workflow:{Names.of(names.workflows, number)}", f"session:{Names.of(names.sessions, number)}"]
        rooms += ["tickets"] if number % 5 == 0 else [f"topic:{Names.of(names.topics, number)}"]
        rooms += ["coordinator"] if number % 10 == 3 else []
        self.joined = [self.own, self.document, *rooms]
        self.seqs = {}

    def path(self):
        return "/v1/connect"

    def rooms(self):
        return self.joined

    async def greeted(self):
        equal((await self.hear())["op"], "hello", f"{self.name}: greeting")
        for room in self.joined:
            await self.say(op="join", room=room)
            frame = await self.hear()
            equal((frame["op"], frame["room"]), ("joined", room), f"{self.name}: joining")
            self.seqs[room] = frame["head"]

    def take(self, frame):
        if frame["op"] == "event":
            room = frame["room"]
            # Counted again when all is over; here it shows the moment.
            if frame["seq"] != self.seqs[room] + 1:
                self.wrong(f"seq {frame['seq']} of {room} after {self.seqs[room]}")
            self.seqs[room] = frame["seq"]
            self.seen[room].append((frame["seq"], frame["type"], frame["by"], frame["data"]))
        elif frame["op"] in ("ok", "pong"):
            self.answers.put_nowait(frame)
        else:
            self.wrong(f"unexpected: {frame}")

    def wanted(self, log):
        return [(event["seq"], event["type"], event["by"], event["data"]) for event in log]

    async def act(self):
        edits = self.number % 10 == 0
        while await self.pause(6):
            self.written += 1
            text = f"{self.name} publish {self.written}"
            message = {"room": self.document, "type": "update", "data": {"content": text}} if edits else {"room": self.own, "data": text}
            id = f"{self.name}-{self.written}"
            await self.say(op="publish", id=id, **message)
            answer = await self.answer("a publish")
            if answer["op"] != "ok" or answer["id"] != id or "dup" in answer:
                self.wrong(f"a publish was answered {answer}")

    async def round_trip(self):
        await self.say(op="ping")
        await self.answer("a ping")

    def own_in(self, logs):
        events = logs[self.own] + logs[self.document]
        return [event for event in events if (event.get("id") or "").startswith(f"{self.name}-")]


KINDS = [Editor, PipelinePage, TicketPage, AgentPage, Native]


# --- a process of clients ---


class Scene:
    """What the clients of one process share."""

    def __init__(self, options):
        self.port = options.port
        self.names = Names(options.clients, options.directory)
        self.stop = asyncio.Event()
        self.sending = set()
        self.pace = max(PACE_MIN, options.clients / PACED_FOR)
        every = [kind(self, number) for number in range(options.clients) for kind in KINDS]
        self.clients = every[options.share :: options.processes]

    def ws(self, path):
        return f"ws://127.0.0.1:{self.port}{path}"

    async def stopped_within(self, seconds):
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except TimeoutError:
            return False
        return True

    @staticmethod
    async def is_late(moved, deadline):
        """Waits for something to move; true when nothing did in time."""
        try:
            await asyncio.wait_for(moved.wait(), deadline - time.monotonic())
        except TimeoutError:
            return True
        return False

    def also(self, sending):
        """From a listener, which must not wait."""
        task = asyncio.ensure_future(sending)
        self.sending.add(task)
        task.add_done_callback(self.sending.discard)

    async def open(self):
        gate = asyncio.Semaphore(OPENING_AT_ONCE)

        async def one(client):
            async with gate:
                await client.open()

        await asyncio.gather(*(one(client) for client in self.clients))

    async def logs(self):
        rooms = sorted({room for client in self.clients for room in client.rooms()} | {"tickets"})
        return {room: await read_events(self.port, room) for room in rooms}

    async def judge(self, bases):
        deadline = time.monotonic() + SOON
        logs = {room: [event for event in log if event["seq"] > bases[room]] for room, log in (await self.logs()).items()}
        figures = {kind.dialect: Counter() for kind in KINDS}
        wrong = []

        async def one(client):
            try:
                wanted = await client.settle(logs, deadline)
            except Silent:
                wanted = {room: client.wanted(logs[room]) for room in client.rooms()}
            told = figures[client.dialect]
            told.update(clients=1, frames=client.frames, written=client.written)
            for room, events in wanted.items():
                told.update(shown=len(client.seen[room]))
                found = compare(client.seen[room], events)
                told.update(found)
                if any(found.values()):
                    wrong.append(f"{client.name} in {room}: {found}; {difference(client.seen[room], events)}")
            if (stored := len(client.own_in(logs))) != client.written:
                client.wrong(f"wrote {client.written}, and the log has {stored}")
            told.update(errors=len(client.errors))
            wrong.extend(client.errors)

        await asyncio.gather(*(one(client) for client in self.clients))
        return {"figures": figures, "wrong": wrong[:SAID_OF_ERRORS]}


def text_of(event):
    return json.dumps(event, sort_keys=True)


def compare(seen, wanted):
    """How often something is missing, there again, out of its order, or known to nobody."""
    if seen == wanted:
        return {}
    shown, stored = Counter(map(text_of, seen)), Counter(map(text_of, wanted))
    more = shown - stored
    found = {
        "gaps": (stored - shown).total(),
        "duplicates": sum(count for event, count in more.items() if event in stored),
        "strangers": sum(count for event, count in more.items() if event not in stored),
    }
    if not any(found.values()):
        found["misplaced"] = 1
    return found


def difference(seen, wanted):
    at = next((n for n, (a, b) in enumerate(zip(seen, wanted)) if a != b), min(len(seen), len(wanted)))
    return f"at {at} of {len(wanted)}: shown {text_of(seen[at : at + 1])[:250]}, stored {text_of(wanted[at : at + 1])[:250]}"


async def worker(options):
    scene = Scene(options)
    await scene.open()
    tell("open")
    await told("look")
    bases = {room: (log[-1]["seq"] if log else 0) for room, log in (await scene.logs()).items()}
    tell("ready")
    await told("go")
    acting = [asyncio.create_task(client.act()) for client in scene.clients]
    await told("stop")
    scene.stop.set()
    done = await asyncio.gather(*acting, return_exceptions=True)
    for client, error in zip(scene.clients, done):
        if error is not None and not isinstance(error, Silent):
            client.wrong(f"{type(error).__name__}: {error}")
    tell("stopped")
    await told("judge")
    tell("judged", **await scene.judge(bases))


# --- the backend ---


class Refused(Exception):
    pass


class Backend:
    """Publishes what is numbered, and plays every task that it is given."""

    def __init__(self, options):
        self.url = f"ws://127.0.0.1:{options.port}/v1/backend"
        self.names = Names(options.clients)
        self.waiting = {}
        self.figures = Counter()
        self.stop = asyncio.Event()
        self.playing = set()

    async def run(self):
        async with opened(self.url) as self.socket:
            equal(json.loads(await self.socket.recv())["op"], "hello", "the backend's greeting")
            listening = asyncio.create_task(self.listen())
            kinds = ["execute", "cancel", "decision", "control", "ticket", "webhook", "response", "chat"]
            await self.send(op="take", kinds=kinds, max=64)
            tell("ready")
            await told("go")
            shows = [asyncio.create_task(show) for show in self.shows()]
            await told("stop")
            self.stop.set()
            await asyncio.gather(*shows)
            tell("stopped")
            await told("drain")
            await self.drain(listening)
            tell("drained", figures=self.figures)
            await told("end")

    async def send(self, **message):
        await self.socket.send(json.dumps(message))

    async def ask(self, key, **message):
        """Answers bear what they are answers to: an operation's id, or a task."""
        self.waiting[key] = asyncio.get_running_loop().create_future()
        await self.send(**message)
        answer = await asyncio.wait_for(self.waiting[key], SOON)
        if answer["op"] == "refused":
            raise Refused(answer["code"])
        equal(answer["op"], "status" if key == "status" else "ok", f"the backend is answered {answer}")
        return answer

    async def listen(self):
        async for text in self.socket:
            frame = json.loads(text)
            if frame["op"] == "task":
                task = asyncio.create_task(self.play(frame))
                self.playing.add(task)
                task.add_done_callback(self.played)
            else:
                key = "status" if frame["op"] == "status" else frame.get("task") or frame.get("id") or frame.get("request_id")
                self.waiting.pop(key).set_result(frame)

    def played(self, task):
        self.playing.discard(task)
        if error := task.exception():
            print(f"the backend failed at a task: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            self.figures["errors"] += 1

    async def publish(self, room, kind, data, id):
        self.figures["published"] += 1
        await self.ask(id, op="publish", room=room, type=kind, data=data, id=id)

    async def play(self, task):
        self.figures[f"{task['kind']} tasks"] += 1
        self.figures["again"] += task["attempt"] > 1
        try:
            await getattr(self, f"play_{task['kind']}", self.play_nothing)(task, task["data"], task["room"])
        except Refused as refused:
            # A run that another backend had begun and ended; nothing can be said of it any more.
            if str(refused) != "execution_over":
                raise
            self.figures["over"] += 1
        await self.ask(task["task"], op="done", task=task["task"], fence=task["fence"])

    async def play_nothing(self, task, data, room):
        pass

    async def play_execute(self, task, data, room):
        run, of = data["execution_id"], task["task"]
        await self.publish(room, "thinking", {"execution_id": run, "step": 1}, f"{of}-1")
        request = str(uuid.uuid5(uuid.NAMESPACE_URL, run))
        wanted = {"session": data["session_id"], "execution_id": run, "tool_name": "pay", "tool_args": {"for": data["command"]}}
        await self.ask(request, op="approval", id=request, **wanted)

    async def play_decision(self, task, data, room):
        run, of = data["execution_id"], task["task"]
        if data["decision"] not in ("approved", "edited"):
            return
        call = {"execution_id": run, "tool_id": of}
        await self.publish(room, "tool_call", {**call, "tool_name": data["tool_name"], "tool_args": data["tool_args"]}, f"{of}-1")
        await self.publish(room, "tool_result", {**call, "result": {"paid": True}, "success": True}, f"{of}-2")
        await self.publish(room, "complete", {"execution_id": run, "result": {}, "success": True}, f"{of}-3")

    async def play_ticket(self, task, data, room):
        ticket, of = {"ticket_id": data["ticket_id"]}, task["task"]
        await self.publish(room, "agent_started", {**ticket, "session_id": f"s-{of}"}, f"{of}-1")
        await self.publish(room, "agent_complete", {**ticket, "job_id": data.get("job_id", ""), "status": "completed"}, f"{of}-2")

    def shows(self):
        """What moves by itself, each at its own pace."""
        show = self.show
        for name in self.names.workflows:
            yield show(1, f"workflow:{name}", "progress", lambda n: {"progress": n % 100 / 100, "stage": "video", "message": f"step {n}"})
        for name in self.names.agents:
            yield show(2, f"agent:{name}", "agent_status", lambda n: {"status": "busy", "metrics": {"tasks_completed": n}})
        for name in self.names.topics:
            yield show(1, f"topic:{name}", "progress", lambda n: {"percentage": n % 100 / 100, "message": f"step {n}"})
        yield show(2, "coordinator", "coordinator_metrics", lambda n: {"total_messages": n, "active_workflows": len(self.names.workflows)})
        yield show(5, EVERYBODY, "news", lambda n: {"number": n})
        yield show(1, "tickets", "tool_execution", lambda n: {"session_id": "s", "ticket_id": "t", "tool_name": "Bash", "turn": n})
        yield show(1, "logs", "status_change", lambda n: {"ticket_id": f"t-{n}", "status": "done"})

    async def show(self, every, room, kind, data):
        number = 0
        dice = random.Random(room)
        while not await self.stopped_within(every * (0.75 + dice.random() / 2)):
            number += 1
            await self.publish(room, kind, {**data(number), "mark": f"{room} {number}"}, f"{room}-{number}")

    async def stopped_within(self, seconds):
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def drain(self, listening):
        """Until nothing waits to be played, whoever left it."""
        deadline = time.monotonic() + SOON
        while True:
            status = await self.ask("status", op="status")
            left = {kind: tasks for kind, tasks in status["tasks"].items() if tasks["open"]}
            if not left:
                break
            expect(time.monotonic() < deadline, lambda: f"tasks that nobody finishes: {left}")
            expect(not listening.done(), "the backend's connection ended")
            await asyncio.sleep(0.05)
        while self.playing:
            await asyncio.wait(list(self.playing))


# --- between the processes: a word on a line, each way ---


def tell(word, **facts):
    print(json.dumps({"word": word, **facts}), flush=True)


async def told(word):
    """Ends this process when whoever started it is gone."""
    global STDIN
    if STDIN is None:
        STDIN = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(STDIN), sys.stdin)
    line = (await STDIN.readline()).decode().strip()
    if not line:
        os._exit(1)
    equal(line, word, "what this process was told")


STDIN = None


def part(work):
    """Runs a process of the suite's; a failure is one line and the end, whatever else goes on in it."""

    async def run():
        try:
            await work
        except BaseException as error:
            print(f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-3)}", file=sys.stderr, flush=True)
            os._exit(1)

    asyncio.run(run())


class Part:
    """A process of the suite's own."""

    def __init__(self, *arguments):
        command = [sys.executable, __file__, *map(str, arguments)]
        self.label = " ".join(map(str, arguments[:1]))
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def tell(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def hear(self, word):
        """Every part has deadlines of its own, so that this ends."""
        line = self.process.stdout.readline()
        expect(line, f"{self.label} ended before it said {word}")
        said = json.loads(line)
        equal(said["word"], word, f"what {self.label} says")
        return said

    def end(self):
        self.process.kill()
        self.process.wait()


# --- the suite ---


def demo_program(options):
    """`cast`, when it is built and has a demo."""
    cast = Path(options.demo) if options.demo else Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "cast"
    if options.demo == "none" or not cast.exists():
        return None
    asked = subprocess.run([cast, "demo", "--help"], stdin=subprocess.DEVNULL, capture_output=True, timeout=SOON)
    return cast if asked.returncode == 0 else None


def prepare(server, names):
    for prompt in names.prompts:
        (server.prompts / f"{prompt}.md").write_text(f"before {prompt}")


def make_sessions(server, names):
    for session in names.sessions:
        status, _, body = server.request("POST", "/v1/sessions", {"id": session})
        equal(status, 201, f"a session ({body})")


def mixed(options):
    names = Names(options.clients)
    server = Server(config='[rooms]\nkeep = [{ room = "*", events = 1000000 }]\n')
    prepare(server, names)
    parts, demo = [], None
    with server:
        make_sessions(server, names)
        _, _, prompts = server.get("/api/prompts/all")
        first = next(prompt["id"] for prompt in prompts if prompt["name"] == names.prompts[0])
        directory = first.removesuffix(names.prompts[0])
        common = ("--port", server.port, "--clients", options.clients, "--processes", options.processes, "--directory", directory)
        try:
            workers = [Part("--worker", "--share", share, *common) for share in range(options.processes)]
            parts += workers
            together(workers, None, "open")
            together(workers, "look", "ready")
            backend = Part("--backend", *common)
            parts.append(backend)
            backend.hear("ready")
            connections = len(server.get("/v1/connections")[2]["connections"])
            if cast := demo_program(options):
                url = f"http://127.0.0.1:{server.port}"
                command = [cast, "demo", "--url", url, "--speed", "10", "--quiet"]
                demo = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            for part in parts:
                part.tell("go")
            time.sleep(options.seconds)
            # In this order: runs that were begun are ended by whoever plays them; what a killed demo leaves, the backend plays.
            together(workers, "stop", "stopped")
            together([backend], "stop", "stopped")
            if demo:
                equal(demo.poll(), None, "the demo's exit code before it was killed")
                demo.kill()
                demo.wait()
            backend.tell("drain")
            played = backend.hear("drained")["figures"]
            judged = together(workers, "judge", "judged")
        finally:
            for part in parts:
                part.end()
            if demo and demo.poll() is None:
                demo.kill()
        report(options, judged, played, connections, demo)


def together(parts, word, answer):
    for part in parts:
        if word:
            part.tell(word)
    return [part.hear(answer) for part in parts]


def report(options, judged, played, connections, demo):
    total = Counter()
    for kind in KINDS:
        figures = sum((Counter(part["figures"][kind.dialect]) for part in judged), Counter())
        total += figures
        print(
            f"behaviour: {kind.dialect}: {figures['clients']} clients, {figures['written']} written, {figures['shown']} events shown "
            f"in {figures['frames']} frames, {faults(figures)}",
            flush=True,
        )
    tasks = ", ".join(f"{count} {name}" for name, count in sorted(played.items()))
    print(f"behaviour: backend: {tasks}; {'beside cast demo' if demo else 'no cast demo was built'}", flush=True)
    print(f"behaviour: {connections} connections to one port for {options.seconds:g} s, {faults(total)}", flush=True)
    for wrong in [wrong for part in judged for wrong in part["wrong"]][:SAID_OF_ERRORS]:
        print(f"     {wrong}", flush=True)
    equal([total[name] for name in FAULTS], [0] * len(FAULTS), f"{', '.join(FAULTS)}")
    equal(played.get("errors", 0), 0, "errors of the backend")
    equal(total["clients"], len(KINDS) * options.clients, "clients")
    for kind in KINDS:
        figures = sum((Counter(part["figures"][kind.dialect]) for part in judged), Counter())
        expect(figures["shown"] > 0, f"no {kind.dialect} client was shown anything: nothing was tested")
    if not demo:
        expect(played.get("execute tasks") and played.get("decision tasks"), "no run was played: nothing was tested")
        equal((played.get("again", 0), played.get("over", 0)), (0, 0), "tasks that were given again, or were over")


FAULTS = ("errors", "gaps", "duplicates", "strangers", "misplaced")


def faults(figures):
    return ", ".join(f"{figures[name]} {name}" for name in FAULTS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=200, help="of each of the five kinds")
    parser.add_argument("--processes", type=int, default=3, help="that the clients are spread over")
    parser.add_argument("--demo", metavar="PATH", help="the program `cast`, or `none`; otherwise the release build's, where there is one")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--backend", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--directory", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return part(worker(options))
    if options.backend:
        return part(Backend(options).run())
    tally = Tally()
    tally.run(f"{options.clients} clients of each kind for {options.seconds:g} s", mixed, options)
    tally.finish()


if __name__ == "__main__":
    sys.exit(main())
