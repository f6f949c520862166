"""What the golden transcripts hold, as values for the schemas: frames by channel and side, requests with their answers.

The format is described in tests/it/golden.rs. Standard library only.
"""

import json
import re
import urllib.parse
from dataclasses import dataclass, field

# Something in the form that each placeholder stands for.
MARKS = {
    "T": "2025-05-13T01:59:00.123456+00:00",
    "Z": "2025-05-13T01:59:00.123456Z",
    "L": "2025-05-13T01:59:00.123456",
    "N": "2025-05-13T01:59:00.123456",
    "S": "2025-05-13T01:59:00",
    "H": "0af0bd5c",
    "U": "0af0bd5c-0000-4000-8000-00000000000a",
    "E": "0000000000000007",
    "D": "0123456789abcdef0123456789abcdef01234567",
    "C": "c0.4.1",
    "V": "0.1.0",
}
WORDS = {"$ROOT": "/srv/prompts", "$NAME": "prompts", "$HOST": "127.0.0.1:8080"}
MARK = re.compile(r"\$([A-Z])(?:\([^)]*\))?")


@dataclass
class Frame:
    """One text frame; without a text it is silence, or a close."""

    place: str
    client: str
    path: str
    by_client: bool
    text: str | None


@dataclass
class Request:
    place: str
    method: str
    path: str
    body: str
    status: int | None = None
    answer: str = ""


@dataclass
class Transcript:
    frames: list = field(default_factory=list)
    requests: list = field(default_factory=list)


def read(file):
    """The frames and requests of a transcript. What is no line of the format is an error, not an omission."""
    found = Transcript()
    paths = {}
    request = None
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        line, place = filled(line.rstrip("\n")), f"{file.name}:{number}"
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("= "):
            order, _, rest = line[2:].partition(" ")
            request = None
            if order == "connect":
                client, path = rest.split(" ")[:2]
                paths[client] = path
            elif order == "http":
                words = rest.split(" ", 2)
                request = Request(place, words[0], words[1], words[2] if len(words) > 2 else "")
                found.requests.append(request)
            elif order == "refused":
                request = Request(place, "REFUSED", rest, "")
                found.requests.append(request)
            continue
        if line.startswith("< header "):
            continue
        if line.startswith("<"):
            status, _, answer = line[2:].partition(" ")
            if request is not None:
                request.status, request.answer = int(status), answer
            continue
        spoken = re.match(r"(\w+)([<>])(\w*) ?(.*)$", line, re.DOTALL)
        if not spoken or spoken[1] not in paths:
            raise ValueError(f"{place}: not a line of a transcript: {line}")
        client, arrow, special, text = spoken.groups()
        if special in ("silence", "close"):
            text = None
        elif special:
            # Pings and binary frames are no messages.
            continue
        found.frames.append(Frame(place, client, paths[client], arrow == ">", text))
    return found


def filled(line):
    for word, value in WORDS.items():
        line = line.replace(word, value)
    unknown = [mark for mark in re.findall(r"\$([A-Z])(?![A-Z])", line) if mark not in MARKS]
    if unknown:
        raise ValueError(f"no value for ${unknown[0]}: {line}")
    return MARK.sub(lambda mark: MARKS[mark[1]], line)


def answer_to(index, frames, fits):
    """What the frame was answered; None when that is silence. An answer belongs to the first that `fits`."""
    asked = frames[index]
    for frame in frames[index + 1 :]:
        if frame.client != asked.client or frame.path != asked.path:
            continue
        if not frame.by_client:
            return frame.text
        if frame.text is None or fits(frame):
            return None
    return None


def value_of(text):
    """JSON where it is JSON; None otherwise."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def is_refusal(text):
    value = value_of(text) if text is not None else None
    if not isinstance(value, dict):
        return text is None
    return (
        value.get("action") == "error"
        or value.get("type") == "error"
        or value.get("op") == "refused"
        or value.get("success") is False
    )


def verb_of(text):
    """What a message calls itself, if it does."""
    value = value_of(text)
    if not isinstance(value, dict):
        return None
    return next((value[key] for key in ("op", "action", "type") if isinstance(value.get(key), str)), None)


def pattern_of(template):
    """A path with names in braces as a regular expression. Prompt ids, topics and rooms may hold slashes."""
    parts = re.split(r"\{(\w+)\}", template)
    slashes = ("prompt_id", "topic", "room")
    text = "".join(
        re.escape(part) if index % 2 == 0 else (".+" if part in slashes else "[^/]+") for index, part in enumerate(parts)
    )
    return re.compile(f"^{text}$")


def split(target):
    """Path, and query as a dictionary of the first values."""
    path, _, query = target.partition("?")
    return path, {name: values[0] for name, values in urllib.parse.parse_qs(query, keep_blank_values=True).items()}
