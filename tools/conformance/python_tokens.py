"""centrifuge-python with tokens: it connects, refreshes and subscribes with them, and takes refusals as its users expect."""

import asyncio
import json
import os
import tempfile
import time
import urllib.request

from centrifuge import Client, ClientEventHandler, ReplyError, SubscriptionEventHandler, UnauthorizedError

from checks import Checks, address
from own_server import OwnServer
from signed_token import signed_token

checks = Checks("tokens_python")
SECRET = "of-the-tokens-case"
KEY = "of-the-tokens-case-too"
SETTINGS = f"""
api.key = "{KEY}"
[auth]
hmac_secret = "{SECRET}"
expired_close_delay = "3 s"
[channels]
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_presence_for_subscriber = true
presence = true
join_leave = true
history_size = 100
[namespaces.private]
allow_presence_for_subscriber = true
presence = true
[namespaces.own]
history_size = 100
"""


def now():
    return int(time.time())


def token(claims, secret=SECRET):
    return signed_token(claims, secret)


def expired(claims):
    return token({**claims, "exp": now() - 60})


async def api(method, **body):
    headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
    url = "http://%s:%d/api/%s" % (*address("FANTAIL_HTTP"), method)
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)

    def post():
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    answer = await asyncio.to_thread(post)
    checks.that(f"{method} succeeds", "result" in answer, answer)


class Recorder:
    """Records the name and the context of each event."""

    def __init__(self):
        self.seen = []

    def __getattribute__(self, name):
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        async def record(context):
            self.seen.append((name.removeprefix("on_"), context))

        return record

    def named(self, name):
        return [context for seen, context in self.seen if seen == name]

    def first(self, *names):
        return next(((name, context) for name, context in self.seen if name in names), None)


class ClientRecorder(Recorder, ClientEventHandler):
    pass


class SubscriptionRecorder(Recorder, SubscriptionEventHandler):
    pass


async def until(what, holds):
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError(what)


async def outcome(**options):
    """Returns a client, and whether it was first connected or disconnected, with which code."""
    url = "ws://%s:%d/connection/websocket" % address("FANTAIL_HTTP")
    client = Client(url, events=ClientRecorder(), min_reconnect_delay=0.02, max_reconnect_delay=0.1, **options)
    await client.connect()
    await until("an outcome", lambda: client.events.first("connected", "disconnected"))
    name, context = client.events.first("connected", "disconnected")
    return client, (name, getattr(context, "code", None))


async def connected(claims, **options):
    client, how = await outcome(token=token(claims), **options)
    checks.equal("connected", how, ("connected", None))
    return client


async def subscribing(client, channel, **options):
    """Returns a subscription, and whether it was first subscribed or unsubscribed, with which code."""
    subscription = client.new_subscription(channel, events=SubscriptionRecorder(), **options)
    await subscription.subscribe()
    await until("an outcome", lambda: subscription.events.first("subscribed", "unsubscribed"))
    name, context = subscription.events.first("subscribed", "unsubscribed")
    return subscription, (name, getattr(context, "code", None))


def tokens_of(make):
    """A function for `get_token` that records its calls."""
    calls = []

    async def get_token(*channel):
        calls.append(channel)
        return make(len(calls))

    get_token.calls = calls
    return get_token


async def barred(*_):
    raise UnauthorizedError


async def identities():
    anna, ben = await connected({"sub": "anna", "info": {"name": "Anna"}}), await connected({"sub": "ben"})
    hers, _ = await subscribing(anna, "identities")
    his, _ = await subscribing(ben, "identities")
    clients = (await hers.presence()).clients.values()
    checks.equal("presence", sorted((one.user, one.conn_info) for one in clients), [("anna", {"name": "Anna"}), ("ben", None)])
    stats = await hers.presence_stats()
    checks.equal("clients and users are counted", (stats.num_clients, stats.num_users), (2, 2))
    await hers.publish("hello")
    await until("a publication", lambda: his.events.named("publication"))
    await anna.disconnect()
    await until("a leave", lambda: his.events.named("leave"))
    checks.equal("a leave has the user", his.events.named("leave")[0].info.user, "anna")
    await ben.disconnect()


async def refused_tokens():
    for what, invalid in (("another secret", token({"sub": "anna"}, "another")), ("no token at all", "hello")):
        _, how = await outcome(token=invalid)
        checks.equal(f"{what} disconnects for good", how, ("disconnected", 3500))
    checks.equal("without a token", (await outcome())[1], ("disconnected", 3501))
    checks.equal("no token for this user", (await outcome(get_token=barred))[1], ("disconnected", 1))
    get_token = tokens_of(lambda _: token({"sub": "anna"}))
    client, how = await outcome(token=expired({"sub": "anna"}), get_token=get_token)
    checks.equal("an expired token is replaced", (how[0], len(get_token.calls)), ("connected", 1))
    await client.disconnect()


async def refreshes():
    get_token = tokens_of(lambda call: token({"sub": "anna", "exp": now() + (2 if call < 3 else 600)}))
    client, _ = await outcome(get_token=get_token)
    await until("two refreshes", lambda: len(get_token.calls) == 3)
    # Longer than the first token and the delay.
    await asyncio.sleep(3.5)
    names = [name for name, _ in client.events.seen]
    checks.equal("it stays through two refreshes", (names, len(get_token.calls)), (["connecting", "connected"], 3))
    await client.disconnect()


async def subscription_tokens():
    anna = await connected({"sub": "anna"})
    channel = "private:room"
    claims = {"sub": "anna", "channel": channel}
    room, how = await subscribing(anna, channel)
    checks.equal("without a token", how, ("unsubscribed", 103))
    anna.remove_subscription(room)

    get_token = tokens_of(lambda call: token({**claims, "info": {"seat": call}}))
    room, how = await subscribing(anna, channel, token=expired(claims), get_token=get_token)
    checks.equal("an expired token is replaced", (how[0], get_token.calls), ("subscribed", [(channel,)]))
    clients = (await room.presence()).clients.values()
    checks.equal("its info", [(one.user, one.chan_info) for one in clients], [("anna", {"seat": 1})])
    await room.unsubscribe()
    anna.remove_subscription(room)
    _, how = await subscribing(anna, channel, get_token=barred)
    checks.equal("no token for this user", how, ("unsubscribed", 1))
    await anna.disconnect()

    ben = await connected({"sub": "ben"})
    await ben.new_subscription(channel, token=token(claims)).subscribe()
    await until("the end", lambda: ben.events.named("disconnected"))
    checks.equal("a token of another user", ben.events.named("disconnected")[0].code, 3500)


async def subscription_refreshes():
    anna = await connected({"sub": "anna"})
    channel = "private:refreshed"
    get_token = tokens_of(
        lambda call: token({"sub": "anna", "channel": channel, "exp": now() + (2 if call < 3 else 600)})
    )
    room, _ = await subscribing(anna, channel, get_token=get_token)
    await until("two refreshes", lambda: len(get_token.calls) == 3)
    await asyncio.sleep(3.5)
    await api("publish", channel=channel, data="still there")
    await until("a publication", lambda: room.events.named("publication"))
    names = [name for name, _ in room.events.seen]
    checks.equal("it stays through two refreshes", names, ["subscribing", "subscribed", "publication"])
    await anna.disconnect()


async def server_side():
    subs = {"own:a": {}, "own:b": {"data": {"theme": "dark"}}}
    anna = await connected({"sub": "eve", "subs": subs})
    await until("subscriptions", lambda: len(anna.events.named("subscribed")) == 2)
    contexts = {context.channel: context for context in anna.events.named("subscribed")}
    checks.equal("data of a subscription", contexts["own:b"].data, {"theme": "dark"})
    checks.equal("it can recover", (contexts["own:a"].recoverable, contexts["own:a"].positioned), (True, True))

    def heard():
        return [context.pub.data for context in anna.events.named("publication") if context.channel == "own:a"]

    await api("publish", channel="own:a", data=1)
    await until("a publication", lambda: heard() == [1])
    # What is published while it is away comes when it is back, once.
    await api("disconnect", user="eve", disconnect={"code": 3012, "reason": "back soon"})
    await api("publish", channel="own:a", data=2)
    await until("the missed one", lambda: heard() == [1, 2])
    await api("unsubscribe", user="eve", channel="own:b")
    await until("the end of one", lambda: anna.events.named("unsubscribed"))
    checks.equal("unsubscribed", anna.events.named("unsubscribed")[0].channel, "own:b")
    await api("disconnect", user="eve")
    await until("the end", lambda: anna.events.named("disconnected"))
    checks.equal("disconnected for good", anna.events.named("disconnected")[0].code, 3503)


async def rights():
    anna = await connected({"sub": "anna"})

    async def code_of(awaitable):
        try:
            await awaitable
        except ReplyError as error:
            return error.code
        return None

    checks.equal("publish before the subscription", await code_of(anna.publish("rights", 1)), 103)
    subscription, _ = await subscribing(anna, "rights")
    checks.equal("and after it", await code_of(subscription.publish(1)), None)
    checks.equal("a channel for the server alone", (await subscribing(anna, "own:x"))[1], ("unsubscribed", 103))
    await anna.disconnect()


async def run(check):
    try:
        await asyncio.wait_for(check(), 30)
    except Exception as error:  # any error of the client is a failure
        checks.that(check.__name__, False, repr(error))


async def main():
    every = (identities, refused_tokens, refreshes, subscription_tokens, subscription_refreshes, server_side, rights)
    await asyncio.gather(*map(run, every))


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "fantail.toml")
    with open(path, "w") as file:
        file.write(SETTINGS)
    with OwnServer("tokens-python", ("--workers", "1", "--config", path)) as server:
        asyncio.run(main())
        checks.that("nothing panicked", "panicked" not in server.log())
checks.finish()
