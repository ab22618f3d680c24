"""Prints what centrifuge-python gets from the backends of src/callback/README.md."""

import asyncio
import os

from centrifuge import Client, ClientEventHandler, ReplyError, SubscriptionEventHandler


class Events(ClientEventHandler, SubscriptionEventHandler):
    def __init__(self):
        self.seen = asyncio.Queue()

    async def on_connecting(self, context):
        if context.code:
            await self.seen.put(("connecting", context))

    async def on_connected(self, context):
        await self.seen.put(("connected", context))

    async def on_disconnected(self, context):
        await self.seen.put(("disconnected", context))

    async def on_subscribed(self, context):
        await self.seen.put(("subscribed", context))

    async def on_unsubscribed(self, context):
        await self.seen.put(("unsubscribed", context))

    async def on_publication(self, context):
        await self.seen.put(("publication", context))

    async def next(self):
        return await asyncio.wait_for(self.seen.get(), 20)


def client(cookie=None):
    events = Events()
    url = f"ws://{os.environ['FANTAIL_HTTP']}/connection/websocket"
    return Client(url, events=events, headers={"Cookie": cookie} if cookie else None), events


async def failure(call):
    try:
        await call
    except ReplyError as error:
        return error.code


async def main():
    stranger, events = client()
    await stranger.connect()
    print("stranger", (await events.next())[1].code)
    anna, events = client("session=1")
    await anna.connect()
    print("anna", (await events.next())[0])
    of_room = Events()
    room = anna.new_subscription("rooms:private", of_room)
    await room.subscribe()
    print("private", (await of_room.next())[0])
    ben, of_ben = client("session=2")
    await ben.connect()
    await of_ben.next()
    of_closed = Events()
    closed = ben.new_subscription("rooms:private", of_closed)
    await closed.subscribe()
    print("ben", (await of_closed.next())[1].code)
    await room.publish({"text": "hello"})
    data = (await of_room.next())[1].pub.data
    print("heard", data["text"], "by", data["by"])
    print("no text", await failure(room.publish({})))
    print("add", (await anna.rpc("add", [1, 2])).data)
    print("unknown", await failure(anna.rpc("none", [])))
    print("ben", (await of_ben.next())[1].code)
    # By now anna was asked about as well.
    await asyncio.sleep(3)
    print("anna", "goes on" if events.seen.empty() else "is gone")


asyncio.run(main())
