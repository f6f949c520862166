"""Bounds under attack: limits are exact and leak nothing, memory stays below the bound, no flood is another's delay.

    bounds_suite.py [--connects 20000] [--seconds 1.5] [--stalled 1000] [--seed N] [--only NAME…]

`--connects 1000000 --seconds 30` is the nightly form. Tests: refused, limits, at-once, storm, rooms, stalled, hot, and floods
or one of them (storm.py and floods.py hold the attackers). A failure prints the seed and the command that repeats it.
"""

import argparse
import json
import os
import random
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path

import floods
from harness import Server, Tally, equal, expect, program, signed
from raw_client import Member, handshake
from storm import dial, heard_head, storm

SECRET = "a secret of thirty-two bytes or more"
TOKEN = signed(SECRET, sub="ada", exp=4102444800, rooms={"*": ["read", "write", "signal", "presence"]})
STRANGERS = f"""
[auth]
mode = "token"
hs256_secret = "{SECRET}"
[origins]
allow = ["http://good.example"]
[proxy]
trusted = ["127.0.0.0/8"]
[limits]
address_handshakes_per_second = 0
"""
UNMETERED = """
[limits]
messages_per_second = 0
bytes_per_second = 0
"""
NOTHING_LEFT = [
    "rooms",
    "members",
    "outbox_bytes",
    "unfinished_bytes",
    "operation_bytes",
    "response_bytes",
    "address_places",
]
# What the allocator may have kept of a storm that is over.
KEPT_BYTES = 12 << 20
# Connects before the storm, as a share of it: the storm writes, and of a long one the first part fills the store's page
# cache (32 MiB, which four hundred thousand do). What grows behind that is a leak.
WARM_UP_SHARE = 0.4


def samples(server):
    """Every sample of /metrics that has no label but `le`, by name."""
    text = server.get("/metrics")[1:][1]
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name.removeprefix("commitcast_"): float(value) for name, value in lines}


def wait_until(server, condition, what, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition(found := samples(server)):
        expect(time.monotonic() < deadline, lambda: f"{what}: {({k: v for k, v in found.items() if 'bucket' not in k})}")
        time.sleep(0.02)
    return found


def descriptors(server):
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def settled_descriptors(server):
    """Once it stays: our last question's connection may still be being closed, or the listener have its reserve in hand."""
    deadline, last, same = time.monotonic() + 10, None, 0
    while same < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
        now = descriptors(server)
        last, same = now, same + 1 if now == last else 0
    return last


def processor_seconds(server):
    fields = Path(f"/proc/{server.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def refused(options):
    """A budget that the configuration does not fit into: both commands say what would fit, and it does."""
    server = Server(config='[limits]\nconnections = 5000\nmemory = "1GiB"\n', prompts=False)
    command = [str(program()), "check-config", "--config", str(server.config)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    equal(checked.returncode, 2, "exit code of check-config")
    advised = checked.stderr.split("limits.connections to at most ")[1].split(",")[0]
    serve = [command[0], "serve", *command[2:], "--data", str(server.data)]
    served = subprocess.run(serve, capture_output=True, text=True, timeout=20, check=False)
    equal(served.returncode, 2, "exit code of serve")
    expect("limits.memory to at least" in served.stderr, served.stderr)
    server.config.write_text(f'[limits]\nconnections = {advised}\nmemory = "1GiB"\n')
    equal(subprocess.run(command, capture_output=True, check=False).returncode, 0, "with what was advised")
    with server:
        expect("memory: this configuration may come to need" in server.last_words(), server.last_words())
        found = samples(server)["memory_bound_bytes"]
        expect(0 < found <= 1 << 30, f"{found} bytes are the bound")
    print(f"behaviour: a budget of 1 GiB is for {advised} connections", flush=True)


def limits(options):
    """N and not one more: of the process, of an address, of rooms of a connection."""
    with Server(config=STRANGERS + "connections = 300\naddress_connections = 40\n", prompts=False) as server:
        dice = random.Random(options.seed)

        def ask(address):
            sock = dial(server.port, dice)
            fields = f"Authorization: Bearer {TOKEN}\r\nX-Forwarded-For: {address}\r\n"
            try:
                sock.sendall(handshake(server.port, "/v1/connect", fields=fields))
            except OSError:
                pass  # whoever is refused at accept is told before he has spoken
            return sock, heard_head(sock)

        for round in range(3):
            held = [ask(f"10.0.0.{number // 40}") for number in range(280)]
            equal({status for _, status in held}, {101}, f"round {round}: forty from each of seven addresses")
            one_more = [ask(f"10.0.0.{number}") for number in range(7)]
            equal([status for _, status in one_more], [429] * 7, "the forty-first of an address")
            for sock, _ in one_more:
                sock.close()
            wait_until(server, lambda found: found["connections"] == 281, "the refused have gone")
            held += [ask(f"10.0.1.{number}") for number in range(20)]
            equal({status for _, status in held}, {101}, "up to the limit of the process")
            over = [ask(f"10.0.2.{number}") for number in range(5)]
            equal([status for _, status in over], [503] * 5, "beyond the limit of the process")
            for sock, _ in held + over:
                sock.close()
            # Asking takes a place: it is refused until somebody has gone.
            deadline = time.monotonic() + 20
            while server.get("/readyz")[0] != 200:
                expect(time.monotonic() < deadline, "places of the process do not come back")
            nothing_left(server)
        client = Member(server.port, "/v1/connect", fields=f"Authorization: Bearer {TOKEN}\r\n")
        client.next_text()
        answers = []
        for number in range(130):
            client.socket.sendall(floods.say(op="join", room=f"room:{number}"))
            answers.append(json.loads(client.next_text()).get("op"))
        equal(answers, ["joined"] * 128 + ["refused"] * 2, "rooms of one connection")
        client.close()


def at_once(options):
    """N and not one more of three times as many that dial before anybody is answered."""
    with Server(config="[limits]\nconnections = 200\n", prompts=False) as server:
        dice = random.Random(options.seed)
        for round in range(5):
            dialled = [dial(server.port, dice) for _ in range(600)]
            for sock in dialled:
                try:
                    sock.sendall(handshake(server.port, "/v1/connect"))
                except OSError:
                    pass  # it was refused before it spoke
            let_in = sum(was_let_in(sock) for sock in dialled)
            # Whoever asked just now may not be gone.
            expect(let_in in (199, 200), f"{let_in} let in of six hundred at once in round {round}")
            for sock in dialled:
                sock.close()
            deadline = time.monotonic() + 20
            while server.get("/readyz")[0] != 200:
                expect(time.monotonic() < deadline, "places of the process do not come back")
            nothing_left(server)


def was_let_in(sock):
    try:
        return heard_head(sock) == 101
    except (OSError, AssertionError):
        return False


def nothing_left(server):
    found = wait_until(
        server,
        lambda found: found["connections"] == 1 and not any(found[name] for name in NOTHING_LEFT),
        "something is left behind",
    )
    return found


def storm_test(options):
    """So many connects with random endings, and then: every gauge, every descriptor, the memory."""
    with Server(config=STRANGERS, prompts=False) as server:
        ends, _ = storm(server.port, TOKEN, options.seed + 1, max(2000, int(options.connects * WARM_UP_SHARE)))
        nothing_left(server)
        memory, files = server.rss(), settled_descriptors(server)
        ends, rate = storm(server.port, TOKEN, options.seed, options.connects)
        found = nothing_left(server)
        equal(settled_descriptors(server), files, "open files")
        grown = server.rss() - memory
        print(f"behaviour: {options.connects} connects, {rate:.0f} a second, ends {dict(sorted(ends.items()))}", flush=True)
        print(f"behaviour: {memory >> 20} MiB before the storm, {grown / (1 << 20):+.1f} MiB after; {files} files", flush=True)
        expect(grown < KEPT_BYTES, f"{grown >> 20} MiB are not given back")
        expect(found["accepted_total"] >= options.connects, f"{found['accepted_total']} accepted")


def rooms(options):
    """What a room costs is what the bound says it costs at most."""
    with Server(config=UNMETERED, prompts=False) as server:
        clients = [Member(server.port, "/v1/connect") for _ in range(100)]
        for client in clients:
            client.next_text()
        before = server.rss()
        name = "r" * 200
        for place, client in enumerate(clients):
            client.socket.sendall(b"".join(floods.say(op="join", room=f"{name}:{place}:{n}") for n in range(128)))
        for client in clients:
            for _ in range(128):
                equal(json.loads(client.next_text())["op"], "joined", "an answer")
        each = (server.rss() - before) / samples(server)["rooms"]
        print(f"behaviour: {each:.0f} bytes a room with a name of 200 bytes and one member", flush=True)
        expect(each <= 2048, f"{each:.0f} bytes a room; the bound counts 2048")
        for client in clients:
            client.close()
        nothing_left(server)


class Crowd:
    """Members of one room that read whatever comes, and a publisher."""

    def __init__(self, server, size):
        self.selector = selectors.DefaultSelector()
        self.members = [joined(server) for _ in range(size)]
        self.publisher = joined(server)
        for member in self.members:
            member.socket.setblocking(False)
            self.selector.register(member.socket, selectors.EVENT_READ, member)
        self.published = 0

    def publish(self, count, length):
        """One after the other; everybody has every one of them at the end. Returns what the members read."""
        body = "x" * length
        read = 0
        for _ in range(count):
            self.published += 1
            self.publisher.socket.sendall(
                floods.say(op="publish", room="crowd", id=str(self.published), type="t", data=body)
            )
            while json.loads(self.publisher.next_text())["op"] != "ok":
                pass
            waiting = set(self.members)
            deadline = time.monotonic() + 20
            while waiting:
                expect(time.monotonic() < deadline, f"{len(waiting)} members wait for message {self.published}")
                for key, _ in self.selector.select(1):
                    key.data.receive()
                    for opcode, payload in key.data.frames():
                        read += len(payload)
                        if opcode == 1 and f'"seq":{self.published},' in payload[:300].decode():
                            waiting.discard(key.data)
        return read


def joined(server, receive_buffer=None):
    member = Member(server.port, "/v1/connect", receive_buffer)
    member.next_text()
    member.socket.sendall(floods.say(op="join", room="crowd"))
    answer = json.loads(member.next_text())
    equal(answer["op"], "joined", "the answer to a join")
    return member


def stalled(options):
    """I1, by work and not by time: what a delivery to whoever reads costs, alone and beside a thousand who never read."""
    quiet = '[limits]\nmessages_per_second = 0\nbytes_per_second = 0\nstall = "{}"\nping = "10m"\n'
    with Server(config=quiet.format("10m"), prompts=False) as server:
        crowd = Crowd(server, 40)
        costs = {}
        for stalled_members in (0, options.stalled):
            deaf = [joined(server, receive_buffer=2048) for _ in range(stalled_members)]
            # Until their kernels are full, they are served like everybody.
            crowd.publish(24, 16_000)
            before, turns = processor_seconds(server), samples(server)["loop_lag_seconds_count"]
            crowd.publish(150, 4_000)
            after, more = processor_seconds(server), samples(server)["loop_lag_seconds_count"]
            costs[stalled_members] = (after - before) / (150 * 40), more - turns
        (alone, turns_alone), (beside, turns_beside) = costs[0], costs[options.stalled]
        print(
            f"behaviour: a delivery costs {alone * 1e6:.1f} µs of processor alone ({turns_alone:.0f} turns), and "
            f"{beside * 1e6:.1f} µs beside {options.stalled} who never read ({turns_beside:.0f} turns)",
            flush=True,
        )
        found = samples(server)
        expect(found["outbox_bytes"] < options.stalled * 20_000, f"{found['outbox_bytes']} bytes wait for cursors")
        # Each of the deaf is looked at once a commit: some tens of nanoseconds, so a thousand of them a microsecond a delivery.
        expect(beside - alone < 5e-6 + 0.5 * alone, "the deaf cost those who read")
        for member in deaf:
            member.close()
    with Server(config=quiet.format("1s"), prompts=False) as server:
        crowd = Crowd(server, 5)
        deaf = [joined(server, receive_buffer=2048) for _ in range(options.stalled)]
        crowd.publish(24, 16_000)
        gone = 'ws_close_total{code="4008"}'
        wait_until(server, lambda found: found.get(gone) == options.stalled, "all of the deaf are let go")
        crowd.publish(1, 100)
        for member in deaf:
            member.close()


def hot(options):
    """I4: room A as fast as it goes, room B one operation after the other; each of B's is in one of the next commits."""
    with Server(config=UNMETERED, prompts=False) as server:
        with floods.attackers(floods.publishes, server.port, 2, clients=16, room="hot"):
            client = Member(server.port, "/v1/connect")
            client.next_text()
            wait_until(server, lambda found: found["operations_total"] > 2000, "the flood has begun")
            before = samples(server)
            count = max(20, int(40 * options.seconds))
            for number in range(count):
                client.socket.sendall(floods.say(op="publish", room="quiet", id=str(number), type="t", data=1))
                equal(json.loads(client.next_text())["op"], "ok", "the answer to room B")
            after = samples(server)
        commits = after["commit_seconds_count"] - before["commit_seconds_count"]
        operations = after["operations_total"] - before["operations_total"]
        print(
            f"behaviour: {operations / count:.0f} operations of the hot room to one of the quiet one, which waited for "
            f"{commits / count:.1f} commits",
            flush=True,
        )
        expect(operations > 20 * count, f"{operations / count:.0f} times the rate is no flood")
        # The one under way, its own, and those that pass while the client hears of it and asks anew.
        expect(commits <= 4 * count, f"{commits / count:.1f} commits for one operation")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connects", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each flood")
    parser.add_argument("--stalled", type=int, default=1000, help="members that never read")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--only", nargs="*", help="tests or floods by name")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    tests = {
        "refused": refused,
        "limits": limits,
        "at-once": at_once,
        "storm": storm_test,
        "rooms": rooms,
        "stalled": stalled,
        "hot": hot,
    }
    tally = Tally()
    for name, test in tests.items():
        if not options.only or name in options.only:
            tally.run(name, test, options)
    if not options.only or "floods" in options.only or set(options.only) & set(floods.ALL):
        floods.run(tally, options, samples)
    if tally.failed:
        print(f"again: bounds_suite.py --connects {options.connects} --seconds {options.seconds} --seed {options.seed}")
    tally.finish()


if __name__ == "__main__":
    sys.exit(main())
