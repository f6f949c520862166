"""A backend of a few lines: connects to /v1/backend, is given tasks, publishes. The tests say what it does and when."""

import asyncio
import itertools
import json

from harness import expect

SECONDS = 8
KINDS = ("execute", "cancel", "decision", "control", "ticket", "response")


class Backend:
    def __init__(self, port, key):
        self.port, self.key = port, key
        self.numbers = itertools.count(1)
        self.tasks = {kind: asyncio.Queue() for kind in KINDS}

    async def connect(self):
        from websockets.asyncio.client import connect

        self.socket = await connect(
            f"ws://127.0.0.1:{self.port}/v1/backend",
            additional_headers={"Authorization": f"Bearer {self.key}"},
            proxy=None,
        )
        self.answers = asyncio.Queue()
        self.turn = asyncio.Lock()
        hello = json.loads(await asyncio.wait_for(self.socket.recv(), SECONDS))
        expect(hello["op"] == "hello", f"the backend is greeted with {hello}")
        self.reader = asyncio.create_task(self.read())
        await self.socket.send(json.dumps({"op": "take", "kinds": KINDS, "max": 10}))
        # Heard before what comes after it: one `ping` and the kinds count as taken.
        await self.ask({"op": "ping"})
        return self

    async def read(self):
        from websockets.exceptions import ConnectionClosed

        try:
            async for text in self.socket:
                frame = json.loads(text)
                if frame["op"] == "task":
                    self.tasks[frame["kind"]].put_nowait(frame)
                elif frame["op"] != "bye":
                    self.answers.put_nowait(frame)
        except ConnectionClosed:
            pass  # the server was killed, which is what some tests are about

    async def ask(self, message):
        # One at a time, so that the next answer is the answer.
        async with self.turn:
            await self.socket.send(json.dumps(message))
            answer = await asyncio.wait_for(self.answers.get(), SECONDS)
        expect(answer["op"] in ("ok", "pong"), f"{message} is answered with {answer}")
        return answer

    async def publish(self, room, kind, data):
        id = f"browser-{next(self.numbers)}"
        return await self.ask({"op": "publish", "room": room, "type": kind, "id": id, "data": data})

    async def task(self, kind, **wanted):
        """The next task of a kind, which must be about this; finished at once, since nothing here can fail half-way."""
        try:
            task = await asyncio.wait_for(self.tasks[kind].get(), SECONDS)
        except TimeoutError:
            raise AssertionError(f"the backend was given no task {kind}") from None
        data = task["data"]
        expect(wanted.items() <= data.items(), f"a task {kind} about {wanted}, and not {data}")
        await self.ask({"op": "done", "task": task["task"], "fence": task["fence"]})
        return data

    async def close(self):
        await self.socket.close()
