"""SDKs that speak the command protocol in Protobuf, each with a program of its own.

    protobuf.py LANGUAGE COMMAND...

COMMAND URL TOKEN connects with the token, subscribes to the channel `news`, and publishes {"from":"LANGUAGE"} once it
is subscribed. It prints `connected`, `subscribed WAS_RECOVERING RECOVERED`, `message BASE64` for each publication, and
`error` with a description.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from checks import Checks
from own_server import OwnServer
from signed_token import signed_token

SECRET = "of-the-protobuf-case"
KEY = "of-the-protobuf-case-too"
SETTINGS = f"""
api.key = "{KEY}"
auth.hmac_secret = "{SECRET}"
[channels]
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
presence = true
history_size = 100
"""
# A virtual machine has to start, and clients wait before they connect again.
WAITS_SECONDS = 30

language, command = sys.argv[1], sys.argv[2:]
checks = Checks(f"protobuf of {language}")


class Client:
    """A running client and the lines that it printed."""

    def __init__(self, url, token):
        self.lines = []
        self.process = subprocess.Popen([*command, url, token], stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def messages(self):
        lines = [line.split(" ", 1) for line in list(self.lines)]
        return [base64.b64decode(rest[0]) for kind, *rest in lines if kind == "message"]

    def wait(self, what, holds):
        until = time.monotonic() + WAITS_SECONDS
        while not holds() and self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        checks.that(what, holds(), f"last lines: {self.lines[-5:]}")


def api(method, **parameters):
    url = f"http://{os.environ['FANTAIL_HTTP']}/api/{method}"
    request = urllib.request.Request(url, json.dumps(parameters).encode(), {"X-API-Key": KEY})
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
        checks.that(method, "result" in answer, answer)
        return answer.get("result", {})


def publish(**payload):
    api("publish", channel="news", **payload)


def session():
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(SETTINGS)
        file.flush()
        with OwnServer(f"protobuf-{language}", ("--workers", "1", "--config", file.name)) as server:
            client = Client(
                f"ws://{os.environ['FANTAIL_HTTP']}/connection/websocket", signed_token({"sub": "ann"}, SECRET)
            )
            run(server, client)
            errors = [line for line in client.lines if line.startswith("error")]
            checks.equal("errors", errors, [])
            client.process.kill()
            client.process.wait()


def run(server, client):
    own = json.dumps({"from": language}, separators=(",", ":")).encode()
    expected = [own]

    def receives(what):
        client.wait(what, lambda: client.messages() == expected)

    client.wait("it is subscribed", lambda: "subscribed false false" in client.lines)
    receives("its own publication")
    present = api("presence", channel="news")["presence"]
    checks.equal("it is present under its name", [info["user"] for info in present.values()], ["ann"])
    publish(data={"n": 1})
    publish(b64data=base64.b64encode(b"\xff\0").decode(), tags={"k": "v"})
    expected += [b'{"n": 1}', b"\xff\0"]
    receives("JSON as it was sent, and bytes")
    kept = api("history", channel="news", limit=-1)["publications"]
    checks.equal("readers of JSON", [item["data"] for item in kept], [json.loads(own), {"n": 1}, "/wA="])
    api("disconnect", user="ann", disconnect={"code": 3011, "reason": "reconnect"})
    publish(data=2)
    expected.append(b"2")
    client.wait("it recovers", lambda: client.lines.count("subscribed true true") == 1)
    receives("what it missed")
    server.stop(signal.SIGKILL)
    server.start()
    client.wait("it starts anew after a restart", lambda: client.lines.count("subscribed true false") == 1)
    publish(data=3)
    expected.append(b"3")
    receives("what follows the restart")
    api("disconnect", user="ann", disconnect={"code": 3011, "reason": "reconnect"})
    publish(data=4)
    expected.append(b"4")
    client.wait("it recovers again", lambda: client.lines.count("subscribed true true") == 2)
    receives("what it missed after the restart")


checks.run("session", session)
checks.finish()
