"""Ten clients decide the same approval at the same moment, over sockets and REST, again and again.

    races.py [--times 1000] [--lanes 4] [--seed N]

The ten: four pages (approve, reject, edit, approve), two native clients (approve, reject), three REST clients (approve,
reject, edit) and a backend over HTTP, each with a name of its own. All is written into the kernel before anybody reads, in
an order that the seed shuffles. Checked for each approval:
  - one of the ten wins, and the stored decision is his, with his name;
  - the nine others are told what was decided, by whom and when, all of them the same;
  - every socket, deciders and observers, is shown one event of it, and all pages the same bytes;
  - there is one `decision` task, and it says what was decided.
And at the end that each session's log holds each request and its decision once, in order and without a hole, that the native
observer was shown exactly this log, and that nothing came besides.
"""

import argparse
import asyncio
import json
import random
import sys
import time
import uuid
from collections import Counter

from harness import Http, Server, Tally, equal, expect, read_events, signed

from websockets.asyncio.client import connect

SOON = 30
SECRET = "a secret of the suite's own, longer than it must be"
CONFIG = f'[auth]\nmode = "debug"\nhs256_secret = "{SECRET}"\napi_keys = [{{ name = "clerk", key = "clerk-key-clerk-key", rights = ["*"] }}]\n'
KEY = {"Authorization": "Bearer clerk-key-clerk-key"}
EDITED = {"amount": 1}
# An event's type by what was decided.
EVENTS = {"approved": "approved", "rejected": "rejected", "edited": "edit_approved"}
DECISIONS = {"approve": "approved", "reject": "rejected", "edit": "edited"}


def token(user):
    return signed(SECRET, sub=user, user_id=user, exp=int(time.time()) + 3600)


def opened(url, **options):
    return connect(url, proxy=None, compression=None, max_size=None, open_timeout=SOON, ping_interval=None, **options)


# --- those who decide: `throw` writes and waits for nothing, `outcome` gives None to the winner, to others (decision, by, at) ---


class Page:
    """A socket of the agents dialect; as an observer it never throws."""

    def __init__(self, user, verdict=None):
        self.user, self.verdict = user, verdict

    async def open(self, lane):
        self.socket = await opened(lane.server.ws(f"/api/v1/ws?session_id={lane.session}&token={token(self.user)}"))
        equal(json.loads(await self.socket.recv())["data"]["user_id"], self.user, "whom the page is let in as")
        return self

    async def throw(self, approval):
        data = {"request_id": approval["request_id"]}
        if self.verdict == "edit":
            data["edited_args"] = EDITED
        await self.socket.send(json.dumps({"type": self.verdict, "data": data}))

    async def outcome(self, approval):
        """Reads up to the answer to a marker, which no later frame about this approval may follow."""
        request, event, told = approval["request_id"], None, []
        marker = f"marker-{uuid.uuid4()}"
        await self.socket.send(json.dumps({"type": marker, "data": {}}))
        marked = False
        while event is None or not marked:
            text = await asyncio.wait_for(self.socket.recv(), SOON)
            frame = json.loads(text)
            kind, data = frame["type"], frame["data"]
            if kind == "error" and marker in data["message"]:
                marked = True
                continue
            equal(data.get("request_id"), request, f"{self.user}: what a frame is about ({frame})")
            if kind == "error":
                told.append((data["decision"], data["decided_by"], data["decided_at"]))
            elif kind != "approval_required":
                expect(event is None, f"{self.user}: two events: {event} and {text}")
                event = text
        self.event = event
        expect(len(told) <= 1, f"{self.user}: told {len(told)} times: {told}")
        return told[0] if told else None


class Native:
    """A native client; as an observer it never throws."""

    def __init__(self, user, verdict=None):
        self.user, self.verdict = user, verdict
        self.events = []
        self.seq = 0

    async def open(self, lane):
        headers = {"Authorization": f"Bearer {token(self.user)}"}
        self.room = lane.room
        self.socket = await opened(lane.server.ws("/v1/connect"), additional_headers=headers)
        equal(json.loads(await self.socket.recv())["user"], self.user, "whom the native client is let in as")
        await self.socket.send(json.dumps({"op": "join", "room": self.room}))
        self.seq = json.loads(await self.socket.recv())["head"]
        return self

    async def throw(self, approval):
        fields = {"room": self.room, "id": f"{self.user}:{approval['request_id']}", "approval": approval["request_id"]}
        await self.socket.send(json.dumps({"op": "decide", **fields, "decision": self.verdict, "seen": approval["digest"]}))

    async def outcome(self, approval):
        event, answer = None, None
        while event is None or (answer is None and self.verdict):
            frame = json.loads(await asyncio.wait_for(self.socket.recv(), SOON))
            if frame["op"] != "event":
                expect(answer is None, f"{self.user}: two answers: {answer} and {frame}")
                answer = frame
                continue
            equal(frame["seq"], self.seq + 1, f"{self.user}: seq")
            self.seq = frame["seq"]
            self.events.append(frame)
            equal(frame["data"]["request_id"], approval["request_id"], f"{self.user}: what an event is about")
            if frame["type"] != "approval_required":
                event = frame
        self.event = event
        if answer is None or answer["op"] == "ok":
            equal(answer and answer["seq"], answer and event["seq"], f"{self.user}: the seq of his decision")
            return None
        equal((answer["op"], answer["code"]), ("refused", "already_decided"), f"{self.user}: {answer}")
        equal(answer["seq"], event["seq"], f"{self.user}: the seq of the decision that he is told of")
        return answer["decision"], answer["by"], answer["at"]


class Rest:
    """A program at the agents dialect's REST."""

    def __init__(self, user, verdict):
        self.user, self.verdict = user, verdict
        self.headers = {"Authorization": f"Bearer {token(user)}"}

    async def open(self, lane):
        self.http = await Http.connect(lane.server.port)
        return self

    async def throw(self, approval):
        body = {"edit": {"edited_args": EDITED}, "reject": {"reason": "no"}}.get(self.verdict)
        self.http.send("POST", f"/api/v1/approvals/{approval['request_id']}/{self.verdict}", body, self.headers)

    async def outcome(self, _approval):
        status, body = await asyncio.wait_for(self.http.answer(), SOON)
        if status == 200:
            equal(body["decision"], DECISIONS[self.verdict], f"{self.user}: his decision")
            return None
        equal(status, 400, f"{self.user}: {body}")
        return body["decision"], body["decided_by"], body["decided_at"]


class Clerk:
    """A backend that decides for somebody."""

    user, verdict = "clerk/boss", "approve"

    async def open(self, lane):
        self.http = await Http.connect(lane.server.port)
        return self

    async def throw(self, approval):
        body = {"decision": self.verdict, "by": "boss", "seen": approval["digest"]}
        self.http.send("POST", f"/v1/approvals/{approval['request_id']}/decide", body, KEY)

    async def outcome(self, _approval):
        status, body = await asyncio.wait_for(self.http.answer(), SOON)
        if status == 200:
            return None
        equal((status, body.get("code")), (409, "already_decided"), f"{self.user}: {body}")
        return body["decision"]["decision"], body["decision"]["by"], body["decision"]["at"]


# --- one session with its ten deciders, its observers and whoever takes its decisions ---


class Desk:
    """Takes the decisions of all sessions, as a backend."""

    def __init__(self, server):
        self.server = server
        self.given = {}

    async def open(self):
        self.socket = await opened(self.server.ws("/v1/backend"), additional_headers=KEY)
        await self.socket.recv()
        await self.socket.send('{"op":"take","kinds":["decision"],"max":1000}')
        self.reading = asyncio.create_task(self.read())
        return self

    async def read(self):
        async for text in self.socket:
            frame = json.loads(text)
            if frame["op"] == "task":
                self.task_of(frame["data"]["request_id"]).put_nowait(frame)
                await self.socket.send(json.dumps({"op": "done", "task": frame["task"], "fence": frame["fence"]}))
            else:
                equal(frame["op"], "ok", f"the desk is answered {frame}")

    def task_of(self, request):
        return self.given.setdefault(request, asyncio.Queue())

    async def decision(self, request):
        waiting = asyncio.create_task(self.task_of(request).get())
        done, _ = await asyncio.wait({waiting, self.reading}, timeout=SOON, return_when=asyncio.FIRST_COMPLETED)
        if waiting not in done:
            waiting.cancel()
            expect(self.reading not in done, lambda: f"the desk ended: {self.reading.exception()}")
            raise AssertionError(f"no decision task for {request} within {SOON} s")
        return waiting.result()

    async def close(self):
        self.reading.cancel()
        twice = [request for request, queue in self.given.items() if not queue.empty()]
        equal(twice, [], "decisions that were given more than once")


class Lane:
    def __init__(self, server, desk, number):
        self.server, self.desk, self.number = server, desk, number
        self.session = str(uuid.uuid4())
        self.room = f"session:{self.session}"
        self.winners = Counter()
        self.first_won = 0
        self.decided = []

    async def open(self):
        self.http = await Http.connect(self.server.port)
        status, body = await self.http.ask("POST", "/v1/sessions", {"id": self.session}, KEY)
        equal(status, 201, f"a session ({body})")
        deciders = [Page("page-1", "approve"), Page("page-2", "reject"), Page("page-3", "edit"), Page("page-4", "approve")]
        deciders += [Native("native-1", "approve"), Native("native-2", "reject")]
        deciders += [Rest("rest-1", "approve"), Rest("rest-2", "reject"), Rest("rest-3", "edit"), Clerk()]
        watchers = [Page("watcher-1"), Page("watcher-2"), Native("watcher-3")]
        self.deciders = [await decider.open(self) for decider in deciders]
        self.watchers = [await watcher.open(self) for watcher in watchers]
        return self

    async def race(self, n, dice):
        wanted = {"session": self.session, "tool_name": "pay", "tool_args": {"n": n, "lane": self.number}, "amount": n}
        status, approval = await self.http.ask("POST", "/v1/approvals", wanted, KEY)
        equal((status, approval["state"]), (201, "pending"), f"an approval ({approval})")
        order = dice.sample(self.deciders, len(self.deciders))
        for decider in order:
            await decider.throw(approval)
        told = await asyncio.gather(*(decider.outcome(approval) for decider in order))
        await asyncio.gather(*(watcher.outcome(approval) for watcher in self.watchers))
        winners = [decider for decider, loss in zip(order, told) if loss is None]
        equal(len(winners), 1, f"winners ({[winner.user for winner in winners]})")
        winner = winners[0]
        decision = DECISIONS[winner.verdict]
        losers = {loss for loss in told if loss is not None}
        equal({loss[:2] for loss in losers}, {(decision, winner.user)}, "what the others are told")
        equal(len(losers), 1, f"moments that they are told ({losers})")
        self.same_events(approval, decision)
        task = (await self.desk.decision(approval["request_id"]))["data"]
        equal((task["decision"], task["by"]), (decision, winner.user), "what the backend is told to do")
        _, stored = await self.http.ask("GET", f"/v1/approvals/{approval['request_id']}", None, KEY)
        said = stored["decision"], stored["decided_by"], stored["decided_at"]
        equal(said, losers.pop(), "what is stored")
        self.winners[winner.user] += 1
        self.first_won += winner is order[0]
        self.decided.append((approval["request_id"], EVENTS[decision]))

    def same_events(self, approval, decision):
        sockets = [client for client in self.deciders + self.watchers if isinstance(client, (Page, Native))]
        pages = {client.event for client in sockets if isinstance(client, Page)}
        equal(len(pages), 1, f"different frames for one decision: {pages}")
        events = [client.event for client in sockets if isinstance(client, Native)]
        expect(all(event == events[0] for event in events), lambda: f"different events for one decision: {events}")
        page = json.loads(pages.pop())
        equal((page["type"], page["data"]), (events[0]["type"], events[0]["data"]), "pages against native clients")
        data = page["data"]
        equal((page["type"], data["request_id"], data["decision"]), (EVENTS[decision], approval["request_id"], decision), "the event")
        equal(data["edited_args"], EDITED if decision == "edited" else None, "edited_args")

    async def compare(self):
        log = await read_events(self.server.port, self.room, headers=KEY)
        equal([event["seq"] for event in log], list(range(1, len(log) + 1)), "the log's seqs")
        told = [(event["data"]["request_id"], event["type"]) for event in log if event["type"] != "session_created"]
        wanted = [pair for request, event in self.decided for pair in ((request, "approval_required"), (request, event))]
        equal(told, wanted, "the log")
        watcher = self.watchers[-1]
        shown = [(event["seq"], event["type"], event["data"]) for event in watcher.events]
        equal(shown, [(event["seq"], event["type"], event["data"]) for event in log[-len(shown) :]], "the native watcher")
        equal(len(shown), len(wanted), "events that the native watcher was shown")
        for client in self.deciders + self.watchers:
            if isinstance(client, (Page, Native)):
                await self.is_quiet(client)

    async def is_quiet(self, client):
        """Nothing is on its way any more: the answer to a ping is the next frame."""
        is_page = isinstance(client, Page)
        await client.socket.send('{"type":"ping","data":{}}' if is_page else '{"op":"ping"}')
        frame = json.loads(await asyncio.wait_for(client.socket.recv(), SOON))
        said = frame["data"]["message"] if is_page else frame["op"]
        equal(said, "Unknown message type: ping" if is_page else "pong", f"{client.user}: a frame too many ({frame})")

    async def run(self, times, dice):
        for n in range(times):
            await self.race(n, dice)
        await self.compare()


async def race(options, seed):
    with Server(config=CONFIG) as server:
        desk = await Desk(server).open()
        lanes = [await Lane(server, desk, number).open() for number in range(options.lanes)]
        share = [options.times // options.lanes + (number < options.times % options.lanes) for number in range(options.lanes)]
        begun = time.monotonic()
        await asyncio.gather(*(lane.run(times, random.Random(seed + lane.number)) for lane, times in zip(lanes, share)))
        took = time.monotonic() - begun
        await desk.close()
    winners = sum((lane.winners for lane in lanes), Counter())
    equal(sum(winners.values()), options.times, "approvals that were decided")
    print(
        f"behaviour: {options.times} approvals, 10 deciders each: 1 winner each, {9 * options.times} others told the same, "
        f"{len(desk.given)} decision tasks, all sockets shown the same; {took:.1f} s",
        flush=True,
    )
    first_won = sum(lane.first_won for lane in lanes)
    by = ", ".join(f"{user} {count}" for user, count in sorted(winners.items()))
    print(f"     won by {by}; the first to write won {first_won}", flush=True)
    # If the same few won each time, nobody raced.
    expect(options.times < 50 or len(winners) >= 5, f"only {len(winners)} of ten ever won")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--lanes", type=int, default=4, help="sessions in which approvals are decided side by side")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    tally = Tally()
    tally.run(f"{options.times} approvals with seed {options.seed}", race, options, options.seed, seconds=600)
    tally.finish()


if __name__ == "__main__":
    sys.exit(main())
