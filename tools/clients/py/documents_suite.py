"""The documents dialect as its clients meet it: real sockets, real Markdown files, a real kill.

    documents_suite.py [FILTER]

Every expectation is a line of the contract (paths and messages of the prompt editor). Prompt ids are asked of the server,
since what a path id begins with depends on how the directory was configured.
"""

import asyncio
import json
import sys
import time
import urllib.parse
from datetime import datetime, timedelta

from harness import Server, Tally, equal, expect

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

# What must come comes within this; what must not come is waited for as long as a round trip can take on a busy machine.
SOON = 10
SILENCE = 0.3

PROMPTS = 60


class Client:
    """A socket that speaks JSON."""

    def __init__(self, socket):
        self.socket = socket

    async def send(self, **message):
        await self.socket.send(json.dumps(message))

    async def hear(self, action=None):
        message = json.loads(await asyncio.wait_for(self.socket.recv(), SOON))
        if action is not None:
            equal(message.get("action"), action, f"action of {json.dumps(message)[:200]}")
        return message

    async def ask(self, answer, **message):
        await self.send(**message)
        return await self.hear(answer)

    async def is_silent(self, seconds=SILENCE):
        try:
            heard = await asyncio.wait_for(self.socket.recv(), seconds)
        except asyncio.TimeoutError:
            return
        raise AssertionError(f"heard {heard!r:.300} where silence was due")

    async def is_alive(self):
        """Answers come in order, so an answered question also shows that nothing was said before it."""
        heard = await self.ask("expanded", action="expand", content="alive")
        equal(heard["expanded"], "alive", "expansion of plain text")


class Prompts:
    """A server over PROMPTS Markdown files, and the ids it knows them by."""

    def __init__(self):
        self.server = Server(config='[drain]\nwindow = "1s"\ntimeout = "10s"\n[origins]\nallow = ["http://localhost:5173"]\n')
        write_prompts(self.server.prompts)

    def __enter__(self):
        self.server.__enter__()
        self.by_name = {prompt["name"]: prompt for prompt in self.listed()}
        return self

    def __exit__(self, *error):
        self.server.__exit__(*error)

    def listed(self):
        status, _, prompts = self.server.get("/api/prompts/all")
        equal(status, 200, "status of /api/prompts/all")
        return prompts

    def id(self, name):
        return self.by_name[name]["id"]

    def path(self, name):
        return urllib.parse.quote(self.id(name))

    def open(self, name, **options):
        return self.at(f"/ws/prompts/{self.path(name)}", **options)

    def at(self, path, **options):
        return Opened(self.server.ws(path), options)

    def stored(self, name):
        status, _, prompt = self.server.get(f"/api/prompts/{self.path(name)}")
        equal(status, 200, f"status of GET {name}")
        return prompt

    def file(self, name):
        found = list(self.server.prompts.rglob(f"{name}.md"))
        equal(len(found), 1, f"files of {name}")
        return found[0].read_text("utf-8")


class Opened:
    """`async with prompts.open(…) as client`, its `initial` in `client.initial` unless `greeted=False`."""

    def __init__(self, url, options):
        self.greeted = options.pop("greeted", True)
        self.connection = connect(url, proxy=None, compression=None, max_size=None, **options)

    async def __aenter__(self):
        client = Client(await self.connection.__aenter__())
        if self.greeted:
            client.initial = await client.hear("initial")
        return client

    async def __aexit__(self, *error):
        await self.connection.__aexit__(*error)


def write_prompts(root):
    """Sixty prompts: plain, with front matter, nested inclusions, subdirectories, Unicode."""

    def write(path, text):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")

    write("main.md", "---\ndescription: The main one\ntags:\n- a\n- b\n---\n\nmain [[inc]] end [[missing_one]]")
    write("inc.md", "inc-start [[deep]] inc-end")
    write("deep.md", "deepest")
    write("loop_a.md", "A [[loop_b]]")
    write("loop_b.md", "B [[loop_a]]")
    write("sub/dir/nested.md", "nested in sub/dir")
    write("sub/other/sibling.md", "sibling")
    write("fragments/intro.md", "---\ndescription: An intro\n---\n\nHello from a fragment")
    write("grün/überschrift.md", "---\ndescription: Grüße → 日本\ntags:\n- größe\n---\n\nÜber 日本語 🎉")
    write("with space.md", "a name with a space")
    chain = 8
    for depth in range(chain):
        write(f"chain_{depth}.md", f"{depth}[[chain_{depth + 1}]]" if depth + 1 < chain else str(depth))
    for n in range(PROMPTS - 10 - chain):
        front = f"---\ndescription: Prompt {n}\ntags:\n- bulk\n- n{n}\n---\n\n" if n % 2 else ""
        write(f"bulk/{n % 4}/bulk_{n}.md", f"{front}Bulk prompt {n} includes [[deep]] and [[inc]].")


def is_aware_utc(timestamp):
    moment = datetime.fromisoformat(timestamp)
    expect(moment.utcoffset() == timedelta(0), f"{timestamp} is not aware UTC")


# --- reading ---


def test_all_files_are_there(prompts):
    expect(PROMPTS >= 50, "the contract asks for at least 50")
    equal(len(prompts.by_name), PROMPTS, "prompts listed")
    for prompt in prompts.by_name.values():
        for key in ("id", "name", "directory", "content", "tags", "unique_id", "display_name", "directory_name"):
            expect(key in prompt, f"{key} missing in the list")


async def test_initial(prompts):
    async with prompts.open("main") as client:
        initial = client.initial
        equal(initial["content"], "main [[inc]] end [[missing_one]]", "content")
        equal((initial["description"], sorted(initial["tags"])), ("The main one", ["a", "b"]), "front matter")
        equal(initial["is_composite"], True, "is_composite")
        is_aware_utc(initial["updated_at"])
        await client.is_silent()
    async with prompts.open("deep") as client:
        equal(client.initial["is_composite"], False, "is_composite of plain text")
        equal(client.initial["description"], None, "absent description")


async def test_unicode_survives(prompts):
    async with prompts.open("überschrift") as client:
        equal(client.initial["content"], "Über 日本語 🎉", "content")
        equal(client.initial["description"], "Grüße → 日本", "description")


def spellings(prompts, name):
    prompt = prompts.by_name[name]
    ids = {prompt["id"], prompt["unique_id"], name}
    paths = ["/ws/prompts/{}", "/ws/prompts/fragments/{}", "/api/prompts/ws/{}", "/api/prompts/ws/fragments/{}", "/api/ws/prompts/{}"]
    for path in paths:
        for id in sorted(ids):
            yield path.format(urllib.parse.quote(id))
            if "/" in id:
                yield path.format(urllib.parse.quote(id, safe=""))
                yield path.format(urllib.parse.quote("/" + id.lstrip("/")))


async def test_every_spelling_is_one_room(prompts):
    for name in ("intro", "nested", "überschrift"):
        content = prompts.stored(name)["content"]
        paths = list(dict.fromkeys(spellings(prompts, name)))
        clients = []
        try:
            for path in paths:
                opened = prompts.at(path)
                try:
                    client = await opened.__aenter__()
                except InvalidStatus as refused:
                    headers = refused.response.headers
                    raise AssertionError(f"{path}: {refused.response.status_code} {headers.get('X-WS-Reject')}") from refused
                clients.append((path, opened, client))
                equal(client.initial["content"], content, f"content at {path}")
            update = f"{content} through {len(paths)} spellings"
            await clients[0][2].ask("update_status", action="update", content=update)
            for path, _, client in clients[1:]:
                equal((await client.hear("update"))["content"], update, f"update at {path}")
        finally:
            for _, opened, _ in clients:
                await opened.__aexit__(None, None, None)


# --- writing ---


async def test_update_reaches_the_others_and_not_the_sender(prompts):
    async with prompts.open("bulk_0") as one, prompts.open("bulk_0") as two, prompts.open("bulk_0") as three:
        status = await one.ask("update_status", action="update", content="written by one")
        equal(status["success"], True, "success")
        is_aware_utc(status["timestamp"])
        for other in (two, three):
            update = await other.hear("update")
            equal((update["content"], update["timestamp"]), ("written by one", status["timestamp"]), "update")
        await one.is_alive()
    equal(prompts.stored("bulk_0")["content"], "written by one", "stored content")
    async with prompts.open("bulk_0") as late:
        equal(late.initial["content"], "written by one", "initial afterwards")


async def test_empty_content_is_an_update_and_missing_content_is_none(prompts):
    async with prompts.open("bulk_1") as one, prompts.open("bulk_1") as two:
        await one.send(action="update")
        await one.send(action="update", content=None)
        await one.send(action="expand")
        await one.is_alive()
        await two.is_silent()
        await one.ask("update_status", action="update", content="")
        equal((await two.hear("update"))["content"], "", "content")


async def test_update_metadata(prompts):
    async with prompts.open("bulk_3") as one, prompts.open("bulk_3") as two:
        status = await one.ask("update_status", action="update_metadata", description="D2", tags=["x", "y"])
        equal(status["success"], True, "success")
        heard = await two.hear("update_metadata")
        equal((heard["description"], heard["tags"]), ("D2", ["x", "y"]), "metadata")
        equal(heard["timestamp"], status["timestamp"], "timestamp")
        await one.ask("update_status", action="update_metadata", description="D3")
        heard = await two.hear("update_metadata")
        equal((heard["description"], heard["tags"]), ("D3", None), "requested values, null for what was absent")
        stored = prompts.stored("bulk_3")
        equal((stored["description"], stored["tags"]), ("D3", ["x", "y"]), "stored")
        await one.ask("update_status", action="update_metadata")
        heard = await two.hear("update_metadata")
        equal((heard["description"], heard["tags"]), (None, None), "both absent is still a save")
        await one.is_alive()


async def test_update_with_an_id_happens_once(prompts):
    async with prompts.open("bulk_4") as one, prompts.open("bulk_4") as two:
        for _ in range(2):
            status = await one.ask("update_status", action="update", content="once", id="op-1")
            equal(status["success"], True, "success")
        equal((await two.hear("update"))["content"], "once", "content")
        await two.is_silent()
        async with prompts.open("bulk_4") as three:
            await three.ask("update_status", action="update", content="once", id="op-1")
        await two.is_silent()
        await one.ask("update_status", action="update", content="twice", id="op-2")
        equal((await two.hear("update"))["content"], "twice", "content")


async def test_prompts_are_isolated(prompts):
    async with prompts.open("bulk_5") as one, prompts.open("bulk_6") as other:
        await one.ask("update_status", action="update", content="only in five")
        await one.ask("update_status", action="update_metadata", description="only in five")
        await other.is_silent()
        equal(prompts.stored("bulk_6")["content"], "Bulk prompt 6 includes [[deep]] and [[inc]].", "content of the other")


async def test_many_writers_see_one_order(prompts):
    async with prompts.open("bulk_7") as watcher, prompts.open("bulk_7") as second:

        async def write(writer):
            async with prompts.open("bulk_7") as client:
                for n in range(20):
                    await client.send(action="update", content=f"{writer}:{n}")
                    while (await client.hear())["action"] != "update_status":
                        pass

        await asyncio.gather(*(write(writer) for writer in range(5)))
        orders = [[(await client.hear("update"))["content"] for _ in range(100)] for client in (watcher, second)]
        equal(orders[0], orders[1], "order of two watchers")
        for writer in range(5):
            mine = [content for content in orders[0] if content.startswith(f"{writer}:")]
            equal(mine, [f"{writer}:{n}" for n in range(20)], "order of one writer")


async def test_a_large_update(prompts):
    content = "ä" * 150_000
    async with prompts.open("bulk_8") as one, prompts.open("bulk_8") as two:
        await one.ask("update_status", action="update", content=content)
        expect((await two.hear("update"))["content"] == content, "the content changed on its way")


async def test_odd_texts_survive(prompts):
    texts = ["nul \u0000 inside", "---\nnot: front matter\n---\nbody", "  blanks around \n\n", "\u2028\u2029 \ufeff", "line\r\nline", "🎉" * 100]
    async with prompts.open("bulk_9") as one, prompts.open("bulk_9") as two:
        for text in texts:
            equal((await one.ask("update_status", action="update", content=text))["success"], True, f"save of {text!r}")
            equal((await two.hear("update"))["content"], text, "update")
            async with prompts.open("bulk_9") as late:
                equal(late.initial["content"], text, "initial")


# --- expansion ---


async def test_expand(prompts):
    async with prompts.open("main") as client:
        content = "x [[inc]] y [[missing_one]] [[]] [[inc.md]]"
        heard = await client.ask("expanded", action="expand", content=content, prompt_id="ignored")
        equal(heard["content"], content, "content as sent")
        inc = "inc-start deepest inc-end"
        equal(heard["expanded"], f"x {inc} y [[PROMPT NOT FOUND: missing_one]] [[]] {inc}", "expansion")
        expect({"inc", "deep", "missing_one"} <= set(heard["dependencies"]), f"dependencies {heard['dependencies']}")
        equal(heard["warnings"], ["Prompt 'missing_one' not found"], "warnings")
        heard = await client.ask("expanded", action="expand_prompt", content="[[deep]]")
        equal(heard["expanded"], "deepest", "the other name of expand")


async def test_expand_nested_and_by_path(prompts):
    async with prompts.open("deep") as client:
        heard = await client.ask("expanded", action="expand", content="[[chain_0]]")
        equal(heard["expanded"], "01234567", "a chain of eight")
        heard = await client.ask("expanded", action="expand", content=f"[[{prompts.id('nested')}]]")
        expect(heard["expanded"].startswith("nested in sub/dir"), f"by path: {heard['expanded']!r}")


async def test_expand_in_a_circle(prompts):
    async with prompts.open("deep") as client:
        heard = await client.ask("expanded", action="expand", content="[[loop_a]]")
        expect("[[CIRCULAR DEPENDENCY: loop_a]]" in heard["expanded"], f"{heard['expanded']!r}")
        expect(any("Circular dependency" in warning for warning in heard["warnings"]), f"{heard['warnings']}")


async def test_expand_is_bounded(prompts):
    """Two inclusions a level double per level: without a bound thirty small prompts are a gigabyte."""
    for level in range(30):
        body = {"name": f"bomb_{level}", "directory": prompts.by_name["deep"]["directory"], "content": f"[[bomb_{level + 1}]][[bomb_{level + 1}]]"}
        equal(prompts.server.request("POST", "/api/prompts/", body)[0], 201, "status of the POST")
    async with prompts.open("deep") as client, prompts.open("inc") as other:
        begun = time.monotonic()
        await client.send(action="expand", content="[[bomb_0]]")
        await other.is_alive()
        heard = await client.hear("expanded")
        expect(time.monotonic() - begun < 5, "the bounded expansion took too long")
        expect(len(heard["expanded"]) < 8_000_000, f"{len(heard['expanded'])} characters")
        expect(heard["warnings"], "a cut expansion says so")


async def test_get_details(prompts):
    async with prompts.open("intro") as client:
        await client.send(action="get_details")
        heard = await client.hear()
        expect(isinstance(heard, dict), f"{heard!r}")
        await client.is_alive()


# --- bad input ---


async def test_unknown_actions_are_met_with_silence(prompts):
    async with prompts.open("bulk_10") as client:
        await client.send(action="invalid_action")
        await client.send(hello="no action")
        await client.is_silent()
        await client.is_alive()


async def test_bad_messages_leave_the_connection_open(prompts):
    async with prompts.open("bulk_11") as client, prompts.open("bulk_11") as other:
        for bad in ("not json", "[1,2]", '"text"', "null", "{", '{"action":"update","content":"x"', "[" * 5000, b"\x00\x01\xff"):
            await client.socket.send(bad)
            heard = await client.hear("error")
            expect(heard.get("message"), f"an error says what: {heard}")
            await client.is_alive()
        await other.is_silent()


async def test_wrong_types_are_refused_and_poison_nothing(prompts):
    before = prompts.stored("bulk_12")
    wrong = [
        {"action": "update", "content": 123},
        {"action": "update", "content": ["x"]},
        {"action": "update", "content": {"a": 1}},
        {"action": "update", "content": True},
        {"action": "update_metadata", "tags": "x"},
        {"action": "update_metadata", "tags": [1]},
        {"action": "update_metadata", "description": 5},
        {"action": "expand", "content": 5},
    ]
    async with prompts.open("bulk_12") as client, prompts.open("bulk_12") as other:
        for message in wrong:
            await client.send(**message)
            heard = await client.hear()
            refused = heard.get("action") == "error" or heard.get("success") is False
            expect(refused, f"{message} was answered with {heard}")
            await client.is_alive()
        await other.is_silent()
    after = prompts.stored("bulk_12")
    equal([after[key] for key in ("content", "description", "tags")], [before[key] for key in ("content", "description", "tags")], "prompt")


async def test_too_large_a_message(prompts):
    """A message over the limit costs the one who sent it his connection, and nobody else anything."""
    async with prompts.open("bulk_13") as other:
        try:
            async with prompts.open("bulk_13") as client:
                await client.send(action="update", content="x" * 1_200_000)
                await client.hear()
                raise AssertionError("a message over the limit was taken")
        except ConnectionClosed as closed:
            equal(closed.rcvd and closed.rcvd.code, 1009, "close code")
        await other.is_silent()
        await other.is_alive()


# --- refusals ---


async def refused(prompts, path, **options):
    try:
        async with prompts.at(path, greeted=False, **options):
            raise AssertionError(f"{path} was accepted")
    except InvalidStatus as refusal:
        response = refusal.response
        reason = response.headers.get("X-WS-Reject")
        expect(reason, f"{path}: no X-WS-Reject on {response.status_code}")
        equal(response.headers.get("X-WebSocket-Reject-Reason"), reason, "the older header")
        body = json.loads(response.body)
        for key in ("code", "detail", "hint"):
            expect(body.get(key), f"{path}: {key} missing in {body}")
        return response.status_code, reason


async def test_an_unknown_prompt_is_refused_with_a_reason(prompts):
    for path in ("/ws/prompts/no_such", "/api/prompts/ws/no_such", "/ws/prompts/fragments/no_such", "/api/ws/prompts/a/b/no_such"):
        status, reason = await refused(prompts, path)
        equal((status, reason), (403, "unknown_prompt"), path)


async def test_bad_paths_are_refused_with_a_reason(prompts):
    equal((await refused(prompts, "/no/such/path"))[0], 404, "unknown path")
    for path in ("/ws/prompts/%2e%2e/%2e%2e/etc/passwd", "/ws/prompts/a%00b", "/ws/prompts/a%0ab", "/ws/prompts/" + "x" * 1500):
        status, _ = await refused(prompts, path)
        expect(status in (400, 403, 404, 414), f"{path[:40]}: {status}")


async def test_origins(prompts):
    """Programs send none and are let in; a page is where it is listed, and from elsewhere is not."""
    async with prompts.open("deep") as client:
        await client.is_alive()
    async with prompts.open("deep", origin="http://localhost:5173") as client:
        await client.is_alive()
    for origin in ("https://evil.example", "null", "http://localhost.evil.example", "file://"):
        status, reason = await refused(prompts, f"/ws/prompts/{prompts.path('deep')}", origin=origin)
        equal((status, reason), (403, "origin"), origin)


# --- REST ---


async def test_put_reaches_sockets(prompts):
    async with prompts.open("bulk_14") as one, prompts.open("bulk_14") as two:
        path = f"/api/prompts/{prompts.path('bulk_14')}"
        status, _, body = prompts.server.request("PUT", path, {"content": "by PUT"})
        equal((status, body["content"]), (200, "by PUT"), "PUT")
        for client in (one, two):
            equal((await client.hear("update"))["content"], "by PUT", "update")
        status, _, body = prompts.server.request("PUT", path, {"description": "D", "tags": ["t"]})
        equal((status, body["description"], body["tags"]), (200, "D", ["t"]), "PUT of metadata")
        for client in (one, two):
            heard = await client.hear("update_metadata")
            equal((heard["description"], heard["tags"]), ("D", ["t"]), "update_metadata")


def test_get_one_prompt(prompts):
    prompt = prompts.stored("nested")
    for key in ("id", "name", "filename", "directory", "content", "description", "tags", "created_at", "updated_at", "unique_id", "display_name", "directory_info", "dependencies", "warnings"):
        expect(key in prompt, f"{key} missing in {sorted(prompt)}")
    expect(prompt["updated_at"].endswith("Z"), f"updated_at {prompt['updated_at']}")
    dependencies = {entry["id"]: entry["is_missing"] for entry in prompts.stored("main")["dependencies"]}
    expect(dependencies.get("missing_one") is True, f"dependencies {dependencies}")
    equal(prompts.server.get("/api/prompts/no_such")[0], 404, "unknown prompt")


def test_life_cycle_of_both_generations(prompts):
    server, directory = prompts.server, prompts.by_name["deep"]["directory"]
    status, _, made = server.request("POST", "/api/prompts/", {"name": "made by rest", "directory": directory, "content": "new"})
    equal((status, made["name"]), (201, "made_by_rest"), "POST, blanks become underscores")
    status, _, again = server.request("POST", "/api/prompts/", {"name": "made_by_rest", "directory": directory})
    equal(status, 400, "POST of an existing one")
    expect("already exists" in json.dumps(again), f"{again}")
    equal(server.request("POST", "/api/prompts/", {"directory": directory})[0], 422, "POST without a name")
    status, _, early = server.request("POST", "/api/prompts/", {"id": "made_early", "content": "early"})
    expect(status == 200 and "made_early" in early["id"], f"the early POST: {status} {early}")
    equal(server.get("/api/prompts/check_exists/made_early")[2]["exists"], True, "check_exists")
    quoted = urllib.parse.quote(made["id"])
    status, _, renamed = server.request("POST", "/api/prompts/rename", {"old_id": made["id"], "new_name": "renamed_by_rest"})
    equal((status, renamed["name"]), (200, "renamed_by_rest"), "rename")
    equal(server.get(f"/api/prompts/{quoted}")[0], 404, "GET of the old id")
    status, _, gone = server.request("DELETE", f"/api/prompts/{urllib.parse.quote(renamed['id'])}")
    equal(status, 200, "DELETE")
    expect("message" in gone or gone.get("success"), f"{gone}")
    equal(server.request("DELETE", f"/api/prompts/{urllib.parse.quote(renamed['id'])}")[0], 404, "DELETE again")


def test_expand_over_http(prompts):
    status, _, body = prompts.server.request("POST", "/api/prompts/expand", {"prompt_id": prompts.id("inc")})
    equal((status, body["original_content"]), (200, "inc-start [[deep]] inc-end"), "expand of a prompt")
    equal(body["expanded_content"], "inc-start deepest inc-end", "expanded_content")
    status, _, body = prompts.server.request("POST", "/api/prompts/expand", {"content": "[[deep]]!"})
    equal((status, body["expanded"]), (200, "deepest!"), "the early expand")


def test_the_small_endpoints(prompts):
    server = prompts.server
    by = server.get(f"/api/prompts/{prompts.path('deep')}/referenced_by")[2]
    expect(any(entry["id"] == prompts.id("inc") for entry in by), f"referenced_by {by}"[:300])
    suggestions = server.get("/api/prompts/search_suggestions?query=bulk_1")[2]
    expect(0 < len(suggestions) <= 50 and "display_name" in suggestions[0], f"suggestions {suggestions}"[:300])
    directories = server.get("/api/prompts/directories/all")[2]
    expect(directories and "path" in directories[0], f"directories {directories}")
    check = server.get("/api/debug/websocket-check")[2]
    equal(check["server_supports_websocket"], True, "websocket-check")
    for path in ("/health", "/healthz", "/readyz", "/metrics"):
        equal(server.get(path)[0], 200, path)


def test_directories_outside_the_roots_are_refused(prompts):
    for directory in ("/etc", "../outside", str(prompts.server.dir / "elsewhere"), "/tmp"):
        status, _, _ = prompts.server.request("POST", "/api/prompts/", {"name": "escaped", "directory": directory, "content": "x"})
        expect(400 <= status < 500, f"POST into {directory}: {status}")
    expect(not list(prompts.server.dir.rglob("escaped.md")), "a file was written outside of what was asked")


async def test_a_deleted_prompt_is_not_resurrected(prompts):
    directory = prompts.by_name["deep"]["directory"]
    made = prompts.server.request("POST", "/api/prompts/", {"name": "doomed", "directory": directory, "content": "x"})[2]
    quoted = urllib.parse.quote(made["id"])
    async with prompts.at(f"/ws/prompts/{quoted}") as client:
        equal(prompts.server.request("DELETE", f"/api/prompts/{quoted}")[0], 200, "DELETE")
        try:
            await client.send(action="update", content="back from the dead")
            while True:
                heard = await client.hear()
                if heard["action"] == "update_status":
                    equal(heard["success"], False, "success of an update of a deleted prompt")
                    break
        except ConnectionClosed as closed:
            equal(closed.rcvd and closed.rcvd.code, 4004, "close code")
    equal(prompts.server.get(f"/api/prompts/{quoted}")[0], 404, "GET afterwards")


# --- debug sockets ---


async def test_debug_echo(prompts):
    for path in ("/api/ws/test", "/api/debug/api/ws/test"):
        async with prompts.at(path, greeted=False) as client:
            equal(await asyncio.wait_for(client.socket.recv(), SOON), "WebSocket test connection successful", "greeting")
            for counter in (1, 2, 3):
                await client.socket.send(f"text {counter}")
                heard = await hear_echo(client)
                equal((heard["received"], heard["counter"], heard["message"]), (f"text {counter}", counter, "WebSocket echo test"), "echo")


async def hear_echo(client):
    """Announcements of other tests' prompts come on the same socket and are not the echo."""
    while True:
        heard = await client.hear()
        if "received" in heard:
            return heard


async def test_debug_socket_of_one_message(prompts):
    async with prompts.at("/api/debug/ws/test", greeted=False) as client:
        equal(await asyncio.wait_for(client.socket.recv(), SOON), "WebSocket connection successful", "greeting")
        await client.socket.send("x")
        try:
            while True:
                await asyncio.wait_for(client.socket.recv(), SOON)
        except ConnectionClosed as closed:
            equal(closed.rcvd and closed.rcvd.code, 1000, "close code")


async def test_life_cycle_on_the_debug_socket(prompts):
    directory = prompts.by_name["deep"]["directory"]
    async with prompts.at("/api/ws/test", greeted=False) as client:
        await asyncio.wait_for(client.socket.recv(), SOON)
        made = prompts.server.request("POST", "/api/prompts/", {"name": "announced", "directory": directory, "content": "x"})[2]
        quoted = urllib.parse.quote(made["id"])
        prompts.server.request("PUT", f"/api/prompts/{quoted}", {"content": "y"})
        prompts.server.request("DELETE", f"/api/prompts/{quoted}")
        heard = [(await client.hear()).get("type") for _ in range(3)]
        equal(heard, ["prompt_created", "prompt_updated", "prompt_deleted"], "announcements")


# --- files and crashes ---


async def becomes(read, wanted, what):
    """Files are written behind the answer, so they are waited for."""
    deadline = time.monotonic() + SOON
    while (found := read()) != wanted:
        expect(time.monotonic() < deadline, lambda: f"{what}: wanted {wanted!r}, got {found!r}"[:600])
        await asyncio.sleep(0.02)


async def test_files_are_written_back(prompts):
    async with prompts.open("bulk_15") as client:
        await client.ask("update_status", action="update_metadata", description="On disk", tags=["one", "two"])
        await client.ask("update_status", action="update", content="written back ü")
        wanted = "---\ndescription: On disk\ntags:\n- one\n- two\n---\n\nwritten back ü"
        await becomes(lambda: prompts.file("bulk_15").rstrip("\n"), wanted, "file")
    leftovers = [path.name for path in prompts.server.prompts.rglob("*") if path.is_file() and path.suffix != ".md"]
    equal(leftovers, [], "temporary files left behind")


async def test_kill_and_restart_keeps_the_edit(prompts):
    """Last, since every other connection ends with the server."""
    async with prompts.open("bulk_16") as client:
        await client.ask("update_status", action="update", content="edit before the kill", id="kill-1")
        prompts.server.kill()
    prompts.server.start()
    async with prompts.open("bulk_16") as client, prompts.open("bulk_16") as other:
        equal(client.initial["content"], "edit before the kill", "initial after the restart")
        status = await client.ask("update_status", action="update", content="edit before the kill", id="kill-1")
        equal(status["success"], True, "the same id again")
        await other.is_silent()
    equal(prompts.stored("bulk_3")["description"], "D3", "an older edit")
    await becomes(lambda: prompts.file("bulk_16").strip().endswith("edit before the kill"), True, "the file after the restart")


def test_a_second_server_on_the_same_data_refuses(prompts):
    second = Server()
    second.data, second.port = prompts.server.data, second.port
    try:
        second.start()
    except RuntimeError as refused:
        expect("ended with" in str(refused), f"{refused}")
    else:
        raise AssertionError("two servers on one data directory")
    finally:
        second.kill()
        second.home.cleanup()
    equal(prompts.server.get("/readyz")[0], 200, "the first one is untouched")


async def test_sigterm_closes_with_1012(prompts):
    async with prompts.open("deep") as client:
        code = await asyncio.gather(asyncio.to_thread(prompts.server.stop), closed_with(client))
        equal(code, [0, 1012], "exit code and close code")
    prompts.server.start()


async def closed_with(client):
    try:
        while True:
            await client.socket.recv()
    except ConnectionClosed as closed:
        return closed.rcvd and closed.rcvd.code


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_") and wanted in name]
    tally = Tally()
    with Prompts() as prompts:
        for name, test in tests:
            tally.run(name.removeprefix("test_"), test, prompts)
    tally.finish()


if __name__ == "__main__":
    main()
