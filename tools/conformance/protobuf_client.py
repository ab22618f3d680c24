"""centrifuge-python with `use_protobuf`, for protobuf.py."""

import asyncio
import base64
import sys

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler


class Connection(ClientEventHandler):
    async def on_connected(self, _):
        print("connected", flush=True)

    async def on_error(self, ctx):
        # While the server restarts, connections are refused.
        if not isinstance(ctx.error, OSError):
            print("error", ctx, flush=True)


class Subscription(SubscriptionEventHandler):
    def __init__(self):
        self.subscribed = asyncio.Event()

    async def on_subscribed(self, ctx):
        print("subscribed", *(str(it).lower() for it in (ctx.was_recovering, ctx.recovered)), flush=True)
        self.subscribed.set()

    async def on_publication(self, ctx):
        print("message", base64.b64encode(ctx.pub.data).decode(), flush=True)

    async def on_error(self, ctx):
        print("error", ctx, flush=True)


async def main(url, token):
    client = Client(
        url, token=token, events=Connection(), use_protobuf=True, min_reconnect_delay=0.05, max_reconnect_delay=0.2
    )
    events = Subscription()
    subscription = client.new_subscription("news", events=events)
    await subscription.subscribe()
    await client.connect()
    await events.subscribed.wait()
    await subscription.publish(b'{"from":"python"}')
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
