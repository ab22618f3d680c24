"""Tests a reverse proxy in front of the server, with its configuration in proxies/: proxies.py FILE."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

from checks import Checks, RawWebSocket, address, connect, frame
from own_server import OwnServer, free_port
from recipes import recipe, replaced, running
from signed_token import signed_token

# Publications, missed and new, must reach the client within this time.
SOON_SECONDS = 1.0
KEY = {"X-API-Key": "of-the-proxies-case"}
SECRET = "of-the-proxies-case-which-is-long-enough"
# The nginx that a host or a hosting service has in front of everything.
PLAIN_NGINX = "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{to}; }} }}"
# What each configuration has in place of the second text to serve fantail below /fantail/.
BELOW_A_PATH = {
    "nginx.conf": {"location / {": "location /fantail/ {", "proxy_pass http://fantail;": "proxy_pass http://fantail/;"},
    "apache.conf": {"ProxyPass / ": "ProxyPass /fantail/ "},
    "Caddyfile": {"reverse_proxy 127.0.0.1:8000": "handle_path /fantail/* {\nreverse_proxy 127.0.0.1:8000\n}"},
}

checks = Checks(f"proxies {sys.argv[1]}")


class Behind(OwnServer):
    """The server behind a proxy. FANTAIL_HTTP is the address of the proxy, FANTAIL_DIRECT that of the server."""

    # The path below which the proxy has the server.
    path = ""

    def __init__(self, name, changes=None, path="", drain_time="0s"):
        super().__init__(f"proxies-{name}")
        self.name, self.changes, self.drain_time = name, changes or {}, drain_time
        Behind.path = path

    def command(self):
        return [
            *super().command(), "--api-key", KEY["X-API-Key"], "--page", "true", "--origin", "http://app.example",
            "--drain-time", self.drain_time,
            "--token-hmac-secret", SECRET, "--anonymous", "true",
            "--trusted-proxy", "127.0.0.1", "--prefix-connections-max", "2",
        ]

    def __enter__(self):
        super().__enter__()
        self.stack = contextlib.ExitStack()
        os.environ["FANTAIL_DIRECT"] = os.environ["FANTAIL_HTTP"]
        port, (_, server_port) = free_port(), address("FANTAIL_DIRECT")
        addresses = {"8000": str(server_port)}
        # Varnish and Traefik are told their own port by the command.
        if self.name not in ("varnish.vcl", "traefik.yaml"):
            addresses["8080"] = str(port)
        text = replaced(replaced(recipe(self.name), self.changes), addresses)
        log = self.log_path.replace("-server", "-proxy")
        self.stack.enter_context(running(self.name, port, text, log))
        os.environ["FANTAIL_HTTP"] = f"127.0.0.1:{port}"
        if not until(lambda: ask("GET", "/health/live")[0] == 200, 10):
            self.__exit__()
            raise RuntimeError(f"{self.name} does not forward requests, see {log}")
        return self

    def __exit__(self, *_):
        self.stack.close()
        super().__exit__()


def until(holds, seconds):
    """Returns whether the condition holds in time; an error counts as not holding."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if holds():
                return True
        time.sleep(0.05)
    return False


def ask(method, path, body=None, headers=None, server="FANTAIL_HTTP"):
    """Returns status, headers and body of one request, through the proxy by default."""
    connection = http.client.HTTPConnection(*address(server), timeout=10)
    if server == "FANTAIL_HTTP":
        path = Behind.path + path
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def publish(channel, data, server="FANTAIL_HTTP"):
    return ask("POST", f"/publish?channel={channel}", data, KEY, server)


class Stream:
    """An event stream; `event` reads the next publication."""

    def __init__(self, path, last_event_id=None):
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        self.connection = http.client.HTTPConnection(*address("FANTAIL_HTTP"), timeout=10)
        self.connection.request("GET", Behind.path + path, headers=headers)
        self.response = self.connection.getresponse()

    def event(self):
        """Returns (id, data)."""
        fields = {}
        while True:
            line = self.response.readline().decode().rstrip("\n")
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
            elif "data" in fields and fields.get("event", "message") == "message":
                return fields.get("id"), fields["data"]
            else:
                fields = {}

    def close(self):
        # The response holds a reference to the socket too.
        self.response.close()
        self.connection.close()


def page():
    status, headers, body = ask("GET", "/")
    checks.equal("the page", status, 200)
    checks.that("is HTML", b"<html" in body.lower(), headers.items())


def preflight_and_post():
    asks = {
        "Origin": "http://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key,content-type",
    }
    status, headers, body = ask("OPTIONS", "/publish?channel=post", headers=asks)
    checks.that("a preflight is answered", status in (200, 204), (status, body))
    checks.equal("it allows the origin", headers["Access-Control-Allow-Origin"], "http://app.example")
    allowed = (headers["Access-Control-Allow-Headers"] or "").lower()
    checks.that("it allows the headers", "x-api-key" in allowed or allowed == "*", allowed)
    status, _, body = publish("post", b"hello")
    checks.equal("a POST", status, 200)
    checks.that("the reply has an offset", json.loads(body).get("offset") == 1, body)
    checks.that("a request without the key is refused", ask("POST", "/publish?channel=post", b"x")[0] in (401, 403))


def events():
    stream = Stream("/events?channel=live")
    checks.equal("an event stream", stream.response.status, 200)
    for data in ("one", "two"):
        began = time.monotonic()
        publish("live", data, "FANTAIL_DIRECT")
        position, heard = stream.event()
        checks.equal("an event", heard, data)
        checks.that("it arrives at once", time.monotonic() - began < SOON_SECONDS, time.monotonic() - began)
    stream.close()
    for data in ("three", "four", "five"):
        publish("live", data, "FANTAIL_DIRECT")
    began = time.monotonic()
    stream = Stream("/events?channel=live", position)
    checks.equal("missed events", [stream.event()[1] for _ in range(3)], ["three", "four", "five"])
    checks.that("they arrive within a second", time.monotonic() - began < SOON_SECONDS, time.monotonic() - began)
    stream.close()


def polls():
    _, _, body = ask("GET", "/poll?channel=polled&timeout=0")
    position = json.loads(body)["position"]
    for number in range(3):
        publish("polled", f"{number}")
        status, headers, body = ask("GET", f"/poll?channel=polled&since={position}&timeout=5")
        answer = json.loads(body)
        checks.equal("a poll", status, 200)
        checks.equal("a poll has the publication", [one["data"] for one in answer["publications"]], [number])
        position = answer["position"]
    began = time.monotonic()
    status, _, body = ask("GET", f"/poll?channel=polled&since={position}&timeout=1")
    checks.equal("a poll that times out", (status, json.loads(body)["timeout"]), (200, True))
    checks.that("it is on time", time.monotonic() - began < 1.5, time.monotonic() - began)


def websocket():
    with contextlib.closing(RawWebSocket("FANTAIL_HTTP", f"{Behind.path}/ws?channel=socket")) as socket_:
        publish("socket", "to a WebSocket")
        checks.equal("a WebSocket receives a publication", socket_.receive()[2], b"to a WebSocket")
        socket_.send(frame(9, b"are you there"))
        checks.equal("its ping is answered", socket_.receive()[1:], (10, b"are you there"))
        socket_.send(frame(8, (1000).to_bytes(2, "big")))
        checks.equal("its close is answered", socket_.receive_close(), 1000)


def health():
    for method, path in (("GET", "/health/ready"), ("GET", "/health/live"), ("OPTIONS", "/"), ("OPTIONS", "/health/ready")):
        status, headers, body = ask(method, path)
        checks.that(f"{method} {path}", status in (200, 204), (status, body))
    for path in ("/health/ready", "/events?channel=no:such", "/poll?channel=no:such"):
        _, headers, _ = ask("GET", path)
        checks.that(f"{path} is not cacheable", "no-store" in (headers["Cache-Control"] or ""), headers.items())


def ambiguous():
    """RFC 9112 6.3 and 11.2: proxy and server must parse ambiguous requests alike or reject them."""
    inner = b"POST /publish?channel=inner HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\nContent-Length: 1\r\n\r\nx"
    inner %= KEY["X-API-Key"].encode()
    chunked = b"Transfer-Encoding: chunked\r\n"
    rests = {
        "a length and chunks": b"Content-Length: %d\r\n" % (len(inner) + 5) + chunked + b"\r\n0\r\n\r\n",
        "two lengths": b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(inner),
        "a list of lengths": b"Content-Length: 0, %d\r\n\r\n" % len(inner),
        "a list of codings": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "a folded field": b"X-A: b\r\n " + chunked + b"\r\n0\r\n\r\n",
        "a chunk's line with a bare line feed": chunked + b"\r\n1\nx\r\n0\r\n\r\n",
        "an extension with a line feed": chunked + b"\r\n1;\nx\r\n0\r\n\r\n",
    }

    def answers(rest):
        """How often publishing is answered. Both a rejection and a timeout are correct."""
        heard = b""
        with contextlib.closing(connect("FANTAIL_HTTP", timeout=0.5)) as sock, contextlib.suppress(OSError):
            sock.sendall(b"POST /publish?channel=outer HTTP/1.1\r\nHost: a\r\n" + rest + inner)
            while part := sock.recv(65536):
                heard += part
        return heard.count(b'"offset"')

    with concurrent.futures.ThreadPoolExecutor(len(rests)) as pool:
        answered = sum(pool.map(answers, rests.values()))
    # More than the connections that the proxy may have left open to the server.
    for _ in range(2 * len(rests)):
        status, _, body = ask("GET", "/health/live")
        checks.that("later requests get their own responses", status == 200 and b"offset" not in body, (status, body))
    position = json.loads(ask("GET", "/poll?channel=inner&timeout=0")[2])["position"]
    checks.equal("each executed request was answered", int(position.split(":")[0]), answered)


def shutdown(behind):
    """Readiness returns 503 before any request is refused."""
    checks.equal("ready", ask("GET", "/health/ready")[0], 200)
    behind.process.send_signal(signal.SIGTERM)
    seen = []

    def sees_503():
        status, _, body = ask("GET", "/health/ready")
        seen.append((status, body[:80]))
        return status == 503 and ask("GET", "/health/ready", server="FANTAIL_DIRECT")[0] == 503

    checks.that("after SIGTERM the proxy sees 503 while the server still answers", until(sees_503, 3), seen[-3:])
    checks.equal("exit code", behind.process.wait(15), 0)


def plain_check():
    """HAProxy's default check: OPTIONS / over HTTP/1.0."""
    with Behind("haproxy.cfg", {"option httpchk GET /health/ready": "option httpchk"}):
        # Three failed checks remove a server.
        time.sleep(2)
        checks.equal("behind the default `option httpchk`", ask("GET", "/health/live")[0], 200)


def agent_check():
    """HAProxy's agent check, which puts the server into drain: new requests are refused, and open streams go on."""
    check = "check inter 500ms"
    agent = "%s agent-check agent-port 8000 agent-inter 200ms agent-send \"agent-check\\n\"" % check
    # Without the other check, the agent alone decides.
    changes = {"option httpchk GET /health/ready": "option tcp-check", check: agent}
    with Behind("haproxy.cfg", changes, drain_time="5s") as behind:
        checks.equal("ready", ask("GET", "/health/live")[0], 200)
        stream = Stream("/events?channel=agent")
        publish("agent", "before")
        checks.equal("an event", stream.event()[1], "before")
        behind.process.send_signal(signal.SIGTERM)
        drained = until(lambda: ask("GET", "/health/live")[0] == 503, 3)
        checks.that("the proxy sends nothing new to a server that drains", drained)
        checks.equal("the server itself still answers", ask("GET", "/health/live", server="FANTAIL_DIRECT")[0], 200)
        publish("agent", "after", server="FANTAIL_DIRECT")
        checks.equal("an event of a stream that was open", stream.event()[1], "after")
        stream.close()
        behind.process.wait(15)


def nested():
    """Another nginx in front, which buffers responses unless told otherwise."""
    with Behind("nginx.conf"):
        port, (_, inner) = free_port(), address("FANTAIL_HTTP")
        log = os.path.join(os.environ["CONFORMANCE_WORK"], "logs", f"{os.environ['CONFORMANCE_DRIVER']}-nested.log")
        outer = PLAIN_NGINX.format(port=port, to=inner)
        with running("nginx.conf", port, outer, log):
            os.environ["FANTAIL_HTTP"] = f"127.0.0.1:{port}"
            checks.that("another nginx forwards", until(lambda: ask("GET", "/health/live")[0] == 200, 5), log)
            checks.run("events through two", events)


def cookies():
    """A page that polls without a position gets each publication once: its browser keeps the position as a cookie."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    url = "http://%s:%d%s/poll?channel=cookies&timeout=0" % (*address("FANTAIL_HTTP"), Behind.path)
    opener.open(url, timeout=5).close()
    for number in range(3):
        publish("cookies", f"{number}")
        with opener.open(url, timeout=5) as response:
            checks.equal("the next publication", [one["data"] for one in json.load(response)["publications"]], [number])


def websocket_over_http2(name):
    """RFC 8441, without TLS: HAProxy has HTTP/2 at a port of its own, and others beside HTTP/1.1."""
    second, expected = None, ["offered", "200", "hello"]
    changes = {}
    if name == "haproxy.cfg":
        second = f"127.0.0.1:{free_port()}"
        changes = {"    default_backend": f"    bind {second} proto h2\n    default_backend"}
    if name == "envoy.yaml":
        # Envoy forwards the request as one of HTTP/1.1 without the key that those need.
        setting = "http2_protocol_options: { allow_connect: true }"
        changes = {"          upgrade_configs:": f"          {setting}\n          upgrade_configs:"}
        expected = ["offered", "400", "websocket_key_missing"]
    with Behind(name, changes):
        client = os.path.join(os.path.dirname(os.path.abspath(__file__)), "node/websocket_h2.mjs")
        words = ["node", client, second or os.environ["FANTAIL_HTTP"], "/ws?channel=h2"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as socket:
            heard = [socket.stdout.readline().strip() for _ in range(2)]
            publish("h2", "hello", "FANTAIL_DIRECT")
            heard.append(socket.stdout.readline().strip())
        checks.equal("a WebSocket over HTTP/2", heard[:2], expected[:2])
        checks.that("its message, or the error", expected[2] in heard[2], heard[2])


def tokens():
    """Tokens arrive: valid ones are accepted, and others refused; without one, clients are anonymous here."""
    valid, other = (signed_token({"sub": "anna"}, secret) for secret in (SECRET, "another"))
    for token, status in ((valid, 200), (other, 401)):
        headers = {"Authorization": f"Bearer {token}"}
        checks.equal("a token in a header", ask("GET", "/poll?channel=tokens&timeout=0", headers=headers)[0], status)
    path = f"{Behind.path}/ws?channel=tokens"
    with contextlib.closing(RawWebSocket("FANTAIL_HTTP", path, f"Sec-WebSocket-Protocol: chat, bearer.{valid}\r\n")) as one:
        checks.equal("a token as a subprotocol", one.response.headers.get("sec-websocket-protocol"), "chat")
    try:
        RawWebSocket("FANTAIL_HTTP", path, f"Sec-WebSocket-Protocol: chat, bearer.{other}\r\n").close()
        checks.that("another one is refused", False)
    except ConnectionError as error:
        checks.that("another one is refused", "401" in str(error), error)


def forwarded():
    """Each client has the limits of its own address, which the proxy adds to what the client says."""

    def poll(source, seconds):
        connection = http.client.HTTPConnection(*address("FANTAIL_HTTP"), timeout=10, source_address=(source, 0))
        headers = {"X-Forwarded-For": f"192.0.2.{free_port() % 256}"}
        connection.request("GET", f"/poll?channel=forwarded&timeout={seconds}", headers=headers)
        return connection

    def status(source):
        with contextlib.closing(poll(source, 0)) as connection:
            return connection.getresponse().status

    with contextlib.closing(poll("127.0.0.5", 3)), contextlib.closing(poll("127.0.0.5", 3)):
        checks.that("a third poll of one client is refused", until(lambda: status("127.0.0.5") == 429, 2))
        checks.equal("another client is served", status("127.0.0.6"), 200)


def below_a_path(name):
    with Behind(name, BELOW_A_PATH[name], path="/fantail"):
        for probe in (page, preflight_and_post, events, polls, cookies, websocket):
            checks.run(f"{probe.__name__} below a path", probe)
    Behind.path = ""


def main(name):
    with Behind(name, drain_time="2s") as behind:
        for probe in (page, preflight_and_post, events, polls, cookies, tokens, forwarded, websocket, health, ambiguous):
            checks.run(probe.__name__, probe)
        checks.run("shutdown", shutdown, behind)
        checks.that("nothing panicked", "panicked" not in behind.log())
    if name in ("haproxy.cfg", "lighttpd.conf", "nghttpx.conf", "envoy.yaml"):
        checks.run("a WebSocket over HTTP/2", websocket_over_http2, name)
    if name in BELOW_A_PATH:
        checks.run("below a path", below_a_path, name)
    if name == "haproxy.cfg":
        checks.run("plain check", plain_check)
        checks.run("agent check", agent_check)
    if name == "nginx.conf":
        checks.run("nested", nested)


checks.run("all", main, sys.argv[1])
checks.finish()
