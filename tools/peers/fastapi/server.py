"""The peer on FastAPI: uvicorn with uvloop and httptools, one worker, SQLite through the standard library's sqlite3.

    python server.py PORT DATA_DIR

Choices, each in FastAPI's favour:
- uvloop and httptools, which uvicorn recommends; no access log, no compression, no keepalive pings, no lifespan events;
- uvicorn's choice of websocket implementation (`auto`, which is `websockets-sansio`): the older `websockets` is deprecated
  there and took 1.1 to 1.5 times the CPU for the same messages. PEERS_FASTAPI_WS=websockets runs that one;
- a broadcast is serialized once and sent in a loop, as FastAPI's documentation does it. A send suspends only when a member
  is 64 KiB behind, and `asyncio.gather` makes a task for each member, which took 1.2 times the CPU for each delivery; eager
  tasks were in between. ASGI knows no broadcast, and `websockets.broadcast` cannot be reached through it;
- SQLite runs in one thread with one connection (`run_in_executor`): the loop goes on during a commit, the executor's queue
  is the lock, and the next commit begins without waiting for the loop. One commit per update, broadcast after the commit;
- prepared statements: sqlite3 keeps them by their text.
asyncio sets TCP_NODELAY itself.
"""

import asyncio
import json
import os
import sqlite3
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

WS = os.environ.get("PEERS_FASTAPI_WS", "auto")

app = FastAPI()
rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)
prompts: defaultdict[str, set[WebSocket]] = defaultdict(set)


@app.websocket("/ws")
@app.websocket("/v1/connect")
async def serve_rooms(socket: WebSocket):
    await socket.accept()
    joined = set()
    try:
        while True:
            await on_message(socket, joined, json.loads(await socket.receive_text()))
    except WebSocketDisconnect:
        pass
    finally:
        for room in joined:
            leave(rooms, room, socket)


async def on_message(socket, joined, message):
    if message.get("type") == "ping":
        return await socket.send_text(encode({"type": "pong"}))
    match message.get("op"):
        case "ping":
            await socket.send_text(encode({"op": "pong"}))
        case "join":
            room = message["room"]
            rooms[room].add(socket)
            joined.add(room)
            await socket.send_text(encode({"op": "joined", "room": room, "epoch": "", "head": 0, "recovered": False}))
        case "signal":
            room = message["room"]
            await broadcast(rooms[room], socket, {"op": "signal", "room": room, "by": "bench", "data": message["data"]})


@app.websocket("/ws/prompts/{prompt:path}")
async def serve_prompt(socket: WebSocket, prompt: str):
    await socket.accept()
    prompts[prompt].add(socket)
    try:
        content, updated_at = await in_store(store.read, prompt)
        await socket.send_text(encode({"action": "initial", "content": content, "updated_at": updated_at}))
        while True:
            message = json.loads(await socket.receive_text())
            if message.get("action") == "update" and isinstance(message.get("content"), str):
                await on_update(socket, prompt, message["content"])
    except WebSocketDisconnect:
        pass
    finally:
        leave(prompts, prompt, socket)


async def on_update(socket, prompt, content):
    timestamp = await in_store(store.save, prompt, content)
    await socket.send_text(encode({"action": "update_status", "success": True, "timestamp": timestamp}))
    await broadcast(prompts[prompt], socket, {"action": "update", "content": content, "timestamp": timestamp})


async def broadcast(members, sender, message):
    text = encode(message)
    # A copy: members may come and go while one of them is waited for.
    for member in tuple(members):
        if member is not sender:
            await send_to_member(member, text)


async def send_to_member(member, text):
    try:
        await member.send_text(text)
    except WebSocketDisconnect:
        pass  # It left meanwhile, which is its own handler's business.


def leave(groups, name, socket):
    groups[name].discard(socket)
    if not groups[name]:
        del groups[name]


def encode(message):
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


class Store:
    """One connection, used by one thread alone."""

    def __init__(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        # No implicit transactions: they are written out below.
        self.db = sqlite3.connect(directory / "fastapi.sqlite", check_same_thread=False, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.executescript((Path(__file__).resolve().parents[1] / "schema.sql").read_text())

    def read(self, prompt):
        row = self.db.execute("SELECT content, updated_at FROM document WHERE id = ?", (prompt,)).fetchone()
        return row or ("", now())

    def save(self, prompt, content):
        timestamp = now()
        self.db.execute("BEGIN IMMEDIATE")
        try:
            self.write_rows(prompt, content, timestamp)
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")
        return timestamp

    def write_rows(self, prompt, content, timestamp):
        room, seq = self.db.execute(
            "INSERT INTO room (name, head_seq) VALUES (?, 1) "
            "ON CONFLICT (name) DO UPDATE SET head_seq = head_seq + 1 RETURNING id, head_seq",
            (prompt,),
        ).fetchone()
        self.db.execute(
            "INSERT INTO event (place, kind, actor, at, body) VALUES (? << 37 | ?, 'update', 'bench', ?, ?)",
            (room, seq, time.time_ns() // 1_000_000, encode({"content": content})),
        )
        self.db.execute(
            "INSERT INTO document (id, updated_at, content) VALUES (?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at, content = excluded.content",
            (prompt, timestamp, content),
        )


def now():
    return datetime.now(timezone.utc).isoformat()


def in_store(work, *arguments):
    return asyncio.get_running_loop().run_in_executor(store_thread, work, *arguments)


if __name__ == "__main__":
    store = Store(Path(sys.argv[2]))
    store_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws=WS,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        ws_ping_timeout=None,
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
