"""What runs beside the server: pages of other origins, nginx by our recipe, Chromium and its tabs."""

import asyncio
import itertools
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "py"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "proxies"))
from harness import Child, equal, expect  # noqa: E402
from ways import Nginx  # noqa: E402, F401

UNTIL_SECONDS = 8
PAGES = Path(__file__).resolve().parent / "pages"


class Page(BaseHTTPRequestHandler):
    """An empty page, an origin for scripts to run in; and the pages of the applications."""

    def do_GET(self):
        name = self.path.partition("?")[0].strip("/")
        if name == "favicon.ico":
            status, body = 204, b""
        elif not name:
            status, body = 200, b"<!doctype html><title>page</title>"
        elif (file := PAGES / name).parent == PAGES and file.is_file():
            status, body = 200, file.read_bytes()
        else:
            status, body = 404, b"no such page"
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve_page():
    """The origin of a page on a port of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://localhost:{server.server_port}"


async def until(what, child, ready):
    """Polls `ready` for what announces itself nowhere that we could wait on."""
    for _ in range(400):
        if (value := ready()) not in (None, False):
            return value
        if child.process.poll() is not None:
            break
        await asyncio.sleep(0.05)
    raise RuntimeError(f"{what} did not start:\n{child.log.read_text(errors='replace')[-2000:]}")


class Chromium(Child):
    """A browser with a new profile, and the one DevTools connection to it."""

    # A page in the background must go on dialling at its own pace.
    FLAGS = (
        "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run --no-proxy-server "
        "--disable-background-networking --disable-component-update --disable-sync --disable-background-timer-throttling "
        "--disable-renderer-backgrounding --disable-backgrounding-occluded-windows --remote-debugging-port=0"
    )

    async def start(self, program):
        from websockets.asyncio.client import connect

        self.spawn([program, *self.FLAGS.split(), f"--user-data-dir={self.dir / 'profile'}", "about:blank"])
        said = re.compile(r"DevTools listening on (ws://\S+)")
        url = await until("chromium", self, lambda: (m := said.search(self.log.read_text(errors="replace"))) and m[1])
        self.tools = await connect(url, max_size=None, proxy=None)
        self.numbers = itertools.count(1)
        self.answers, self.tabs = {}, {}
        self.reader = asyncio.create_task(self.read())
        return self

    async def read(self):
        """Answers go to whoever asked, events to the tab that they are about."""
        from websockets.exceptions import ConnectionClosed

        try:
            async for text in self.tools:
                message = json.loads(text)
                if future := self.answers.pop(message.get("id"), None):
                    if not future.done():
                        future.set_result(message)
                elif tab := self.tabs.get(message.get("sessionId")):
                    tab.on_event(message["method"], message["params"])
        except ConnectionClosed:
            pass  # whoever waits is told below
        finally:
            for future in self.answers.values():
                if not future.done():
                    future.set_exception(RuntimeError("the browser is gone"))

    async def close(self):
        """In order, so that its helper processes, which have groups of their own, are gone too."""
        await self.call("Browser.close")
        await asyncio.to_thread(self.process.wait, 10)

    async def call(self, method, session=None, **params):
        number = next(self.numbers)
        future = self.answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        await self.tools.send(json.dumps(message))
        answer = await future
        expect("error" not in answer, lambda: f"{method}: {answer['error']}")
        return answer["result"]

    async def open(self, url, before=""):
        """A tab on a page; `before` is a script that runs there ahead of the page's own."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        tab = self.tabs[session] = Tab(self, target, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable", session)
        if before:
            await self.call("Page.addScriptToEvaluateOnNewDocument", session, source=before)
        await self.call("Page.navigate", session, url=url)
        await asyncio.wait_for(tab.loaded.wait(), 10)
        equal(await tab("return location.href"), url, "where the tab is")
        return tab


class Tab:
    """Called with JavaScript, runs it and gives back what its promise gives. Keeps what the console shows as an error and
    what the page's sockets were sent."""

    FRAMES_MAX = 10_000

    def __init__(self, browser, target, session):
        self.browser, self.target, self.session = browser, target, session
        self.loaded, self.news = asyncio.Event(), asyncio.Event()
        self.errors = []  # Complaint
        self.frames = []
        self.dialled = []  # URLs

    async def __call__(self, body, **given):
        script = f"(async ({{{','.join(given)}}}) => {{ {LIBRARY} {body} }})({json.dumps(given)})"
        call = self.browser.call("Runtime.evaluate", self.session, expression=script, awaitPromise=True, returnByValue=True)
        result = await call
        expect("exceptionDetails" not in result, lambda: f"in the page: {thrown(result['exceptionDetails'])}")
        return result["result"].get("value")

    async def shows(self, what, condition, **given):
        """Waits until an expression holds in the page, and gives back its value."""
        return await self(f"return await until({json.dumps(what)}, () => ({condition}))", **given)

    async def until(self, what, test, shown=lambda: ""):
        """Waits for what the browser tells of this tab: a frame, a socket, a red line."""
        deadline = time.monotonic() + UNTIL_SECONDS
        while not test():
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise AssertionError(f"not within {UNTIL_SECONDS} s: {what} {shown()}; frames {self.frames[-3:]}") from None

    def on_event(self, method, params):
        self.news.set()
        if method == "Page.loadEventFired":
            self.loaded.set()
        elif method == "Runtime.exceptionThrown":
            self.errors.append(Complaint("exception", thrown(params["exceptionDetails"])))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            said = " ".join(str(part.get("value", part.get("description"))) for part in params["args"])
            self.errors.append(Complaint("console", said))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.errors.append(Complaint(entry["source"], f"{entry['text']} ({entry.get('url', '')})"))
        elif method == "Network.webSocketFrameReceived":
            if len(self.frames) < self.FRAMES_MAX:
                self.frames.append(params["response"]["payloadData"])
        elif method == "Network.webSocketCreated":
            self.dialled.append(params["url"])

    async def close(self):
        await self.browser.call("Target.closeTarget", targetId=self.target)
        self.browser.tabs.pop(self.session, None)


class Complaint:
    """One red line of a console."""

    def __init__(self, source, text):
        self.source, self.text, self.at = source, text, time.monotonic()

    def is_of_network(self, port):
        """Of a connection to this port that was not to be had, as Chromium words it: not of what came over one."""
        failed = re.search(r"WebSocket connection to '(\S+?)' failed|net::ERR_CONNECTION|status of 50[24]", self.text)
        return self.source in ("network", "other", "javascript") and failed and f":{port}/" in self.text

    def __repr__(self):
        return f"[{self.source}] {self.text}"


def thrown(details):
    return details.get("exception", {}).get("description") or details.get("text")


# What the scripts of the tests share: a socket with an inbox to wait on, what a page shows to wait for; each with a deadline.
LIBRARY = """
const DEADLINE = 8000;
const within = (promise, what) => {
    const late = new Promise((_, no) => setTimeout(() => no(new Error('no ' + what)), DEADLINE));
    return Promise.race([promise, late]);
};
const open = (url, protocols) => {
    const socket = protocols ? new WebSocket(url, protocols) : new WebSocket(url);
    const frames = [], waiting = [];
    socket.onmessage = ({data}) => { const take = waiting.shift(); take ? take(data) : frames.push(data); };
    const closed = new Promise(yes => { socket.onclose = ({code, reason, wasClean}) => yes({code, reason, wasClean}); });
    const opened = new Promise(yes => { socket.onopen = () => yes(true); });
    return {
        socket,
        say: message => socket.send(typeof message === 'string' ? message : JSON.stringify(message)),
        frame: async () => {
            const next = frames.length ? frames.shift() : new Promise(yes => waiting.push(yes));
            const gone = closed.then(how => { throw new Error('closed instead: ' + JSON.stringify(how)); });
            return JSON.parse(await within(Promise.race([next, gone]), 'frame'));
        },
        opened: () => within(Promise.race([opened, closed.then(() => false)]), 'open'),
        closed: () => within(closed, 'close'),
    };
};
const until = (what, test) => new Promise((yes, no) => {
    const check = () => { const value = test(); if (value) { watch.disconnect(); clearTimeout(late); yes(value); } };
    const watch = new MutationObserver(check);
    const late = setTimeout(() => {
        watch.disconnect();
        no(new Error(`the page does not show ${what}, but: ${document.body.innerText.slice(-600)}`));
    }, DEADLINE);
    watch.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
    check();
});
"""
