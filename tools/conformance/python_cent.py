"""cent, Centrifugo's library for backends in Python: each of its calls, and what it makes of errors."""

import asyncio
import json
import time

import cent
import cent.dto
from cent import (
    BatchRequest, BlockUserRequest, BroadcastRequest, ChannelsRequest, ConnectionsRequest, DisconnectRequest,
    HistoryRemoveRequest, HistoryRequest, InfoRequest, PresenceRequest, PresenceStatsRequest, PublishRequest,
    RefreshRequest, StreamPosition, SubscribeRequest, UnblockUserRequest, UnsubscribeRequest,
)

from checks import Checks, address, connect

checks = Checks("python_cent")


class LinesClient:
    """A connected client of the command protocol over TCP."""

    def __init__(self):
        self.file = connect("FANTAIL_TCP").makefile("rw")
        self.id = self.ask("connect")["connect"]["client"]

    def ask(self, method, **parameters):
        self.file.write(json.dumps({"id": 1, method: parameters}) + "\n")
        self.file.flush()
        return self.read(lambda line: line.get("id") == 1)

    def push(self, kind):
        return self.read(lambda line: kind in line.get("push", {}))["push"]

    def read(self, is_it):
        while True:
            line = json.loads(self.file.readline())
            if is_it(line):
                return line


def error_of(call):
    try:
        call()
    except cent.CentApiResponseError as error:
        return error.code
    return None


def publications(client):
    channel, other = f"cent-{time.time_ns()}", f"cent-other-{time.time_ns()}"
    first = client.publish(PublishRequest(channel=channel, data={"n": 1}))
    checks.equal("the first offset", first.offset, 1)
    once = [client.publish(PublishRequest(channel=channel, data=2, idempotency_key="k")).offset for _ in range(2)]
    checks.equal("the same key twice", once, [2, 2])
    client.publish(PublishRequest(channel=channel, data="", b64data="/w==", tags={"a": "b"}))
    sent = client.broadcast(BroadcastRequest(channels=[channel, other], data="x"))
    checks.equal("a broadcast", [part.result.offset for part in sent.responses], [4, 1])
    history = client.history(HistoryRequest(channel=channel, limit=-1))
    checks.equal("the history", [one.data for one in history.publications], [{"n": 1}, 2, "/w==", "x"])
    checks.equal("tags", history.publications[2].tags, {"a": "b"})
    since = StreamPosition(offset=1, epoch=history.epoch)
    part = client.history(HistoryRequest(channel=channel, limit=1, since=since))
    checks.equal("a part of the history", [one.offset for one in part.publications], [2])
    back = client.history(HistoryRequest(channel=channel, limit=1, reverse=True))
    checks.equal("the newest publication", [one.offset for one in back.publications], [4])
    client.history_remove(HistoryRemoveRequest(channel=channel))
    checks.equal("after it is removed", client.history(HistoryRequest(channel=channel, limit=-1)).publications, [])
    batch = client.batch(BatchRequest(requests=[
        PublishRequest(channel=other, data=1), PresenceStatsRequest(channel=other), ChannelsRequest(pattern="nothing-*"),
    ]))
    checks.equal("a batch", batch.replies[0].offset, 2)
    checks.equal("its second reply", batch.replies[1].num_clients, 0)


def clients(client):
    channel = f"cent-{time.time_ns()}"
    own = LinesClient()
    other = LinesClient()
    own.ask("subscribe", channel=channel)
    own.ask("publish", channel=channel, data=1)
    info = client.history(HistoryRequest(channel=channel, limit=1)).publications[0].info
    checks.equal("who published", (info.client, info.user), (own.id, ""))
    client.subscribe(SubscribeRequest(user="", client=other.id, channel=channel))
    checks.equal("a push about a subscription", other.push("subscribe")["channel"], channel)
    present = client.presence(PresenceRequest(channel=channel)).presence
    checks.equal("presence", sorted(present), sorted([own.id, other.id]))
    stats = client.presence_stats(PresenceStatsRequest(channel=channel))
    checks.equal("numbers", (stats.num_clients, stats.num_users), (2, 1))
    listed = client.channels(ChannelsRequest(pattern="cen?-*")).channels
    checks.equal("channels", listed[channel].num_clients, 2)
    client.unsubscribe(UnsubscribeRequest(user="", client=other.id, channel=channel))
    checks.equal("a push about its end", other.push("unsubscribe")["unsubscribe"]["code"], 2000)
    client.refresh(RefreshRequest(user="", client=own.id, expire_at=int(time.time()) + 600))
    connections = client.connections(ConnectionsRequest(user="", expression="")).connections
    checks.that("connections", {own.id, other.id} <= set(connections), sorted(connections))
    client.block_user(BlockUserRequest(user="nobody", expire_at=int(time.time()) + 600))
    client.unblock_user(UnblockUserRequest(user="nobody"))
    checks.that("info", client.info(InfoRequest()).nodes[0].num_clients >= 2)
    client.disconnect(DisconnectRequest(user="", client=own.id))
    checks.equal("a push about the end", own.push("disconnect")["disconnect"]["code"], 3503)


def errors(client):
    checks.equal("an unknown namespace", error_of(lambda: client.publish(PublishRequest(channel="no:a", data=1))), 102)
    checks.equal("no channel", error_of(lambda: client.publish(PublishRequest(channel="", data=1))), 107)
    foreign = StreamPosition(offset=1, epoch="zzzz")
    request = HistoryRequest(channel="cent", limit=1, since=foreign)
    checks.equal("a foreign position", error_of(lambda: client.history(request)), 112)


# What only Centrifugo PRO has. Centrifugo answers with 404 too.
MISSING = [
    "cancel_push", "delete_user_status", "device_list", "device_register", "device_remove", "device_topic_list",
    "device_topic_update", "device_update", "get_user_status", "invalidate_user_tokens", "revoke_token",
    "send_push_notification", "update_push_status", "update_user_status", "user_topic_list", "user_topic_update",
]


def missing(client):
    requests = {
        request.__api_method__: request
        for name, request in vars(cent.dto).items() if name.endswith("Request") and hasattr(request, "__returning__")
    }
    for method in MISSING:
        status = None
        try:
            getattr(client, method)(requests[method].model_construct())
        except cent.CentTransportError as error:
            status = error.status_code
        checks.equal(method, status, 404)


def concurrent_calls(_):
    async def calls():
        async with cent.AsyncClient(url, api_key="none is needed") as client:
            channel = f"cent-async-{time.time_ns()}"
            published = [client.publish(PublishRequest(channel=channel, data=number)) for number in range(20)]
            offsets = [result.offset for result in await asyncio.gather(*published)]
            checks.equal("calls at the same time", sorted(offsets), list(range(1, 21)))
            kept = await client.history(HistoryRequest(channel=channel, limit=-1))
            checks.equal("all are kept", sorted(one.data for one in kept.publications), list(range(20)))

    asyncio.run(calls())


url = "http://%s:%d/api" % address("FANTAIL_HTTP")
client = cent.Client(url, api_key="none is needed")
for part in (publications, clients, errors, missing, concurrent_calls):
    checks.run(part.__name__, part, client)
checks.finish()
