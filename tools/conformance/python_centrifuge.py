"""centrifuge-python: subscribes, publishes, queries, loses its connection and recovers all missed publications."""

import asyncio
import json
import urllib.request

from centrifuge import (
    CentrifugeError,
    Client,
    DeltaType,
    Filter,
    PublicationContext,
    StreamPosition,
    SubscribedContext,
    SubscriptionEventHandler,
)

from checks import Checks, address

checks = Checks("python_centrifuge")
HOST, PORT = address("FANTAIL_HTTP")


class Gatherer(SubscriptionEventHandler):
    """Collects the events of a subscription."""

    def __init__(self):
        self.got = []
        self.contexts = []

    async def on_publication(self, ctx: PublicationContext) -> None:
        self.got.append(ctx.pub.data)

    async def on_subscribed(self, ctx: SubscribedContext) -> None:
        self.contexts.append(ctx)


class Proxy:
    """A TCP proxy between a client and the server that can be cut."""

    def __init__(self):
        self.writers = set()
        self.is_down = False

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.cut()
        self.server.close()

    def cut(self):
        self.is_down = True
        for writer in list(self.writers):
            writer.transport.abort()

    def mend(self):
        self.is_down = False

    async def accept(self, reader, writer):
        if self.is_down:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(HOST, PORT)
        self.writers |= {writer, far_writer}
        # A separate task, because the callback of the stream fails if its task is cancelled at the end.
        asyncio.ensure_future(self.carry(far_reader, writer))
        await self.carry(reader, far_writer)

    async def carry(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()
        self.writers.discard(writer)


async def publish(channel, *bodies):
    def post():
        for body in bodies:
            request = urllib.request.Request(f"http://{HOST}:{PORT}/publish?channel={channel}", data=body, method="POST")
            with urllib.request.urlopen(request, timeout=10) as response:
                assert response.status == 200

    await asyncio.to_thread(post)


async def until(what, holds):
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError(what)


async def connected(port=PORT):
    client = Client(f"ws://{HOST}:{port}/connection/websocket", min_reconnect_delay=0.05, max_reconnect_delay=0.2)
    await client.connect()
    await client.ready()
    return client


async def subscribed(client, channel, **options):
    subscription = client.new_subscription(channel, events=Gatherer(), **options)
    await subscription.subscribe()
    await subscription.ready()
    return subscription, subscription.events


async def code_of(awaitable):
    try:
        await awaitable
    except CentrifugeError as error:
        return getattr(error, "code", error)
    return None


async def chat():
    anna, ben = await connected(), await connected()
    hers, heard = await subscribed(anna, "py-chat")
    his, also_heard = await subscribed(ben, "py-chat")
    await his.publish({"text": "hello"})
    await anna.publish("py-chat", "é\n")
    await publish("py-chat", b"plain text")
    await until("both receive all", lambda: len(heard.got) == len(also_heard.got) == 3)
    checks.equal("in order", heard.got, [{"text": "hello"}, "é\n", "plain text"])
    presence = await hers.presence()
    checks.equal("both are present", len(presence.clients), 2)
    stats = await hers.presence_stats()
    checks.equal("they are counted", (stats.num_clients, stats.num_users), (2, 1))
    stats = await anna.presence_stats("py-empty")
    checks.equal("another channel has no clients", (stats.num_clients, stats.num_users), (0, 0))
    checks.equal("presence of another channel is empty", (await anna.presence("py-empty")).clients, {})
    history = await hers.history(limit=-1)
    checks.equal("history", [pub.offset for pub in history.publications], [1, 2, 3])
    since = StreamPosition(offset=1, epoch=history.epoch)
    rest = await anna.history("py-chat", limit=1, since=since)
    checks.equal("since", [pub.data for pub in rest.publications], ["é\n"])
    back = await anna.history("py-chat", limit=2, reverse=True)
    checks.equal("reverse", [pub.offset for pub in back.publications], [3, 2])
    start = await anna.history("py-chat", limit=1, since=StreamPosition(offset=0, epoch=""))
    checks.equal("from the beginning", [pub.offset for pub in start.publications], [1])
    nowhere = StreamPosition(offset=1, epoch="none")
    checks.equal("an invalid position", await code_of(anna.history("py-chat", limit=1, since=nowhere)), 112)
    checks.equal("rpc is not available", await code_of(anna.rpc("method", {})), 108)
    await his.unsubscribe()
    await publish("py-chat", b'"after"')
    await until("the remaining subscriber receives the next one", lambda: len(heard.got) == 4)
    checks.equal("the other one does not", len(also_heard.got), 3)
    await anna.disconnect()
    await ben.disconnect()


async def cut_off():
    async with Proxy() as proxy:
        client = await connected(proxy.port)
        _, heard = await subscribed(client, "py-cut")
        expected = []

        async def miss(count, expected_recovery):
            before = len(heard.contexts)
            proxy.cut()
            missed = [len(expected) + number for number in range(count)]
            await publish("py-cut", *(b"%d" % number for number in missed))
            proxy.mend()
            await until("it reconnects", lambda: len(heard.contexts) > before)
            context = heard.contexts[-1]
            checks.equal("recovered", (context.was_recovering, context.recovered), (True, expected_recovery))
            if expected_recovery:
                expected.extend(missed)
            await publish("py-cut", b'"live"')
            expected.append("live")
            await until("it receives new publications", lambda: heard.got[-1:] == ["live"] and len(heard.got) >= len(expected))

        await publish("py-cut", b"-1")
        expected.append(-1)
        await until("it receives all", lambda: heard.got == expected)
        for count in (50, 1, 500):
            await miss(count, True)
        await miss(1100, False)
        checks.equal("nothing is lost, duplicated or reordered", heard.got, expected)
        await client.disconnect()


async def deltas_and_filters():
    async with Proxy() as proxy:
        documents = [{"n": number, "rows": [{"row": row, "text": "é\n"} for row in range(40)]} for number in range(15)]
        bodies = [json.dumps(document).encode() for document in documents]
        client = await connected(proxy.port)
        _, heard = await subscribed(client, "py-delta", delta=DeltaType.FOSSIL)
        _, plain = await subscribed(await connected(), "py-delta")
        await publish("py-delta", *bodies[:5])
        await until("it receives them", lambda: len(heard.got) == 5)
        proxy.cut()
        await publish("py-delta", *bodies[5:10])
        proxy.mend()
        await until("it recovers them", lambda: len(heard.got) == 10)
        await publish("py-delta", *bodies[10:])
        await until("it receives the rest", lambda: len(heard.got) == len(plain.got) == 15)
        checks.equal("with deltas", heard.got, documents)
        checks.equal("without deltas", plain.got, documents)
        _, english = await subscribed(client, "py-filter", tags_filter=Filter.eq("lang", "en"))
        for number in range(4):
            body = {"channel": "py-filter", "data": number, "tags": {"lang": "en" if number % 2 else "de"}}
            await asyncio.to_thread(post_json, "/api/publish", body)
        await until("it receives what fits", lambda: len(english.got) == 2)
        checks.equal("with a filter", english.got, [1, 3])
        await client.disconnect()


def post_json(path, body):
    request = urllib.request.Request(f"http://{HOST}:{PORT}{path}", data=json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=10) as response:
        assert "result" in json.load(response)


def run(check):
    checks.run(check.__name__, lambda: asyncio.run(asyncio.wait_for(check(), 60)))


for check in (chat, cut_off, deltas_and_filters):
    run(check)
checks.finish()
