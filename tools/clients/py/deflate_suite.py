"""permessage-deflate with a foreign client: Python's `websockets`, whose zlib is the one written in C.

    deflate_suite.py [SEED]

Clients that offer different windows, or nothing at all, are in one room, and each must hear what was said. What they say is
drawn from SEED (printed; by default another one each time): every length, text and binary, whole and in fragments.
"""

import asyncio
import json
import random
import signal
import sys
import time

from harness import Server, Tally, equal, expect

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

SOON = 20
LIMITS = "[limits]\nmessages_per_second = 0\nbytes_per_second = 0\n"
ON = LIMITS + "[deflate]\nenabled = true\n"
UPDATES = 120
ECHOES = 400

# What may be offered, and what window the answer must then name.
OFFERS = {
    "the library's default": (None, None),
    "the whole window": (dict(), None),
    "a browser's": (dict(client_max_window_bits=True), None),
    "no context of ours": (dict(server_no_context_takeover=True), None),
    "no context of its own": (dict(client_no_context_takeover=True), None),
    "9 bits": (dict(server_max_window_bits=9), "9"),
    "11 bits": (dict(server_max_window_bits=11, client_max_window_bits=9), "9"),
    "14 bits": (dict(server_max_window_bits=14, client_max_window_bits=15), "12"),
    "15 bits": (dict(server_max_window_bits=15), "15"),
}


def dial(url, offer=None, **options):
    """`offer` None: as the library does by itself."""
    if offer is not None:
        options |= dict(compression=None, extensions=[ClientPerMessageDeflateFactory(**offer)])
    return connect(url, proxy=None, max_size=None, open_timeout=SOON, ping_interval=None, **options)


def plain(url):
    return connect(url, proxy=None, max_size=None, open_timeout=SOON, ping_interval=None, compression=None)


def answer(socket):
    return socket.response.headers.get("Sec-WebSocket-Extensions")


async def hear(socket):
    return json.loads(await asyncio.wait_for(socket.recv(), SOON))


def prose(dice, length):
    words = ["commit", "cast", "κόσμος", "the", "room", "€", "𝄞", "progress", "0.25", "\"quoted\"", "{", "}", "\n"]
    text = ""
    while len(text) < length:
        text += " ".join(dice.choices(words, k=50)) + str(dice.random())
    return text[:length]


def message(dice):
    """A message that no bound of ours refuses: what repeats itself without end is short."""
    length = int(2 ** dice.uniform(0, 17))
    kind = dice.randrange(4)
    if kind == 0:
        return dice.randbytes(length)
    if kind == 1:
        return bytes([dice.randrange(256)]) * min(length, 64_000)
    if kind == 2:
        return "".join(chr(dice.randrange(32, 0x500)) for _ in range(min(length, 20_000)))
    return prose(dice, length)


async def every_offer_is_answered(server):
    for name, (offer, bits) in OFFERS.items():
        async with dial(server.ws("/v1/echo"), offer) as socket:
            wanted = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            wanted += f"; server_max_window_bits={bits}" if bits else ""
            equal(answer(socket), wanted, f"answer to {name}")
            expect(socket.protocol.extensions, f"{name}: the library did not take it up")


async def echoes(server, dice):
    names = list(OFFERS)
    for name in names:
        async with dial(server.ws("/v1/echo"), OFFERS[name][0]) as socket:
            said = [message(dice) for _ in range(ECHOES // len(names))]

            async def say():
                for each in said:
                    if len(each) > 3 and dice.random() < 0.5:
                        cuts = sorted(dice.sample(range(1, len(each)), min(3, len(each) - 1)))
                        await socket.send([each[a:b] for a, b in zip([0, *cuts], [*cuts, len(each)])])
                    else:
                        await socket.send(each)

            saying = asyncio.create_task(say())
            for index, each in enumerate(said):
                heard = await asyncio.wait_for(socket.recv(), SOON)
                expect(heard == each, lambda: f"{name}: message {index} of {len(each)} came back otherwise")
            await saying


async def one_room(server, dice):
    status, _, made = server.request("POST", "/api/prompts/", {"name": f"p{dice.randrange(10**9)}", "content": ""})
    equal(status, 201, "a prompt is made")
    url = server.ws(f"/ws/prompts/{made['id']}")
    members = {name: await dial(url, offer).__aenter__() for name, (offer, _) in OFFERS.items()}
    members["no offer"] = await plain(url).__aenter__()
    expect(answer(members["no offer"]) is None, "nobody asked")
    writer = await dial(url).__aenter__()
    for socket in [*members.values(), writer]:
        equal((await hear(socket))["action"], "initial", "the first frame")
    contents = [prose(dice, int(2 ** dice.uniform(0, 18))) for _ in range(UPDATES)]

    async def write():
        for content in contents:
            await writer.send(json.dumps({"action": "update", "content": content}, ensure_ascii=dice.random() < 0.5))
            equal((await hear(writer))["success"], True, "an update is saved")

    async def follow(name, socket):
        # Some dawdle: their frames are cut off in the middle, and the log brings what they missed.
        lazy = len(name) % 2
        for index, content in enumerate(contents):
            if lazy and index % 40 == 0:
                await asyncio.sleep(0.3)
            heard = await hear(socket)
            expect(heard["content"] == content, lambda: f"{name} heard update {index} otherwise")

    await asyncio.gather(write(), *(follow(name, socket) for name, socket in members.items()))
    for socket in [*members.values(), writer]:
        await socket.close()


async def too_much(server):
    for length, code in [(65_000, None), (66_000, 1009), (40 << 20, 1009)]:
        async with dial(server.ws("/v1/echo"), dict()) as socket:
            await socket.send(b"\0" * length)
            try:
                equal(len(await asyncio.wait_for(socket.recv(), SOON)), length, "echoed bytes")
                expect(code is None, f"{length} zeros were taken")
            except ConnectionClosed as closed:
                equal(closed.rcvd.code, code, f"close code of {length} zeros")


async def switched(server, enabled, log):
    """SIGHUP: for whoever comes from now on."""
    server.config.write_text(server.config.read_text().split("[deflate]")[0] + f"[deflate]\nenabled = {enabled}\n")
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + SOON
    while True:
        async with dial(server.ws("/v1/echo")) as socket:
            if bool(answer(socket)) == (enabled == "true"):
                return
        expect(time.monotonic() < deadline, lambda: f"{log} did not come about:\n{server.last_words()}")
        await asyncio.sleep(0.05)


async def sighup():
    with Server(LIMITS, prompts=False) as server:
        async with dial(server.ws("/v1/echo")) as early:
            expect(answer(early) is None, "it is off by default")
            await switched(server, "true", "switching it on")
            async with dial(server.ws("/v1/echo")) as socket:
                await switched(server, "false", "switching it off")
                for each in (socket, early):
                    await each.send("x" * 10_000)
                    equal(await asyncio.wait_for(each.recv(), SOON), "x" * 10_000, "what those say who came before")


def main():
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}", flush=True)
    tally = Tally()
    with Server(ON) as server:
        tally.run("every offer is answered", every_offer_is_answered, server)
        tally.run("every client hears what it said", echoes, server, random.Random(seed), seconds=120)
        tally.run("one room of all kinds", one_room, server, random.Random(seed + 1), seconds=120)
        tally.run("too much of it", too_much, server)
    tally.run("SIGHUP switches it on and off", sighup)
    tally.finish()


if __name__ == "__main__":
    main()
