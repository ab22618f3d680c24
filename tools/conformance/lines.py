"""The command protocol over raw TCP, one JSON object per line, with only `socket` and `json`."""

import json
import socket

from checks import Checks, Reader, connect, read_to_end

checks = Checks("lines")


class LineClient:
    def __init__(self):
        self.sock = connect("FANTAIL_TCP")
        self.reader = Reader(self.sock)
        self.last_id = 0

    def send_line(self, line):
        self.sock.sendall(line.encode() + b"\n")

    def receive(self):
        """Returns the next object other than a ping of the server."""
        while True:
            message = json.loads(self.reader.until(b"\n"))
            if message != {}:
                return message
            self.send_line("{}")

    def ask(self, method, **parameters):
        self.last_id += 1
        self.send_line(json.dumps({"id": self.last_id, method: parameters}))
        return self.receive()

    def connected(self):
        reply = self.ask("connect")
        checks.that("connect is answered", reply.get("id") == 1 and "connect" in reply, reply)
        return self


def is_error(reply):
    error = reply.get("error", {})
    return isinstance(error.get("code"), int) and bool(error.get("message"))


def conversation():
    publisher = LineClient().connected()
    subscriber = LineClient().connected()
    reply = subscriber.ask("subscribe", channel="lines")
    checks.that("subscribe is answered", reply.get("id") == 2 and "subscribe" in reply, reply)
    for number in range(3):
        reply = publisher.ask("publish", channel="lines", data={"number": number})
        checks.that("publish is answered", "publish" in reply, reply)
    for number in range(3):
        push = subscriber.receive().get("push", {})
        checks.equal("a push names its channel", push.get("channel"), "lines")
        checks.equal("publications arrive in order", push.get("pub", {}).get("data"), {"number": number})
    reply = subscriber.ask("ping")
    checks.that("ping is answered", "ping" in reply and reply.get("id") == 3, reply)
    reply = subscriber.ask("unsubscribe", channel="lines")
    checks.that("unsubscribe is answered", "unsubscribe" in reply, reply)
    publisher.ask("publish", channel="lines", data="unheard")
    reply = subscriber.ask("ping")
    checks.that("no publication arrives after unsubscribing", "ping" in reply, reply)


def any_json_is_data():
    client = LineClient().connected()
    client.ask("subscribe", channel="any")
    for data in [None, True, 0, -1.5e10, "", "ünïcödé \U0001f426", [], [1, [2]], {}, {"a": {"b": "\n"}}]:
        client.last_id += 1
        client.send_line(json.dumps({"id": client.last_id, "publish": {"channel": "any", "data": data}}))
        messages = [client.receive(), client.receive()]
        pushes = [message["push"] for message in messages if "push" in message]
        checks.that("data is delivered unchanged", pushes and pushes[0]["pub"]["data"] == data, messages)


def errors_leave_the_connection_open():
    client = LineClient()
    reply = client.ask("subscribe", channel="a")
    checks.that("subscribing before connecting is an error", is_error(reply), reply)
    checks.that("connecting still works", "connect" in client.ask("connect"))
    checks.that("connecting twice is an error", is_error(client.ask("connect")))
    checks.that("an unknown method is an error", is_error(client.ask("dance")))
    checks.that("an empty channel is an error", is_error(client.ask("subscribe", channel="")))
    checks.that("a channel of 256 bytes is an error", is_error(client.ask("subscribe", channel="x" * 256)))
    checks.that("a channel of 255 bytes is not", "subscribe" in client.ask("subscribe", channel="x" * 255))
    checks.that("a missing channel is an error", is_error(client.ask("subscribe")))
    checks.that("a channel that is a number is an error", is_error(client.ask("subscribe", channel=7)))
    client.ask("subscribe", channel="once")
    checks.that("subscribing twice is an error", is_error(client.ask("subscribe", channel="once")))
    checks.that("publishing without data is an error", is_error(client.ask("publish", channel="once")))
    for line in ["not json", "[]", "7", '"text"', '{"id":', '{"id":-1,"ping":{}}', '{"id":"x","ping":{}}', "\x00"]:
        client.send_line(line)
        checks.that(f"{line!r} is an error", is_error(client.receive()))
    client.sock.sendall(b'{"id":1,"publish":{"channel":"once","data":"\xff\xfe"}}\n')
    checks.that("invalid UTF-8 is an error", is_error(client.receive()))
    checks.that("the connection still works", "ping" in client.ask("ping"))


def split_and_joined():
    client = LineClient().connected()
    for byte in b'{"id":77,"ping":{}}\r\n':
        client.sock.sendall(bytes([byte]))
    checks.equal("a line may arrive byte by byte and end with CRLF", client.receive().get("id"), 77)
    client.sock.sendall(b"".join(b'{"id":%d,"ping":{}}\n' % number for number in range(100, 1100)))
    ids = [client.receive().get("id") for _ in range(1000)]
    checks.equal("a thousand pipelined lines are answered in order", ids, list(range(100, 1100)))


def half_close():
    client = LineClient().connected()
    client.sock.sendall(b'{"id":9,"ping":{}}\n')
    client.sock.shutdown(socket.SHUT_WR)
    rest = client.reader.buffer + read_to_end(client.sock)
    checks.that("commands before the half-close are answered", b'"id":9' in rest, rest)


def endless_line():
    """An error is sent at the limit, before the line ends; then the rest is skipped or the connection closed."""
    client = LineClient().connected()
    try:
        for _ in range(64):
            client.sock.sendall(b"x" * 65536)
    except OSError:
        pass
    reply = client.receive()
    checks.that("an endless line is an error", is_error(reply) or "disconnect" in reply.get("push", {}), reply)
    try:
        client.send_line("")
        client.last_id = 500
        checks.that("commands after its end are processed", "ping" in client.ask("ping"))
    except (ConnectionError, OSError):
        checks.that("the connection is closed", True)


for function in [
    conversation, any_json_is_data, errors_leave_the_connection_open, split_and_joined, half_close, endless_line,
]:
    checks.run(function.__name__, function)
checks.finish()
