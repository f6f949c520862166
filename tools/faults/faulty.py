"""A server whose disk fails on demand: the shim beside this file, compiled, loaded into it and told what to do."""

import contextlib
import errno
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients" / "py"))

import harness  # noqa: E402
from harness import Server, expect  # noqa: E402

WRITE, SYNC = 1, 2
FAIL, SHORT, STALL = 0, 1, 2
KINDS = {"write": WRITE, "sync": SYNC}
ERRNOS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
LAYOUT = struct.Struct("<11q")
FIELDS = ("kind", "nth", "error", "forever", "action", "millis", "writes", "syncs", "hits", "writes_after", "syncs_after")
EXIT_START, EXIT_STORE = 3, 4


def build_shim(folder):
    """Compiles the shim; what is wrong with it is the compiler's own message."""
    shim = Path(folder) / "shim.so"
    command = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(shim), str(HERE / "shim.c")]
    subprocess.run(command, check=True)
    return shim


class Control:
    """The page that is shared with the shim."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.write_bytes(bytes(mmap.PAGESIZE))
        with self.path.open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def arm(self, kind, nth=1, error=errno.EIO, forever=False, action=FAIL, millis=0):
        """Counting begins here. The kind is written last: it is what the shim looks at first."""
        self.page[: LAYOUT.size] = LAYOUT.pack(0, nth, error, forever, action, millis, 0, 0, 0, 0, 0)
        self.page[:8] = struct.pack("<q", kind)

    def disarm(self):
        self.page[:8] = bytes(8)

    def __getattr__(self, field):
        if field not in FIELDS:
            raise AttributeError(field)
        at = 8 * FIELDS.index(field)
        return struct.unpack("<q", self.page[at : at + 8])[0]


@contextlib.contextmanager
def variables(**values):
    """What a child that is started meanwhile inherits."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class FaultyServer(Server):
    """A server under the shim, with nothing armed until `control.arm`."""

    def __init__(self, shim, config="", **options):
        super().__init__(config=config, prompts=False, **options)
        self.control = Control(self.dir / "control")
        self.environment = {"LD_PRELOAD": str(shim), "FAULTS_DIR": str(self.data), "FAULTS_CONTROL": str(self.control.path)}

    def start(self):
        with variables(**self.environment):
            super().start()

    def wait_for_hit(self, seconds):
        deadline = time.monotonic() + seconds
        while self.control.hits == 0:
            expect(time.monotonic() < deadline, "the fault was never met")
            time.sleep(0.001)

    def is_running(self):
        return self.process.poll() is None

    def exit_code(self, seconds):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the process did not end within {seconds} s") from None

    def last_run_log(self, before):
        """What it logged since its log had this many bytes."""
        return self.log.read_bytes()[before:].decode("utf-8", "replace")

    def log_bytes(self):
        return self.log.stat().st_size if self.log.exists() else 0

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def a_place_of_our_own():
    """Everything lies below one directory that goes with us; in memory where there is room, so that a sync does not wait for
    a disk that others use too."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="faults-", dir=memory) as place:
        tempfile.tempdir = place
        yield Path(place)


def not_run(why):
    print(f"NOT RUN: {why}", flush=True)
    sys.exit(77)


__all__ = [name for name in dir() if not name.startswith("_")]
