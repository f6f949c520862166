"""Reads what record.c wrote: a list of records in the order in which things happened."""

import mmap
import struct
from typing import NamedTuple

# record.c has the same numbers.
KINDS = (
    "START", "OPEN", "CLOSE", "DUP", "WRITE", "TRUNCATE", "SYNC_BEGIN", "SYNC_END", "UNLINK", "RENAME", "MKDIR", "MAP",
    "ACCEPT", "SEND", "FAULT",
)  # fmt: skip
(
    START, OPEN, CLOSE, DUP, WRITE, TRUNCATE, SYNC_BEGIN, SYNC_END, UNLINK, RENAME, MKDIR, MAP, ACCEPT, SEND, FAULT,
) = range(1, len(KINDS) + 1)  # fmt: skip

HEAD = struct.Struct("=IHHiIq")
CREATES, TRUNCATES = 1, 2


class Record(NamedTuple):
    kind: int
    fd: int
    flags: int = 0
    number: int = 0  # a sync's, a peer's port, a duplicate's descriptor, a process's id
    offset: int = 0  # of a write; of a truncation, the size
    data: bytes = b""  # what was written or sent, or a path

    def path(self):
        return bytes(self.data).decode()


def read(path):
    """The bytes stay in the mapped file until they are asked for. A record that its process did not finish ends it."""
    with open(path, "rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    records, at = [], 0
    while at + HEAD.size <= len(view):
        length, kind, flags, fd, number, offset = HEAD.unpack_from(view, at)
        at += HEAD.size
        if at + length > len(view):
            break
        records.append(Record(kind, fd, flags, number, offset, view[at : at + length]))
        at += length
    return records
