"""Python `websockets`: chat, echo, close codes, a thousand clients at once."""

import asyncio
import urllib.request

import websockets

from checks import Checks, address

checks = Checks("python")
HTTP = "%s:%d" % address("FANTAIL_HTTP")
ECHO = "ws://%s:%d" % address("FANTAIL_ECHO")


def connect(url, **options):
    # The server does not support compression; an offer of it is the default here and must be ignored.
    return websockets.connect(url, max_size=2**25, open_timeout=30, **options)


async def lobby_is_a_chat():
    async with connect(f"ws://{HTTP}") as anna, connect(f"ws://{HTTP}/") as ben:
        await anna.send("hello")
        checks.equal("the other client receives it", await ben.recv(), "hello")
        checks.equal("the sender receives it too", await anna.recv(), "hello")
        await ben.send(b"\x00\x01\xff")
        checks.equal("binary stays binary", await anna.recv(), b"\x00\x01\xff")


async def channels_are_apart():
    async with (
        connect(f"ws://{HTTP}/ws?channel=py1") as first,
        connect(f"ws://{HTTP}/ws?channel=py2&channel=py1") as both,
    ):
        await first.send("to py1")
        checks.equal("a subscriber of both receives py1", await both.recv(), "to py1")
        await both.send("to py2")
        checks.equal("publishing goes to the first channel", await both.recv(), "to py2")
        checks.equal("its own message arrives first", await first.recv(), "to py1")
        try:
            unexpected = await asyncio.wait_for(first.recv(), 0.3)
            checks.that("a subscriber of py1 does not receive py2", False, unexpected)
        except asyncio.TimeoutError:
            checks.that("a subscriber of py1 does not receive py2", True)


async def http_publishes():
    def post(body):
        request = urllib.request.Request(f"http://{HTTP}/publish?channel=h%C3%BC%2Ft", data=body, method="POST")
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status

    async with connect(f"ws://{HTTP}/ws?channel=h%C3%BC%2Ft") as subscriber:
        checks.equal("status", await asyncio.to_thread(post, b"over http"), 200)
        message = await subscriber.recv()
        checks.that("the body arrives", message in ("over http", b"over http"), message)


async def echo_of_every_length():
    async with connect(ECHO) as client:
        for length in [0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 1 << 24]:
            text = "a" * length
            await client.send(text)
            checks.that(f"text of {length}", await client.recv() == text)
        await client.send(["frag", "men", "ted"])
        checks.equal("a fragmented message is echoed", await client.recv(), "fragmented")
        await (await client.ping(b"are you there"))
        checks.that("pong", True)


async def close_codes_are_echoed():
    for code in [1000, 1001, 1003, 1007, 1011, 3000, 4999]:
        client = await connect(ECHO)
        await client.close(code, "reason")
        checks.equal(f"close {code}", client.protocol.close_rcvd and client.protocol.close_rcvd.code, code)


async def too_big_is_1009():
    async with connect(f"ws://{HTTP}/ws?channel=big") as client:
        try:
            await client.send("x" * (2 << 20))
            await client.recv()
            checks.that("a message of 2 MiB is refused", False)
        except websockets.ConnectionClosed as closed:
            checks.equal("a message of 2 MiB is refused", closed.rcvd and closed.rcvd.code, 1009)


async def thousand():
    async def talk(number):
        async with connect(ECHO, compression=None, ping_interval=None) as client:
            await gate.wait()
            for turn in range(5):
                await client.send(f"{number} {turn}")
                if await client.recv() != f"{number} {turn}":
                    return False
        return True

    gate = asyncio.Event()
    talks = [asyncio.create_task(talk(number)) for number in range(1000)]
    await asyncio.sleep(1)
    gate.set()
    answers = await asyncio.gather(*talks)
    checks.equal("a thousand at once are echoed", answers.count(True), 1000)


async def main():
    for function in [
        lobby_is_a_chat, channels_are_apart, http_publishes, echo_of_every_length, close_codes_are_echoed,
        too_big_is_1009, thousand,
    ]:
        try:
            await asyncio.wait_for(function(), 60)
        except Exception as error:  # any error of the client is a failure
            checks.that(function.__name__, False, f"{type(error).__name__}: {error}")


asyncio.run(main())
checks.finish()
