"""Libraries of other languages: event streams that reconnect, and WebSockets with a list of allowed origins.

    libraries.py LANGUAGE COMMAND...

COMMAND LIBRARY URL is a client of that library; it prints each received event or message as a line: its type, a
blank, its data; or `close` and a code, or `error` and a description.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

from checks import Checks, RawWebSocket
from own_server import OwnServer

STREAMS = {"go": ["r3labs", "go-sse"], "java": ["jersey", "spring"], "node": ["eventsource", "fetch-event-source"]}
SOCKETS = {"go": ["x-net"], "java": ["netty", "vertx", "spring-socket"], "node": []}
# Clients wait for the time in `retry:`, some a little longer, and a virtual machine has to start.
WAITS_SECONDS = 20

language, command = sys.argv[1], sys.argv[2:]
checks = Checks(f"libraries of {language}")


class Client:
    """A running client and the lines that it printed."""

    def __init__(self, library, url):
        self.library = library
        self.lines = []
        self.process = subprocess.Popen([*command, library, url], stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n").split(" ", 1))

    def messages(self):
        return [rest[0] if rest else "" for kind, *rest in list(self.lines) if kind == "message"]

    def errors(self):
        return [rest for kind, *rest in list(self.lines) if kind == "error"]

    def wait(self, what, holds):
        """Waits until the condition holds or the client has failed."""
        until = time.monotonic() + WAITS_SECONDS
        while not holds() and self.is_alive() and time.monotonic() < until:
            time.sleep(0.02)
        checks.that(f"{self.library}: {what}", holds(), f"last lines: {self.lines[-5:]}")
        return holds()

    def is_alive(self):
        return not self.errors() and self.process.poll() is None

    def end(self):
        checks.equal(f"{self.library}: errors", self.errors(), [])
        self.process.kill()
        self.process.wait()


def post(path, body):
    request = urllib.request.Request(f"http://{os.environ['FANTAIL_HTTP']}{path}", data=body, method="POST")
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def publish(data):
    post("/publish?channel=news", data.encode())


def api(method, **parameters):
    return post(f"/api/{method}", json.dumps(parameters).encode())["result"]


def subscribers():
    """Returns the clients that are subscribed at the running server."""
    return list(api("presence", channel="news")["presence"])


def streams_reconnect():
    """Publications since the server's start arrive once and in order, however the previous stream ended."""
    with OwnServer(f"streams-{language}", ("--keepalive-interval", "1s")) as server:
        url = f"http://{os.environ['FANTAIL_HTTP']}/events?channel=news"
        clients = [Client(library, url) for library in STREAMS[language]]
        expected = []

        def all_present():
            until = time.monotonic() + WAITS_SECONDS
            while len(subscribers()) < sum(client.is_alive() for client in clients) and time.monotonic() < until:
                time.sleep(0.05)

        def say(when):
            expected.append(json.dumps({"said": when}))
            publish(expected[-1])

        def all_receive(what):
            for client in list(clients):
                if not client.wait(what, lambda: client.messages() == expected):
                    clients.remove(client)
                    client.end()

        all_present()
        say("at first")
        all_receive("the first event")
        for client in subscribers():
            api("disconnect", client=client, disconnect={"code": 3011, "reason": "reconnect"})
        say("after the disconnect")
        all_receive("the publications made while it was disconnected")
        time.sleep(1.5)  # the stream ends with a keepalive
        say("after a keepalive")
        all_receive("the publication after a keepalive")
        for number in (signal.SIGTERM, signal.SIGKILL):
            name = signal.Signals(number).name
            time.sleep(1.5)
            server.stop(number)
            server.start()
            say(f"right after {name}")
            all_present()
            say(f"after {name}")
            all_receive(f"the publications after {name}")
        for client in clients:
            client.end()


def websockets_of_the_servers_own_origin_are_accepted():
    """These libraries send the server's own origin by default (RFC 6454, 3.2.1)."""
    with OwnServer(f"origins-{language}", ("--origin", "https://good.example")) as server:
        host = os.environ["FANTAIL_HTTP"]
        clients = [Client(library, f"ws://{host}/ws?channel={library}") for library in SOCKETS[language]]
        for client in clients:
            client.wait("receives its own message", lambda: client.messages() == ["hello"])
        for origin in ("https://evil.example", "null"):
            checks.equal(f"from {origin}", status_of_upgrade(f"Origin: {origin}\r\n"), "403")
        for origin in ("https://good.example", f"http://{host}"):
            checks.equal(f"from {origin}", status_of_upgrade(f"Origin: {origin}\r\n"), "101")
        server.stop(signal.SIGTERM)
        for client in clients:
            if client.library == "x-net":  # does not report the close code
                client.lines = [line for line in client.lines if line[0] != "error"]
            else:
                client.wait("receives the shutdown close", lambda: ["close", "1001"] in client.lines)
            client.end()


def status_of_upgrade(headers):
    try:
        socket = RawWebSocket("FANTAIL_HTTP", "/ws", headers)
        socket.close()
        return "101"
    except ConnectionError as error:
        return str(error).split(" ")[1]


checks.run("streams reconnect", streams_reconnect)
if SOCKETS[language]:
    checks.run("WebSockets of the server's own origin are accepted", websockets_of_the_servers_own_origin_are_accepted)
checks.finish()
