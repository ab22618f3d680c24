"""Python `httpx-sse`: events, several channels, resuming; and long polls with `httpx`."""

import json

import httpx
from httpx_sse import connect_sse

from checks import Checks, address

checks = Checks("events_python")
HTTP = "http://%s:%d" % address("FANTAIL_HTTP")


def publish(channel, body, **more):
    answer = httpx.post(f"{HTTP}/publish", params={"channel": channel, **more}, content=body)
    checks.equal("publish", answer.status_code, 200)
    return answer.json()


class Stream:
    """An event stream that remembers its position."""

    def __init__(self, client, query, last_id=None):
        headers = {"Last-Event-ID": last_id} if last_id else {}
        self.context = connect_sse(client, "GET", f"{HTTP}/events?{query}", headers=headers)
        self.events = self.context.__enter__().iter_sse()
        first = next(self.events)
        checks.equal("the first block", (first.event, first.data), ("position", "{}"))
        checks.equal("a reconnection time", 2000 <= first.retry <= 5000, True)
        self.last_id = first.id

    def read(self):
        event = next(self.events)
        self.last_id = event.id
        return event

    def leave(self):
        self.context.__exit__(None, None, None)
        return self.last_id


def payloads_are_events():
    with httpx.Client(timeout=10) as client:
        stream = Stream(client, "channel=ep1")
        for body, data in [(b"hello", "hello"), (b"a\r\nb", "a\nb"), (b"\xff", "/w==")]:
            publish("ep1", body)
            checks.equal("data", stream.read().data, data)
        publish("ep1", b'{"n": 1}', event="notification")
        event = stream.read()
        checks.equal("an event type", (event.event, event.json()), ("notification", {"n": 1}))
        stream.leave()


def resumed_streams_miss_nothing():
    for query, channels in [("channel=ep2", ["ep2"]), ("channel=ep3&channel=ep4", ["ep3", "ep4"])]:
        number, last_id = 0, None
        with httpx.Client(timeout=10) as client:
            last_id = Stream(client, query).leave()
            for _ in range(5):
                expected = []
                for _ in range(4):
                    publish(channels[number % len(channels)], str(number))
                    expected.append(str(number))
                    number += 1
                stream = Stream(client, query, last_id)
                # Order is defined per channel only.
                heard = [stream.read().data for _ in expected]
                checks.equal("everything once", sorted(heard, key=int), expected)
                last_id = stream.leave()


def polls_continue_from_their_position():
    with httpx.Client(timeout=10) as client:
        position = client.head(f"{HTTP}/poll?channel=ep5").headers["ETag"].strip('"')
        for number in range(10):
            publish("ep5", json.dumps({"number": number}))
        heard = []
        while len(heard) < 10:
            answer = client.get(f"{HTTP}/poll", params={"channel": "ep5", "since": position}).json()
            heard += [item["data"]["number"] for item in answer["publications"]]
            position = answer["position"]
        checks.equal("everything once", heard, list(range(10)))
        answer = client.get(f"{HTTP}/poll", params={"channel": "ep5", "since": position, "timeout": 1}).json()
        checks.equal("a timeout", answer, {"publications": [], "timeout": True, "position": position})


def cookies_keep_the_position():
    with httpx.Client(timeout=10) as client:
        checks.equal("nothing yet", client.get(f"{HTTP}/poll?channel=ep6&timeout=1").json()["data"], None)
        for text in ["one", "two", "three"]:
            publish("ep6", text)
        heard = [client.get(f"{HTTP}/poll?channel=ep6").json()["data"] for _ in range(3)]
        checks.equal("one at a time", heard, ["one", "two", "three"])


for function in [
    payloads_are_events, resumed_streams_miss_nothing, polls_continue_from_their_position, cookies_keep_the_position,
]:
    checks.run(function.__name__, function)
checks.finish()
