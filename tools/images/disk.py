"""The model of a disk: what of a trace would be there after the power failed at a record.

A disk promises one thing: what a sync covered is there. A sync covers what was written to its file before it began; a sync
of a directory covers the names that were made and removed in it before it began. Everything else may be there or not, in
parts and in any order, independently of everything else:

  * A write that no sync covers survives in units of a sector (512 bytes), of a page (4096), or as a whole. Among the
    survivors an earlier write may stand where a later one was lost, which is all that reordering comes to: the page cache
    holds one version of a page, so an older version never overwrites a newer one.
  * A file may have the size that a lost write would have given it, with zeros or with garbage where its bytes should be
    (size and bytes travel separately: delayed allocation, or a disk whose journal holds metadata alone).
  * A truncation may be lost while later writes survive, and the other way round.
  * A created file may be without its name, a removed one still have it. That is POSIX, and weaker than ext4 and its
    kind, where syncing a new file saves its name and names change in order: what those disks leave behind is among the
    choices that are made here (all names survive; a prefix of the changes survives), and so is what they never do.

Not modelled: a disk that lies about a sync, or that damages what it has (there no promise can be kept; SQLite's checksums
and quick_check are for that), and the shared-memory file, which SQLite empties before it reads it after the power failed.
"""

import bisect
from dataclasses import dataclass, field

import trace

SECTOR, PAGE = 512, 4096
UNSEEN = "-shm"


@dataclass(eq=False)
class Inode:
    data: bytearray = field(default_factory=bytearray)  # what is certain
    pending: list = field(default_factory=list)  # Change, in order
    is_directory: bool = False


@dataclass(eq=False)
class Change:
    """A write, or a truncation when there are no bytes."""

    clock: int
    offset: int
    data: bytes = None


@dataclass(eq=False)
class Naming:
    """A name that was given to a file, or taken away."""

    clock: int
    name: str
    inode: Inode = None


class Disk:
    """Follows a trace. Names are relative to the recorded directory."""

    def __init__(self, root):
        self.root = str(root)
        self.names = {}  # as the kernel has them
        self.certain = {}  # as they are after a failure of power
        self.naming = []  # Naming, in order
        self.clock = 0
        self.descriptors = {}  # → Inode, or a directory's name
        self.syncs = {}  # number → (what, clock)
        self.settled = lambda inode, changes: None  # told what has become certain

    def apply(self, record):
        self.clock += 1
        self.HANDLERS[record.kind](self, record)

    def _start(self, _record):
        self.descriptors.clear()
        self.syncs.clear()

    def _open(self, record):
        name = self._name(record.path())
        inode = self.names.get(name)
        if inode is None and record.flags & trace.CREATES:
            inode = Inode()
            self._call(name, inode)
        elif record.flags & trace.TRUNCATES and inode is not None:
            inode.pending.append(Change(self.clock, 0))
        # The recorded directory itself has no inode here.
        self.descriptors[record.fd] = name if inode is None or inode.is_directory else inode

    def _close(self, record):
        self.descriptors.pop(record.fd, None)

    def _dup(self, record):
        if record.fd in self.descriptors:
            self.descriptors[record.number] = self.descriptors[record.fd]

    def _write(self, record):
        self.descriptors[record.fd].pending.append(Change(self.clock, record.offset, record.data))

    def _truncate(self, record):
        self.descriptors[record.fd].pending.append(Change(self.clock, record.offset))

    def _sync_begin(self, record):
        self.syncs[record.number] = (self.descriptors[record.fd], self.clock)

    def _sync_end(self, record):
        what, clock = self.syncs.pop(record.number)
        if isinstance(what, Inode):
            self._settle(what, clock)
        else:
            self._settle_names(what, clock)

    def _unlink(self, record):
        self._call(self._name(record.path()), None)

    def _rename(self, record):
        old, new = (self._name(path) for path in record.path().split("\0"))
        inode = self.names[old]
        self._call(new, inode)
        self._call(old, None)

    def _mkdir(self, record):
        self._call(self._name(record.path()), Inode(is_directory=True))

    def _map(self, record):
        inode = self.descriptors[record.fd]
        if not any(name.endswith(UNSEEN) for name, other in self.names.items() if other is inode):
            raise ValueError("a file was mapped for writing whose bytes matter: stores into it are not recorded")

    def _fault(self, _record):
        raise ValueError("the server made a call that this model does not know how to lose (fallocate)")

    def _ignore(self, _record):
        pass

    HANDLERS = {
        trace.START: _start, trace.OPEN: _open, trace.CLOSE: _close, trace.DUP: _dup, trace.WRITE: _write,
        trace.TRUNCATE: _truncate, trace.SYNC_BEGIN: _sync_begin, trace.SYNC_END: _sync_end, trace.UNLINK: _unlink,
        trace.RENAME: _rename, trace.MKDIR: _mkdir, trace.MAP: _map, trace.FAULT: _fault, trace.ACCEPT: _ignore,
        trace.SEND: _ignore,
    }  # fmt: skip

    def _name(self, path):
        return path[len(self.root) :].strip("/")

    def _call(self, name, inode):
        if inode is None:
            self.names.pop(name, None)
        else:
            self.names[name] = inode
        self.naming.append(Naming(self.clock, name, inode))

    def _settle(self, inode, clock):
        end = bisect.bisect_right(inode.pending, clock, key=lambda change: change.clock)
        covered = inode.pending[:end]
        del inode.pending[:end]
        for change in covered:
            put(inode.data, change)
        self.settled(inode, covered)

    def _settle_names(self, directory, clock):
        def is_covered(naming):
            return naming.clock <= clock and naming.name and naming.name.rpartition("/")[0] == directory

        for naming in filter(is_covered, self.naming):
            rename(self.certain, naming)
        self.naming = [naming for naming in self.naming if not is_covered(naming)]

    def pending(self):
        """(Inode, Change) of everything that no sync covers, in order."""
        found = [(inode, change) for inode in self.inodes() for change in inode.pending]
        return sorted(found, key=lambda pair: pair[1].clock)

    def inodes(self):
        """Those that any image can have, once each."""
        every = [*self.certain.values(), *(naming.inode for naming in self.naming if naming.inode), *self.names.values()]
        unseen = {id(naming.inode) for naming in self.naming if naming.inode and naming.name.endswith(UNSEEN)}
        unseen |= {id(inode) for name, inode in self.names.items() if name.endswith(UNSEEN)}
        return list({id(inode): inode for inode in every if id(inode) not in unseen}.values())


def put(data, change):
    """Carries a change out."""
    if change.data is None:
        del data[change.offset :]
        data.extend(bytes(change.offset - len(data)))
        return
    end = change.offset + len(change.data)
    if end > len(data):
        data.extend(bytes(end - len(data)))
    data[change.offset : end] = change.data


def rename(names, naming):
    if naming.inode is None:
        names.pop(naming.name, None)
    else:
        names[naming.name] = naming.inode


# --- what survives ---


@dataclass
class Fate:
    """What became of everything uncertain: by inode the changes that survived, in order; and the names."""

    style: str
    changes: dict  # id(Inode) → [Change]
    names: dict


def lost(disk):
    """Nothing survives that was not synced: the hardest disk for whoever promised too early."""
    return Fate("lost", {}, dict(disk.certain))


def kept(disk):
    """Everything survives: what a killed process leaves."""
    return Fate("kept", by_inode(disk.pending()), dict(disk.names))


def drawn(disk, dice):
    """One of the many ways in between."""
    pending = disk.pending()
    if not pending and not disk.naming:
        return lost(disk)
    style = dice.choices(("lost", "some", "one missing", "one only", "torn end", "kept"), (20, 40, 15, 5, 15, 5))[0]
    if style == "lost":
        return lost(disk)
    if style == "kept":
        return kept(disk)
    survivors = STYLES[style](pending, dice) if pending else []
    return Fate(style, by_inode(survivors + resized(pending, dice)), drawn_names(disk, dice))


def some(pending, dice):
    """Each unit by itself."""
    # A checkpoint leaves a thousand pages pending: to split all of them into sectors would add time, and nothing new.
    unit = dice.choice((SECTOR, PAGE, None)) if len(pending) <= 256 else None
    share = dice.choice((0.1, 0.5, 0.9))
    return [part for pair in pending for part in parts(pair, unit) if dice.random() < share]


def one_missing(pending, dice):
    missing = dice.randrange(len(pending))
    return pending[:missing] + torn(pending[missing], dice) + pending[missing + 1 :]


def one_only(pending, dice):
    return [dice.choice(pending)]


def torn_end(pending, dice):
    """In order up to some moment, and a part of what was being written then."""
    end = dice.randrange(len(pending))
    return pending[:end] + torn(pending[end], dice)


STYLES = {"some": some, "one missing": one_missing, "one only": one_only, "torn end": torn_end}


def torn(pair, dice):
    pieces = parts(pair, SECTOR)
    share = dice.choice((0, 0.5, 0.9))
    return [piece for piece in pieces if dice.random() < share]


def parts(pair, unit):
    """A change in pieces that end where units of the disk end."""
    inode, change = pair
    if unit is None or change.data is None:
        return [pair]
    pieces, at = [], 0
    while at < len(change.data):
        size = min(unit - (change.offset + at) % unit, len(change.data) - at)
        pieces.append((inode, Change(change.clock, change.offset + at, change.data[at : at + size])))
        at += size
    return pieces


def resized(pending, dice):
    """Sizes that survived without their bytes, for files that grew; none in two of three images."""
    if dice.random() < 0.67:
        return []
    is_garbage = dice.random() < 0.3
    sizes = {}
    for inode, change in pending:
        if change.data is not None:
            sizes[inode] = max(sizes.get(inode, 0), change.offset + len(change.data))
    grown = []
    for inode, size in sizes.items():
        missing = size - len(inode.data)
        if missing > 0:
            filler = dice.randbytes(min(missing, PAGE)) if is_garbage else b""
            # Before the writes: their survivors stand in it.
            grown.append((inode, Change(0, size - 1, b"\0")))
            grown += [(inode, Change(0, len(inode.data), filler))] if filler else []
    return grown


def drawn_names(disk, dice):
    """All changes of names, or a prefix of them, or any of them."""
    naming = disk.naming
    how = dice.random()
    if how < 0.3:
        naming = naming[: dice.randrange(len(naming) + 1)]
    elif how < 0.6:
        naming = [one for one in naming if dice.random() < 0.5]
    names = dict(disk.certain)
    for one in naming:
        rename(names, one)
    return names


def by_inode(pairs):
    changes = {}
    for inode, change in sorted(pairs, key=lambda pair: pair[1].clock):
        changes.setdefault(id(inode), []).append(change)
    return changes
