"""The written protocol as a foreign reader meets it: both documents, their validators, and everything that is said.

    protocol_suite.py [BASE_URL]        of a running server in debug mode; without one, a server of its own

The documents are fetched and given to their validators: OpenAPI 3.1 to openapi-spec-validator, AsyncAPI 3 to
@asyncapi/parser (below target/node). Then every frame and request of the golden transcripts, and of a conversation over the
native and the backend protocol, is held against the schemas. A validator that this machine lacks is NOT RUN, and so is the
suite then (exit code 77), never passed.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections import Counter
from pathlib import Path

from golden_schemas import answer_to, is_refusal, pattern_of, read, split, value_of, verb_of
from harness import OPENER, ROOT, Server, Tally, equal, expect

GOLDEN = ROOT / "tests" / "it" / "golden"
NODE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "node"
NOT_RUN = 77
SOON = 10

missing = []


def not_run(what, how):
    missing.append(what)
    print(f"NOT RUN: {what}: {how}", flush=True)


# --- the documents ---


def fetch(base, path):
    with OPENER.open(urllib.request.Request(base + path), timeout=10) as response:
        equal(response.status, 200, f"status of {path}")
        equal(response.headers["Content-Type"], "application/json", f"type of {path}")
        return json.loads(response.read())


def openapi_is_valid(document):
    from openapi_spec_validator import OpenAPIV31SpecValidator

    expect(document["openapi"].startswith("3.1."), f"OpenAPI {document['openapi']}")
    faults = [f"{list(fault.absolute_path)}: {fault.message}" for fault in OpenAPIV31SpecValidator(document).iter_errors()]
    expect(not faults, lambda: "\n".join(faults[:20]))


# Severity 0 is an error and 1 a warning; the parser's hints (2 and 3) are about newer versions of the format.
ASYNCAPI = """
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
const { Parser } = createRequire(process.argv[1])("@asyncapi/parser");
const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
const faults = diagnostics.filter((fault) => fault.severity < 2).map((fault) => `${fault.path.join(".")}: ${fault.message}`);
console.log(JSON.stringify({ faults, messages: document ? document.messages().length : 0 }));
"""


def asyncapi_is_valid(document):
    expect(document["asyncapi"].startswith("3."), f"AsyncAPI {document['asyncapi']}")
    command = ["node", "--input-type=module", "--eval", ASYNCAPI, str(NODE / "package.json")]
    ran = subprocess.run(command, input=json.dumps(document), capture_output=True, text=True, timeout=120)
    equal(ran.returncode, 0, f"exit code of the parser, which said {ran.stderr[-500:]!r}")
    told = json.loads(ran.stdout)
    expect(not told["faults"], lambda: "\n".join(told["faults"][:20]))
    equal(told["messages"], len(document["components"]["messages"]), "messages that the parser saw")


def the_root_links_to_them(base):
    root = fetch(base, "/")
    equal((root.get("openapi"), root.get("asyncapi")), ("/openapi.json", "/asyncapi.json"), "links of GET /")


# --- what is said ---


class Sockets:
    """The messages of each channel, as validators."""

    def __init__(self, document):
        from jsonschema import Draft202012Validator

        self.channels = []
        messages = document["components"]["messages"]
        validators = {name: Draft202012Validator(message["payload"]) for name, message in messages.items()}
        for validator in validators.values():
            validator.check_schema(validator.schema)
        for name, channel in document["channels"].items():
            query = channel["bindings"]["ws"].get("query", {})
            said = [(one, validators[one], messages[one]["contentType"] == "text/plain") for one in channel["messages"]]
            self.channels.append((name, pattern_of(channel["address"]), query.get("required", []), said))
        # Whatever has more to match comes first, as in the server.
        self.channels.sort(key=lambda channel: (-len(channel[2]), -len(channel[1].pattern)))
        self.counted = Counter()

    def channel(self, target):
        path, query = split(target)
        path = urllib.parse.unquote(path)
        for name, pattern, required, said in self.channels:
            if all(one in query for one in required) and pattern.match(path):
                return name, said
        raise AssertionError(f"no channel is at {target}")

    def fitting(self, target, text, side):
        """The messages of one side that a frame is, and why it is not the others."""
        channel, said = self.channel(target)
        value, fits, whys = value_of(text), [], []
        for name, validator, is_plain in said:
            if side not in name:
                continue
            instance = text if is_plain else value
            fault = None if instance is None else next(iter(validator.iter_errors(instance)), None)
            if fault is None and (instance is not None or text == "null"):
                fits.append(name)
            elif fault is not None:
                whys.append(f"{name}: {fault.message[:150]}")
        return channel, fits, whys

    def must_fit(self, place, target, text, side):
        channel, fits, whys = self.fitting(target, text, side)
        expect(fits, lambda: f"{place}: no {side} message of {channel} is {text[:300]}\n  " + "\n  ".join(whys))
        self.counted[fits[0]] += 1

    def verbs(self, target):
        """What the clients' messages there call themselves."""
        _, said = self.channel(target)
        properties = [validator.schema.get("properties", {}) for name, validator, _ in said if ".client." in name]
        verbs = [one[key].get("const") for one in properties for key in ("op", "action", "type") if key in one]
        return {verb for verb in verbs if verb}


def frames_fit(transcript, sockets):
    """Returns how many frames were held against the schemas, and how many of the clients' were not meant to be valid."""
    held, meant_to_fail = 0, 0

    def makes_sense(frame):
        return bool(sockets.fitting(frame.path, frame.text, ".client.")[1])

    for index, frame in enumerate(transcript.frames):
        if frame.text is None:
            continue
        if not frame.by_client:
            sockets.must_fit(frame.place, frame.path, frame.text, ".server.")
        elif not makes_sense(frame):
            # What fits nothing must be nonsense to the server too.
            known = verb_of(frame.text) in sockets.verbs(frame.path)
            answer = answer_to(index, transcript.frames, makes_sense)
            expect(
                not known or is_refusal(answer),
                lambda: f"{frame.place}: {frame.text[:200]} fits no schema, but was answered {answer}",
            )
            meant_to_fail += 1
            continue
        else:
            sockets.must_fit(frame.place, frame.path, frame.text, ".client.")
        held += 1
    return held, meant_to_fail


class Http:
    """The operations, as validators."""

    def __init__(self, document):
        from jsonschema import Draft202012Validator

        self.document = document
        self.components = {"components": document["components"]}
        self.of = lambda schema: Draft202012Validator({**self.components, **schema})
        self.operations = [
            (pattern_of(path), len(path.split("{")[0]), method.upper(), operation)
            for path, item in document["paths"].items()
            for method, operation in item.items()
        ]
        self.operations.sort(key=lambda operation: (operation[0].groups, "{" in operation[0].pattern, -operation[1]))
        self.literal = {path: item for path, item in document["paths"].items() if "{" not in path}

    def operation(self, method, path):
        method = "GET" if method == "HEAD" else method
        if method.lower() in self.literal.get(path, {}):
            return self.literal[path][method.lower()]
        found = [one for one in self.operations if one[2] == method and one[0].match(path)]
        return max(found, key=lambda one: len(one[0].pattern))[3] if found else None

    def judge(self, request):
        """True when request and answer were held against schemas."""
        path = urllib.parse.unquote(split(request.path)[0])
        operation = self.operation(request.method, path)
        if request.method == "REFUSED":
            # A handshake: the refusals of the door have one shape.
            response = self.document["components"]["responses"]["Problem"]
        elif operation is None:
            known = any(pattern.match(path) for pattern, *_ in self.operations)
            expect(request.status in (404, 405, 426, 204) or known, f"{request.place}: {path} is not written down")
            return False
        else:
            response = operation["responses"].get(str(request.status))
            if response is None:
                response = operation["responses"].get("default")
            expect(response is not None, f"{request.place}: {request.method} {path} says nothing of {request.status}")
            if "$ref" in response:
                response = self.document["components"]["responses"]["Problem"]
            self.judge_body(request, operation)
        self.judge_answer(request, response)
        return True

    def judge_body(self, request, operation):
        body = operation.get("requestBody")
        if body is None or request.status >= 300 or not request.body:
            return
        (media, content), = body["content"].items()
        for text in request.body.splitlines() if "ndjson" in media else [request.body]:
            fault = next(iter(self.of(content["schema"]).iter_errors(json.loads(text))), None)
            expect(fault is None, lambda: f"{request.place}: was taken, and is no {request.path}: {fault.message[:300]}")

    def judge_answer(self, request, response):
        if not request.answer:
            return
        whys = []
        for media, content in response.get("content", {}).items():
            values = request.answer.splitlines() if "ndjson" in media else [request.answer]
            values = values if media.startswith("text/") else [value_of(value) for value in values]
            faults = [fault for value in values for fault in self.of(content["schema"]).iter_errors(value)]
            if not faults:
                return
            whys.append(f"{media}: {faults[0].message[:300]}")
        raise AssertionError(f"{request.place}: {request.status} {request.answer[:200]}\n  " + "\n  ".join(whys))


# --- a conversation that no transcript holds yet ---


class Talk:
    """A socket on which everything said by either side is held against the schemas."""

    def __init__(self, base, path, sockets):
        self.url, self.path, self.sockets = base.replace("http", "ws", 1) + path, path, sockets

    async def __aenter__(self):
        from websockets.asyncio.client import connect

        self.socket = await connect(self.url, proxy=None)
        return self

    async def __aexit__(self, *error):
        await self.socket.close()

    async def say(self, **message):
        text = json.dumps(message)
        self.sockets.must_fit("said", self.path, text, ".client.")
        await self.socket.send(text)

    async def next(self):
        text = await asyncio.wait_for(self.socket.recv(), SOON)
        self.sockets.must_fit("heard", self.path, text, ".server.")
        message = json.loads(text)
        return message.get("op", message.get("type")), message

    async def hear(self, op):
        heard, message = await self.next()
        equal(heard, op, f"op of {message}")
        return message

    async def hear_both(self, *ops):
        """In whichever order."""
        heard = [(await self.next())[0] for _ in ops]
        equal(sorted(heard), sorted(ops), "what was heard")

    async def ask(self, answer, **message):
        await self.say(**message)
        return await self.hear(answer)


async def native_and_backend(base, sockets):
    async with Talk(base, "/v1/connect", sockets) as ann, Talk(base, "/v1/connect", sockets) as bob:
        for one in (ann, bob):
            await one.hear("hello")
            await one.ask("joined", op="join", room="proto:1")
        await ann.say(op="publish", room="proto:1", id="1", type="note", data={"n": 1}, if_rev=0)
        await ann.hear_both("ok", "event")
        event = await bob.hear("event")
        equal((event["seq"], event["data"]), (1, {"n": 1}), "event")
        await ann.ask("conflict", op="publish", room="proto:1", id="2", data=2, if_rev=9)
        again = await ann.ask("ok", op="publish", room="proto:1", id="1", type="note", data={"n": 1}, if_rev=0)
        expect(again.get("dup") is True, f"a resend was answered {again}")
        await ann.say(op="signal", room="proto:1", data={"typing": True})
        await bob.hear("signal")
        await bob.ask("presence", op="presence", room="proto:1")
        await bob.ask("joined", op="join", room="proto:1", since={"epoch": "ffffffffffffffff", "seq": 1})
        await bob.hear("reset")
        await bob.ask("left", op="leave", room="proto:1")
        await bob.ask("pong", op="ping")
        await bob.socket.send('{"op":"fly"}')
        await bob.hear("refused")
    await a_run(base, sockets)


async def a_run(base, sockets):
    async with Talk(base, "/v1/backend", sockets) as worker:
        await worker.hear("hello")
        made = await worker.ask("ok", op="session", user_id="ann")
        session = made["session"]
        await worker.say(op="take", kinds=["execute", "decision", "cancel"], max=5)
        path = f"/api/v1/ws/?session_id={session}"
        async with Talk(base, path, sockets) as page, Talk(base, "/v1/connect", sockets) as ann:
            await page.hear("connected")
            await ann.hear("hello")
            await ann.ask("joined", op="join", room=f"session:{session}")
            await page.ask("thinking", type="execute", data={"command": "pay", "plan": [{"step": 1}]})
            await ann.hear("event")
            task = await worker.hear("task")
            wanted = await worker.ask("ok", op="approval", session=session, tool_name="pay", tool_args={"to": "x"}, amount=5)
            await page.hear("approval_required")
            await ann.hear("event")
            decision = {"room": f"session:{session}", "approval": wanted["request_id"], "decision": "approve"}
            await ann.ask("refused", op="decide", id="d1", seen="0" * 40, **decision)
            await ann.say(op="decide", id="d2", seen=wanted["digest"], **decision)
            await page.hear("approved")
            await worker.hear("task")
            await ann.hear_both("ok", "event")
            await ann.ask("refused", op="decide", id="d3", seen=wanted["digest"], **decision)
            held = {"task": task["task"], "fence": task["fence"]}
            room = f"session:{session}"
            await worker.ask("ok", op="publish", room=room, type="complete", data={"result": "paid"}, id="c", **held)
            await page.hear("complete")
            await worker.ask("ok", op="done", **held)
            await worker.ask("refused", op="done", task=task["task"], fence=task["fence"] + 1)
            await worker.ask("status", op="status")
            await worker.ask("pong", op="ping")


# --- all of it ---


def has(module):
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def run(base):
    tally = Tally()
    documents = {}

    def fetched():
        documents["openapi"], documents["asyncapi"] = fetch(base, "/openapi.json"), fetch(base, "/asyncapi.json")

    tally.run("both documents are served", fetched)
    if len(documents) < 2:
        return tally
    tally.run("the root links to them", the_root_links_to_them, base)
    validate(tally, documents)
    if has("jsonschema"):
        hold(tally, base, documents)
    else:
        not_run("the transcripts against the schemas", "jsonschema is missing: pip install jsonschema")
    return tally


def validate(tally, documents):
    if has("openapi_spec_validator"):
        tally.run("openapi-spec-validator finds no fault", openapi_is_valid, documents["openapi"])
    else:
        not_run("the OpenAPI validator", "openapi-spec-validator is missing: pip install openapi-spec-validator")
    if shutil.which("node") and (NODE / "node_modules" / "@asyncapi" / "parser").is_dir():
        tally.run("@asyncapi/parser finds no fault", asyncapi_is_valid, documents["asyncapi"])
    else:
        not_run("the AsyncAPI validator", f"no node, or no @asyncapi/parser: npm install --prefix {NODE} @asyncapi/parser@3")


def hold(tally, base, documents):
    sockets, http = Sockets(documents["asyncapi"]), Http(documents["openapi"])
    totals = Counter()

    def one(file):
        transcript = read(file)
        held, nonsense = frames_fit(transcript, sockets)
        judged = sum(http.judge(request) for request in transcript.requests)
        totals.update(frames=held, nonsense=nonsense, requests=judged, transcripts=1)
        expect(transcript.frames or transcript.requests, f"{file.name} holds nothing")

    files = sorted(GOLDEN.glob("*.txt"))
    expect(files, f"no transcripts in {GOLDEN}")
    for file in files:
        tally.run(f"golden {file.stem}", one, file)
    if has("websockets"):
        tally.run("a conversation over the native and the backend protocol", native_and_backend, base, sockets)
    else:
        not_run("the conversation", "websockets is missing: pip install websockets")
    print(
        f"{totals['transcripts']} transcripts: {totals['frames']} frames fit their channel's schemas, {totals['nonsense']} were "
        f"nonsense on purpose, {totals['requests']} requests and answers fit theirs",
        flush=True,
    )
    by_dialect = Counter(name.split(".")[0] for name in sockets.counted.elements())
    print("frames by dialect: " + ", ".join(f"{name} {count}" for name, count in sorted(by_dialect.items())), flush=True)
    unsaid = sorted(set(documents["asyncapi"]["components"]["messages"]) - set(sockets.counted))
    print(f"{len(unsaid)} messages that nothing here said: {', '.join(unsaid) or 'none'}", flush=True)


def main():
    if len(sys.argv) > 1:
        tally = run(sys.argv[1].rstrip("/"))
    else:
        with Server() as server:
            tally = run(f"http://127.0.0.1:{server.port}")
    if missing and not tally.failed:
        print(f"{tally.passed} passed, {len(missing)} NOT RUN: {'; '.join(missing)}", flush=True)
        sys.exit(NOT_RUN)
    tally.finish()


if __name__ == "__main__":
    main()
