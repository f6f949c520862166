"""The four applications' pages and one of the native protocol, side by side in a browser, moved by a small backend.

The pages are in pages/: written for the purpose, with the original pages' way of using their sockets (when they dial again,
what they send unasked, which fields they read). They come from another port than the server's, as in development. A page
says what it knows by what it shows; a red line in a console is a failure, but for those of a server that was down.
"""

import asyncio
import json
import time
import uuid
from urllib.parse import urlencode

from backend import Backend
from harness import Server, equal, expect
from stage import Nginx

KEY = "a secret of the backend, 32 bytes and more"
STAGES = ("outline", "characters", "scenes", "storyboard", "video")
EPISODE = "ep-7"
PROMPT = "readme"
# What every page does each 30 s is done each 0.3 s, so that a test need not wait for it.
HURRY = "const real = setInterval; window.setInterval = (run, ms, ...rest) => real(run, ms === 30000 ? 300 : ms, ...rest);"
# By page: the file, its indicator, and the colour that it has when the page is connected.
INDICATORS = {
    "editor": ("#connection-status", "rgb(40, 167, 69)"),
    "fragment": ("#connection-status", "rgb(40, 167, 69)"),
    "video": ("#connected", "rgb(34, 197, 94)"),
    "monitor": ("#connected", "rgb(34, 197, 94)"),
    "tickets": ("#status", "rgb(76, 175, 80)"),
    "agents": ("#connection", "rgb(22, 163, 74)"),
    "native": ("#status", "rgb(0, 130, 0)"),
}


class Scene:
    """One server, reached one way, with a backend and the tabs of all applications."""

    def __init__(self, browser, nginx):
        self.browser, self.nginx_program = browser, nginx
        self.tabs, self.down, self.told = {}, [], {}
        self.session = str(uuid.uuid4())
        self.runs, self.tickets = 0, 0  # begun so far; each is shown by two pages
        self.has_begun, self.is_spoiled = False, False
        self.backend = None

    async def set_up(self, page):
        self.page = page
        self.server = Server(
            f"[origins]\nallow = {json.dumps([page])}\n[drain]\nwindow = '1s'\n"
            f"[[auth.api_keys]]\nname = 'browser'\nkey = {json.dumps(KEY)}\nrights = ['*']\n"
        )
        (self.server.prompts / f"{PROMPT}.md").write_text("Hello [[part]].\n")
        (self.server.prompts / "part.md").write_text("the part\n")
        await asyncio.to_thread(self.server.start)
        self.port = self.server.port
        if self.nginx_program:
            self.nginx = await asyncio.to_thread(Nginx.begin, self.server.port)
            self.port = self.nginx.port
        self.prompt = (await asyncio.to_thread(self.server.get, f"/api/prompts/{PROMPT}"))[2]["id"]
        self.backend = await Backend(self.server.port, KEY).connect()
        await self.backend.ask({"op": "session", "id": self.session, "user_id": "test-user-123"})
        rooms = [f"doc:{self.prompt}", f"workflow:{EPISODE}", "coordinator", "tickets", f"session:{self.session}"]
        await asyncio.gather(
            self.open("editor", id=PROMPT),
            self.open("editor 2", id=PROMPT),
            self.open("fragment", id="part"),
            self.open("video", episode=EPISODE),
            self.open("monitor"),
            self.open("tickets"),
            self.open("tickets 2"),
            self.open("agents", session=self.session),
            self.open("agents 2", session=self.session),
            self.open("native", room=rooms),
        )
        return self

    async def open(self, name, **query):
        query = urlencode({"server": f"localhost:{self.port}", **query}, doseq=True)
        tab = await self.browser.open(f"{self.page}/{name.split()[0]}.html?{query}", HURRY)
        self.tabs[name] = tab

    def __getitem__(self, name):
        return self.tabs[name]

    async def connected(self):
        """Every page's indicator is green."""

        async def green(name, tab):
            selector, colour = INDICATORS[name.split()[0]]
            condition = "getComputedStyle(document.querySelector(selector)).color === colour"
            await tab.shows(f"that {name} is connected", condition, selector=selector, colour=colour)

        await asyncio.gather(*(green(name, tab) for name, tab in self.tabs.items()))

    async def restart(self, stop):
        """The server goes and comes again on the same port, and every page and the backend with it."""
        dialled = {name: len(tab.dialled) for name, tab in self.tabs.items()}
        begun = time.monotonic()
        await stop()
        await asyncio.to_thread(self.server.start)
        await self.backend.connect()
        # By itself: nothing was done to it, and it did not sit through this on the socket that it had.
        for name, tab in self.tabs.items():
            await tab.until(f"{name} dials again", lambda tab=tab, name=name: len(tab.dialled) > dialled[name])
        await self.connected()
        self.down.append((begun, time.monotonic()))

    def red(self):
        """What the consoles show since it was asked last, but for what a server that was down explains."""
        found = []
        for name, tab in self.tabs.items():
            first, self.told[name] = self.told.get(name, 0), len(tab.errors)
            for complaint in tab.errors[first:]:
                was_down = any(begun <= complaint.at <= ended for begun, ended in self.down)
                if not (was_down and complaint.is_of_network(self.port)):
                    found.append(f"{name}: {complaint}")
        return found

    async def ask_page(self, name, text):
        """Types and clicks, as the tickets page is used."""
        script = "document.querySelector('#input').value = text; document.querySelector('#send').click()"
        await self[name](script, text=text)

    async def lines(self, name, kind, count, selector="#messages"):
        """The texts of a list's lines of one kind, when there are so many."""
        condition = "(lines => lines.length >= count && lines.map(line => line.textContent))" \
            "([...document.querySelectorAll(`${list} .${kind}`)])"
        found = await self[name].shows(f"{count} × {kind}", condition, list=selector, kind=kind, count=count)
        equal(len(found), count, f"lines of {kind} of {name}: {found}")
        return found

    async def execute(self, command):
        """A run up to its approval, of which both pages are shown everything."""
        self.runs += 1
        count = self.runs
        script = "document.querySelector('#command').value = command; document.querySelector('#execute').click()"
        await self["agents"](script, command=command)
        run = await self.backend.task("execute", command=command, session_id=self.session)
        room, execution = f"session:{self.session}", run["execution_id"]
        say = lambda kind, **data: self.backend.publish(room, kind, {"execution_id": execution, **data})  # noqa: E731
        await say("thinking", thought_process=f"How to {command}?")
        await say("tool_call", tool_name="search", tool_args={"query": command}, tool_id=f"search-{count}")
        await say("tool_result", tool_id=f"search-{count}", result={"offers": 3}, success=True)
        asked = await self.backend.ask(
            {
                "op": "approval",
                "session": self.session,
                "execution_id": execution,
                "tool_name": "pay",
                "tool_args": {"to": "shop"},
                "reason": "Money leaves the house",
                "amount": "42.00",
                "currency": "EUR",
            }
        )
        for name in ("agents", "agents 2"):
            for kind in ("tool_call", "tool_result", "approval_required"):
                last = (await self.lines(name, kind, count, "#events"))[-1]
            equal(last, "pay 42.00 EUR: Money leaves the house", f"what {name} shows of the approval")
            # One by the server, one by the backend.
            equal((await self.lines(name, "thinking", 2 * count, "#events"))[-1], f"How to {command}?", "the thought")
        return execution, asked["request_id"]

    async def complete(self, execution, request):
        """The rest of the run, once somebody has approved."""
        count = self.runs
        await self.backend.task("decision", request_id=request, decision="approved", execution_id=execution)
        data = {"execution_id": execution, "success": True, "result": {}, "total_cost": "0.0 USD", "duration_ms": 7}
        await self.backend.publish(f"session:{self.session}", "complete", {**data, "tool_calls": 1})
        for name in ("agents", "agents 2"):
            approved = (await self.lines(name, "approved", count, "#events"))[-1]
            expect(approved.startswith(f"{request} approved"), f"{name} shows {approved!r}")
            complete = (await self.lines(name, "complete", count, "#events"))[-1]
            equal(complete, "true 0.0 USD 7 ms 1 calls", f"what {name} shows of the end")
            await self[name].shows("no approval", "!document.querySelector('.approval')")

    async def click(self, name, selector):
        await self[name](f"document.querySelector({json.dumps(selector)}).click()")

    async def begin(self):
        """The video page leaves `pending` for its episode."""
        if not self.has_begun:
            self.has_begun = True
            await self.click("video", "#start")
            tab, room = self["video"], f'"room":"workflow_{EPISODE}"'
            await tab.until("the episode's welcome arrives", lambda: any(room in frame for frame in tab.frames))

    async def progress(self, **data):
        data = {"state": "running", "details": {}, **data}
        await self.backend.publish(f"workflow:{EPISODE}", "progress", data)

    async def close(self):
        for tab in self.tabs.values():
            await tab.close()
        self.tabs = {}
        if self.backend is not None:
            await self.backend.close()
        await asyncio.to_thread(self.server.kill)


# --- the tests: one after the other on one scene ---


async def connected(scene):
    await scene.connected()
    shown = await scene["editor"].shows("the expansion", "document.querySelector('#expanded').textContent")
    equal(shown.strip(), "Hello the part.", "what the prompt's editor shows of it expanded")
    await scene["fragment"].shows("its name", "document.querySelector('#name').textContent === 'part'")
    await scene["agents"].shows("who it is", "document.querySelector('#user').textContent === 'test-user-123'")
    # The tickets page is greeted with nothing.
    equal(scene["tickets"].frames, [], "frames that the tickets page was sent")


async def kept_alive(scene):
    for name, pong in (("video", '{"type":"pong"}'), ("monitor", '{"type":"pong"}'), ("native", '{"op":"pong"}')):
        await scene[name].until(f"{name} is sent {pong}", lambda name=name, pong=pong: pong in scene[name].frames)


async def progress(scene):
    tab = scene["video"]
    # Of nobody's episode: the page has none yet.
    await scene.backend.publish("workflow:pending", "progress", {"state": "running", "progress": 0.9, "stage": "video"})
    await tab.until("progress of `pending` arrives", lambda: any('"progress":0.9' in frame for frame in tab.frames))
    await scene.begin()
    topic = f"topic:episode.{EPISODE}.outline"
    await scene.backend.publish(topic, "progress", {"percentage": 0.1, "message": "by way of the topic", "details": {}})
    await tab.shows("10 % of the outline", PERCENT, percent="10%", stage="outline")
    for number, stage in enumerate(STAGES, 1):
        tasks = [{"name": done, "status": "completed"} for done in STAGES[:number]]
        state = "completed" if stage == STAGES[-1] else "running"
        await scene.progress(
            progress=number / 5, stage=stage, state=state, message=f"made the {stage}", details={"tasks": tasks}
        )
        await tab.shows(f"{number * 20} %", PERCENT, percent=f"{number * 20}%", stage=stage)
    await tab.shows("the end", "document.querySelector('#state').textContent === 'completed'")
    drawn = await tab("const bar = document.querySelector('#bar'); return [bar.offsetWidth, bar.parentNode.offsetWidth]")
    equal(drawn, [400, 400], "the bar's width and that of its box")
    lines = await tab("return [...document.querySelectorAll('#chat li')].map(line => line.textContent)")
    equal(lines, ["outline: by way of the topic", *(f"{stage}: made the {stage}" for stage in STAGES)], "the chat")
    equal(await tab("return document.querySelectorAll('#tasks li').length"), 5, "tasks shown")
    # What the page gave up comes back by its own defect, and the server bears it.
    pending = f"ws://localhost:{scene.port}/ws/workflow/pending"
    await tab.until("the orphan dials `pending` again", lambda: tab.dialled.count(pending) > 1)


PERCENT = (
    "document.querySelector('#percent').textContent === percent && document.querySelector('#stage').textContent === stage"
)


async def control(scene):
    await scene.begin()
    # What nothing was ever said of is not there to be cancelled.
    await scene.progress(progress=0.3, stage="outline", message="begins")
    await scene["video"].shows("30 %", PERCENT, percent="30%", stage="outline")
    await scene["video"]("cancelWorkflow()")
    await scene.backend.task("control", action="cancel")
    said = f"Workflow {EPISODE} cancelled"
    await scene["video"].shows(said, "document.querySelector('#chat').lastChild.textContent === said", said=said)


async def monitor(scene):
    tab = scene["monitor"]
    await fill(scene)
    # Whoever speaks for itself changes its card, although the page listens to no agent; without a list of capabilities
    # the page would throw.
    await scene.backend.publish("agent:writer", "agent_status", {"status": "busy", "currentTask": "chapter 2"})
    busy = "document.querySelector('.agent.busy[data-name=writer] .task')?.textContent === 'chapter 2'"
    await tab.shows("a busy writer", busy)
    await scene.backend.publish("agent:editor", "agent_status", {"status": "error"})
    await tab.shows("a third card", "document.querySelector('.agent.error[data-name=editor]')")
    equal(await tab("return document.querySelectorAll('.agent').length"), 3, "cards")


METRICS = {"tasks_completed": 7, "tasks_failed": 1, "avg_response_time": 0.8, "uptime": 99.9}


async def fill(scene):
    cards = [
        {"id": name, "name": name, "status": "idle", "capabilities": ["a", "b"], "metrics": METRICS}
        for name in ("writer", "painter")
    ]
    numbers = {"total_messages": 5, "registered_agents": 2, "active_workflows": 3, "queue_size": 1}
    numbers |= {"completed_workflows": 12, "failed_workflows": 4}
    await scene.backend.publish("coordinator", "coordinator_metrics", {**numbers, "metrics": {"agents": cards}})
    await filled(scene)


async def filled(scene):
    """Two cards, one of them to its last line, and the numbers."""
    await scene["monitor"].shows("two cards", "document.querySelectorAll('.agent.idle').length === 2")
    shown = "['total_agents', 'active_workflows', 'completed_workflows', 'failed_workflows']"
    script = f"return {shown}.map(name => document.getElementById(name).textContent)"
    numbers = await scene["monitor"](script)
    equal(numbers, ["2", "3", "12", "4"], "agents, and workflows that are active, completed and failed")
    card = "return [...document.querySelectorAll('[data-name=painter] p')].map(line => line.textContent)"
    lines = await scene["monitor"](card)
    equal(lines[:4], ["○ painter", "a", "b", "7 done, 1 failed, 0.8 s, 99.9 %"], "the painter's card")


async def ticket(scene):
    await make_ticket(scene, "A door")


async def make_ticket(scene, name):
    """From the page's click to its completion."""
    scene.tickets += 1
    count = scene.tickets
    await scene.ask_page("tickets", name)
    task = await scene.backend.task("ticket", ticket_name=name)
    id, job = task["ticket_id"], task["job_id"]
    created = (await scene.lines("tickets", "created", count))[-1]
    equal(created, f"Ticket {id} queued as {job}", "what the page shows of its ticket")
    about = {"ticket_id": id, "session_id": f"s-{job}"}
    tool = {"tool_name": "Bash", "tool_description": "Bash: ls", "tool_input": {"command": "ls"}, "tool_output": "a\nb"}
    await scene.backend.publish("tickets", "agent_started", {**about, "ticket_name": name})
    await scene.backend.publish("tickets", "tool_execution", {**about, **tool, "turn": 1})
    question = {"content": "Inwards or outwards?", "turn": 2, "message_type": "question"}
    await scene.backend.publish("tickets", "agent_message", {**about, **question})
    await scene.lines("tickets", "question", count)
    await scene.ask_page("tickets", f"Inwards {count}")
    await scene.backend.task("response", session_id=about["session_id"], response=f"Inwards {count}")
    await scene.lines("tickets", "ack", count)
    await scene.backend.publish("tickets", "agent_message", {**about, "content": "Done.", "turn": 3, "message_type": "text"})
    await scene.backend.publish("tickets", "agent_complete", {"job_id": job, "ticket_id": id, "status": "completed"})
    for page in ("tickets", "tickets 2"):
        equal((await scene.lines(page, "started", count))[-1], f"Agent started on {name}", f"the start as {page} shows it")
        equal((await scene.lines(page, "tool", count))[-1], "Bash: ls: 2 lines, command, turn 1", f"the tool in {page}")
        equal((await scene.lines(page, "message", count))[-1], "Done.", f"the last message in {page}")
        equal((await scene.lines(page, "complete", count))[-1], f"Ticket {id} is complete", f"the end in {page}")
    equal(await scene["tickets 2"]("return document.querySelectorAll('.ack').length"), 0, "another page's acks")
    state = await asyncio.to_thread(scene.server.get, f"/jobs/{job}")
    equal(state[2].get("status"), "completed", "the job's state")


async def edit(scene):
    await edit_prompt(scene, "Typed [[part]] é 🚀.")
    await scene["editor"](
        "const it = document.querySelector('#description'); it.value = 'New'; it.dispatchEvent(new Event('change'))"
    )
    await scene["editor"].shows("that it is saved", "document.querySelector('#save-status').textContent.startsWith('Saved')")
    await scene["editor 2"].shows(
        "the other's metadata",
        "document.querySelector('#save-status').textContent.startsWith('Metadata changed')"
        " && document.querySelector('#description').value === 'New'",
    )


async def edit_prompt(scene, content):
    """Typed into one editor, shown by the other, and by the native page, and stored."""
    script = "const area = document.querySelector('#content'); area.value = content; area.dispatchEvent(new Event('input'))"
    await scene["editor"](script, content=content)
    await scene["editor 2"].shows(
        "the other's text",
        "document.querySelector('#save-status').textContent.startsWith('Changed elsewhere')"
        " && document.querySelector('#content').value === content",
        content=content,
    )
    expanded = content.replace("[[part]]", "the part")
    for name in ("editor", "editor 2"):
        condition = "document.querySelector('#expanded').textContent.trim() === expanded"
        await scene[name].shows(f"the expansion {expanded!r}", condition, expanded=expanded)
    await scene["editor"].shows("that it is saved", "document.querySelector('#save-status').textContent.startsWith('Saved')")
    stored = await asyncio.to_thread(scene.server.get, f"/api/prompts/{PROMPT}")
    equal(stored[2]["content"], content, "what is stored")


async def fragment(scene):
    content = "the part"
    script = "const area = document.querySelector('#content'); area.value = content; area.dispatchEvent(new Event('change'))"
    await scene["fragment"](script, content=content)
    condition = "document.querySelector('#save-status').textContent.startsWith('Saved')"
    await scene["fragment"].shows("that it is saved", condition)
    stored = await asyncio.to_thread(scene.server.get, "/api/prompts/part")
    equal(stored[2]["content"], content, "what is stored of the fragment")


async def approval(scene):
    execution, request = await scene.execute("buy a hat")
    await scene.click("agents", f'[data-request="{request}"] .approve')
    await scene.complete(execution, request)


async def native_decision(scene):
    execution, request = await scene.execute("buy a coat")
    await scene["native"].shows("the approval", "window.lastApproval?.request_id === request", request=request)
    await scene["native"](
        "say({op: 'decide', room: `session:${lastApproval.session_id}`, id: 'd1', approval: lastApproval.request_id,"
        " decision: 'approve', seen: lastApproval.digest})"
    )
    await scene["native"].shows("that it is decided", "document.querySelector('#answers .ok')")
    await scene.complete(execution, request)


async def native_sees_all(scene):
    """Whatever the old pages did and were shown, in the rooms that they share; a gap would have thrown."""
    await edit_prompt(scene, "Seen by all.")
    said = "Said by the native page."
    room = f"doc:{scene.prompt}"
    await scene["native"](
        "say({op: 'publish', room, id: 'n1', type: 'update', data: {content: said}})", room=room, said=said
    )
    for name in ("editor", "editor 2"):
        await scene[name].shows("the native edit", "document.querySelector('#content').value === said", said=said)
    await scene.progress(progress=1.0, stage="video", state="completed", message="for the native page")
    await scene.backend.publish("coordinator", "coordinator_metrics", {"queue_size": 99})
    await scene.backend.publish("tickets", "agent_error", {"job_id": "job-0", "error": "for the native page"})
    for words in (said, "Seen by all.", "for the native page", '"queue_size":99', "agent_error"):
        condition = "[...document.querySelectorAll('#events li')].some(line => line.textContent.includes(words))"
        await scene["native"].shows(words, condition, words=words)
    presence = "document.querySelector('#presence').textContent.includes(`${room} +test-user-123`)"
    await scene["native"].shows("who is there", presence, room=room)
    await scene["tickets"].shows("the error", "document.querySelector('#messages .error')")


async def restart(scene, stop, number):
    """Every page comes back and goes on from where it was; a run waits for its decision over the restart."""
    chat = "return document.querySelectorAll('#chat li').length"
    await scene.begin()
    await scene.progress(progress=0.4, stage="characters", message=f"before {number}")
    await scene["video"].shows("40 %", PERCENT, percent="40%", stage="characters")
    lines = await scene["video"](chat)
    # What a killed server had shown but not yet noted as seen, it shows again, and it notes ten times a second: the second
    # that the editor takes before it saves is long enough for that.
    await edit_prompt(scene, f"Before restart {number}.")
    await fill(scene)
    execution, request = await scene.execute(f"buy shoes {number}")
    await scene["monitor"]("document.querySelectorAll('dd').forEach(number => number.textContent = '')")
    await scene["monitor"]("document.querySelector('#agents').replaceChildren()")
    await scene.restart(stop)
    # Shown again by itself, of what the store has.
    await filled(scene)
    # Nothing that it has had is shown to it once more.
    await scene.progress(progress=0.5, stage="scenes", message=f"goes on {number}")
    await scene["video"].shows("50 %", PERCENT, percent="50%", stage="scenes")
    equal(await scene["video"](chat), lines + 1, "lines of the chat after the restart")
    await edit_prompt(scene, f"After restart {number}: [[part]].")
    await make_ticket(scene, f"Door {number}")
    await scene.click("agents", f'[data-request="{request}"] .approve')
    await scene.complete(execution, request)
    words = f"After restart {number}"
    condition = "[...document.querySelectorAll('#events li')].some(line => line.textContent.includes(words))"
    await scene["native"].shows(words, condition, words=words)


async def drained(scene):
    async def stop():
        equal(await asyncio.to_thread(scene.server.stop), 0, "the server's exit code")

    await restart(scene, stop, 1)


async def killed(scene):
    async def stop():
        await asyncio.to_thread(scene.server.kill)
        # Down until a page has noticed, which also shows that such a line is known for what it is.
        tab = scene["video"]
        await tab.until(
            "a page dials in vain", lambda: any(error.is_of_network(scene.port) for error in tab.errors), lambda: tab.errors
        )

    await restart(scene, stop, 2)


async def noticed(scene):
    """Were there a red line, it would have been seen: the monitor's original defect, called out by a card without a list."""
    for name in list(scene.tabs):
        if name != "monitor":
            await scene.tabs.pop(name).close()
    broken = {"type": "coordinator_metrics", "metrics": {"agents": [{"name": "x"}], **dict.fromkeys(NUMBERS, 0)}}
    answer = await asyncio.to_thread(scene.server.request, "POST", "/api/v1/ws/broadcast", broken)
    equal(answer[0], 200, f"the answer {answer[2]}")
    tab = scene.tabs.pop("monitor")
    await tab.until("the page's error is noticed", lambda: any("map" in error.text for error in tab.errors))
    await tab("fetch('/no-such-file')")
    await tab.until("a failed request is noticed", lambda: any("404" in error.text for error in tab.errors))
    expect(not any(error.is_of_network(scene.port) for error in tab.errors[-2:]), f"taken for the network's: {tab.errors}")
    await tab.close()


NUMBERS = ("total_agents", "active_workflows", "completed_workflows", "failed_workflows")

TESTS = {
    "every page connects": connected,
    "pages that ping are answered": kept_alive,
    "live progress moves the bar to 100 %": progress,
    "a page cancels its workflow": control,
    "the agent monitor is filled": monitor,
    "a ticket is created and completed": ticket,
    "a prompt edited in one page is seen by the other": edit,
    "a fragment is edited": fragment,
    "an approval is clicked and the run completes": approval,
    "a native page decides for an agents page": native_decision,
    "a native page and the old ones see the same": native_sees_all,
    "pages come back after a restart and go on": drained,
    "pages come back after a kill and go on": killed,
    "a red line in a console would be noticed": noticed,
}


def tests():
    """(name, test of the stage). A scene is set up by the first of its tests, and anew after one that failed."""
    for way in ("directly", "through nginx"):
        for name, test in TESTS.items():
            yield f"pages {way}: {name}", lambda stage, way=way, test=test: on_scene(stage, way, test)


async def on_scene(stage, way, test):
    scene = stage.scenes.get(way)
    if scene is None or scene.is_spoiled:
        if scene is not None:
            await scene.close()
        scene = stage.scenes[way] = Scene(stage.browser, stage.nginx if way == "through nginx" else None)
        # Until the test has passed.
        scene.is_spoiled = True
        await scene.set_up(stage.page)
        await scene.connected()
    scene.is_spoiled = True
    await test(scene)
    equal(scene.red(), [], "red lines in the consoles")
    scene.is_spoiled = test is noticed  # which leaves no page
