"""Makes images of a recording, thousands of them, and judges each."""

import gc
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field

import disk
import stage
import trace
from log import Wrong

EVERY_WHOLE = 40
VIOLATIONS_SAID = 5
# SQLite reads the whole write-ahead log to recover it, a millisecond a megabyte: most images are made where it is short, so
# that there are many; UNIFORM of them anywhere, so that no stretch goes without.
UNIFORM = 0.05
SHORT_BYTES = 32 << 10


@dataclass
class Result:
    images: int = 0
    seconds: float = 0.0  # of one core
    wall: float = 0.0
    styles: Counter = field(default_factory=Counter)
    whole: int = 0
    facts: int = 0  # distinct acknowledgements and frames behind which an image stood, added up
    starts: int = 0  # of servers, on an image
    served: int = 0  # messages that told of what the disk did not have when they started
    violations: list = field(default_factory=list)

    def add(self, other):
        for name in ("images", "seconds", "whole", "facts", "starts", "served"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.styles.update(other.styles)
        self.violations += other.violations


def cuts(recording, count, dice):
    """Indexes of records behind which the power fails, in order."""
    weights = [1 / (SHORT_BYTES + size) ** 2 for size in log_sizes(recording)]
    indexes = range(len(weights))
    anywhere = int(count * UNIFORM)
    return sorted(dice.choices(indexes, weights, k=count - anywhere) + dice.choices(indexes, k=anywhere))


def log_sizes(recording):
    """At every record: how much of the write-ahead log a recovery would read."""
    sizes, size, at = [], 0, 0
    for index, offset, length in recording.log_file():
        sizes += [size] * (index - at)
        size, at = offset + length, index
    return sizes + [size] * (len(recording.records) - at)


def replay(recording, count, seed, cores, directory, keep=None):
    """`count` images over all cores."""
    chosen = cuts(recording, count, random.Random(f"{seed} cuts"))
    # Slices of equal length: each worker follows the disk once.
    length = -(-len(chosen) // cores)
    jobs = [(n, chosen[n * length : (n + 1) * length]) for n in range(cores)]
    result = Result()
    context = multiprocessing.get_context("fork")
    with context.Pool(cores, initializer=share, initargs=(recording, seed, str(directory), keep)) as pool:
        for part in pool.imap(work, jobs):
            result.add(part)
    return result


def share(*what):
    """What every worker reads, from before the fork."""
    global SHARED
    SHARED = what
    # A recording is millions of objects that live as long as this process: nothing to collect, and much to walk over.
    gc.disable()


def shared():
    return SHARED


def work(job):
    recording, seed, directory, keep = shared()
    number, chosen = job
    here = os.path.join(directory, f"worker-{number}")
    result = Result()
    begun = time.process_time()
    Images(recording, here, random.Random(f"{seed} {number}"), keep).run(chosen, result)
    result.seconds = time.process_time() - begun
    shutil.rmtree(here)
    return result


class Images:
    def __init__(self, recording, directory, dice, keep=None, model=None):
        self.recording, self.dice, self.keep = recording, dice, keep
        self.model = model or disk.Disk(recording.root)
        self.stage = stage.Stage(directory, self.model)

    def run(self, chosen, result, fates=()):
        """An image behind each of the chosen records, which are in order; the first time at a record, `fates` too."""
        at = 0
        for index in chosen:
            is_new = at <= index
            while at <= index:
                self.model.apply(self.recording.records[at])
                at += 1
            for fate in fates if is_new else ():
                self.judge(index, fate(self.model), result)
            self.judge(index, disk.drawn(self.model, self.dice), result)
        self.stage.close()

    def judge(self, index, fate, result):
        needed = self.recording.needed[index]
        is_whole = result.images % EVERY_WHOLE == 0
        touched = self.stage.show(fate)
        try:
            self.recording.log.judge(os.path.join(self.stage.images, "data"), needed, is_whole)
        except Wrong as wrong:
            result.violations.append(self.violation(index, fate, needed, wrong, result))
        result.images += 1
        result.whole += is_whole
        result.styles[fate.style] += 1
        result.facts += self.recording.facts[index]
        self.stage.clear(touched)

    def violation(self, index, fate, needed, wrong, result):
        record = self.recording.records[index]
        kind = trace.KINDS[record.kind - 1]
        words = f"behind record {index} ({kind}), {fate.style}, commit {needed} owed: {wrong}"
        if self.keep and len(result.violations) < VIOLATIONS_SAID:
            # What was kept before stays: a run in many pieces counts its images anew in each.
            os.makedirs(self.keep, exist_ok=True)
            to = tempfile.mkdtemp(prefix=f"{index}-{fate.style.replace(' ', '-')}-", dir=self.keep)
            self.stage.copy(os.path.join(to, "disk"))
            said = {"record": index, "kind": kind, "style": fate.style, "owed": needed, "wrong": str(wrong)}
            with open(os.path.join(to, "violation.json"), "w") as file:
                json.dump(said, file, indent=1)
            words += f"; kept in {to}"
        return words
