"""What clients were shown: reads the recorded bytes of every socket, and finds in the log what each message tells of it.

A message that tells of a commit obliges every later image to have that commit. What it shows must be in the log as it is
shown: at the same room, epoch and seq, byte for byte where the message carries the stored bytes (native and backend
protocol), value by value where a dialect tells it in its own words.
"""

import json
from collections import Counter
from dataclasses import dataclass, field

import load
import trace
from log import Wrong

VOLATILE = {"hello", "pong", "left", "presence", "signal", "bye", "expiring", "refused", "unknown"}
QUIET = {"connected", "pong", "cancelled", "heartbeat"}


@dataclass
class Connection:
    life: int
    port: int
    bytes: bytearray = field(default_factory=bytearray)
    records: list = field(default_factory=list)  # (end of its bytes, index of the record)


def connections(records):
    """Every connection with the bytes that were handed to it."""
    found, open, life = [], {}, -1
    for index, record in enumerate(records):
        if record.kind == trace.START:
            life += 1
            open.clear()
        elif record.kind == trace.ACCEPT:
            open[record.fd] = Connection(life, record.number)
            found.append(open[record.fd])
        elif record.kind == trace.SEND:
            connection = open[record.fd]
            connection.bytes += record.data
            connection.records.append((len(connection.bytes), index))
        elif record.kind == trace.CLOSE:
            open.pop(record.fd, None)
        elif record.kind == trace.DUP and record.fd in open:
            open[record.number] = open[record.fd]
    return found


class Evidence:
    """`needs` is a list of (index of a record, commit): after it, that commit must not be lost."""

    def __init__(self, log):
        self.log = log
        self.needs = []
        self.counts = Counter()
        self.wrong = []
        # By room and kind: what was stored, as values.
        self.values = {}

    def read(self, connection, path):
        self.room = room_of(path, connection.life)
        self.path = path
        messages = answers(connection.bytes) if path == "http" else frames(connection.bytes)
        sends = iter(connection.records)
        end, index = next(sends, (0, 0))
        for at, message in messages:
            # It was shown by the send that completed it.
            while end < at:
                end, index = next(sends)
            try:
                commit = self.tell(message)
            except Wrong as wrong:
                self.wrong.append(f"{path}: {wrong}: {bytes(message)[:300]!r}")
                continue
            if commit:
                self.needs.append((index, commit))

    def tell(self, message):
        """The newest commit that this message tells of."""
        text = bytes(message)
        if not text.startswith(b"{"):
            return 0
        if self.path == "http":
            return max((self.answered(line, json.loads(line)) for line in text.split(b"\n") if line), default=0)
        value = json.loads(text)
        if "op" in value:
            return getattr(self, "native_" + value["op"], self.volatile)(text, value)
        if "action" in value:
            return self.document(value)
        return self.told(value)

    def volatile(self, _text, value):
        if value["op"] not in VOLATILE:
            raise Wrong("a frame that this suite does not know")
        self.counts["refusals"] += value["op"] == "refused"
        return 0

    # --- native ---

    def native_event(self, text, value):
        event = self.stored(value["room"], value["seq"], "shown")
        self.same(text, value, event)
        self.counts["event frames"] += 1
        return self.log.commit_of[event.place]

    def native_ok(self, _text, value):
        if "room" not in value:
            return 0
        return self.acknowledged(value["room"], value["seq"], value["id"])

    def native_joined(self, text, value):
        return self.stand(text, value, value["head"])

    def native_reset(self, text, value):
        return self.stand(text, value, value["seq"])

    def native_conflict(self, _text, _value):
        self.counts["refusals"] += 1
        return 0

    def stand(self, _text, value, head):
        self.counts["heads"] += 1
        if head == 0:
            return 0
        event = self.stored(value["room"], head, "the head")
        self.epoch(value)
        if "snapshot" in value and value["room"].startswith("state:"):
            bodies = [json.loads(event.body) for event in self.log.named(value["room"]) if event.seq <= head]
            if value["snapshot"] not in bodies:
                raise Wrong("a state that was never stored")
        return self.log.commit_of[event.place]

    def acknowledged(self, room, seq, id):
        event = self.stored(room, seq, "acknowledged")
        if id is not None and event.op != id:
            raise Wrong(f"acknowledged as {id}, and stored as {event.op}")
        self.counts["acknowledgements"] += 1
        return self.log.commit_of[event.place]

    def stored(self, room, seq, how):
        event = self.log.events.get(self.log.place(room, seq))
        if event is None:
            raise Wrong(f"event {seq} of {room} was {how}, and is in no log")
        return event

    def same(self, text, value, event):
        told = (value["seq"], value["type"], value["by"], value.get("id"))
        if told != (event.seq, event.kind, event.actor, event.op):
            raise Wrong(f"shown as {told}, stored as {event}"[:400])
        if b'"data":' + event.body not in text:
            raise Wrong("its data is not what is stored, byte for byte")

    def epoch(self, value):
        stored = self.log.rooms[self.log.ids[value["room"]]][1]
        if int(value["epoch"], 16) != stored & (1 << 64) - 1:
            raise Wrong(f"the epoch is {stored:x}")

    # --- HTTP ---

    def answered(self, line, value):
        if "events" in value:
            self.epoch(value)
            commits = [self.page_event(line, value["room"], event) for event in value["events"]]
            return max(commits, default=0)
        if "epoch" in value and "seq" in value:
            self.epoch(value)
            return self.acknowledged(value["room"], value["seq"], value.get("id"))
        if "request_id" in value and "seq" in value:
            return self.acknowledged(f"session:{value['session']}", value["seq"], None)
        if "created_at" in value and "session" in value:
            return self.found(f"session:{value['session']}", "session_created", {}, "acknowledgements")
        if "ticket_id" in value:
            return self.found("tickets", "ticket_created", {"ticket_id": value["ticket_id"]}, "acknowledgements")
        if "content" in value and "unique_id" in value:
            return self.content(f"doc:{value['id']}", value["content"], "acknowledgements")
        if not ("status" in value or "detail" in value):
            raise Wrong("an answer that this suite does not know")
        return 0

    def page_event(self, line, room, value):
        event = self.stored(room, value["seq"], "read")
        self.same(line, value, event)
        self.counts["events in pages"] += 1
        return self.log.commit_of[event.place]

    # --- the other dialects, in their own words ---

    def document(self, value):
        if value["action"] == "update_status":
            if not value["success"]:
                self.counts["refusals"] += 1
                return 0
            return self.acknowledged(self.room, value["seq"], value["id"])
        if value["action"] in ("update", "initial"):
            return self.content(self.room, value["content"], "event frames")
        asked = {name: value[name] for name in ("description", "tags")}
        return self.found(self.room, value["action"], asked, "event frames")

    def content(self, room, content, counted):
        return self.found(room, ("created", "update"), {"content": content}, counted)

    def told(self, value):
        """Tickets: the event with a type; agents: the event in an envelope."""
        if value["type"] in QUIET:
            return 0
        told = value["data"] if self.room.startswith("session:") else value
        return self.found(self.room, value["type"], told, "event frames")

    def found(self, room, kinds, told, counted):
        """The commit of the event that tells the same; the oldest, should there be two."""
        self.counts[counted] += 1
        for event, body in self.bodies(room, kinds):
            is_same = all(body.get(name, value) == value for name, value in told.items())
            if is_same and told.keys() <= body.keys() | DERIVED:
                return self.log.commit_of[event.place]
        raise Wrong("was shown, and is in no log")

    def bodies(self, room, kinds):
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        if (room, kinds) not in self.values:
            events = [event for event in self.log.named(room) if event.kind in kinds]
            self.values[room, kinds] = [(event, json.loads(event.body)) for event in events]
        return self.values[room, kinds]


# What a dialect adds to what is stored.
DERIVED = {"timestamp", "type", "session_id"}


def room_of(path, life):
    if path.startswith("/ws/prompts/"):
        return f"doc:{path.removeprefix('/ws/prompts/')}"
    return "tickets" if path == "/ws" else f"session:{load.session(life)}"


def frames(data):
    """(end, payload) of each whole text frame behind the head of the handshake's answer."""
    at = head_end(data)
    while at and at + 2 <= len(data):
        size, start = data[at + 1] & 127, at + 2
        if size > 125:
            wide = 2 if size == 126 else 8
            size, start = int.from_bytes(data[start : start + wide]), start + wide
        if start + size > len(data):
            return
        if data[at] & 15 == 1:
            yield start + size, memoryview(data)[start : start + size]
        at = start + size


def answers(data):
    """(end, body) of each whole HTTP answer; of one in chunks, (end, chunk) of each."""
    at = 0
    while start := head_end(data, at):
        head = bytes(data[at:start]).decode("latin-1").lower()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        if "transfer-encoding" not in fields:
            at = start + int(fields.get("content-length", 0))
            if at > len(data):
                return
            yield at, memoryview(data)[start:at]
            continue
        at = start
        while (end := data.find(b"\r\n", at)) >= 0 and (size := int(data[at:end], 16)):
            at = end + 2 + size + 2
            if at > len(data):
                return
            yield at, memoryview(data)[end + 2 : at - 2]
        at = end + 4


def head_end(data, at=0):
    found = data.find(b"\r\n\r\n", at)
    return found + 4 if found >= 0 else 0
