"""Tests a reverse proxy in front of the server, with the rules of src/transport/PROXIES.md: proxies.py NAME."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

from checks import Checks, RawWebSocket, address, connect, frame
from own_server import OwnServer, free_port

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../src/transport/PROXIES.md")
# Publications, missed and new, must reach the client within this time.
SOON_SECONDS = 1.0
KEY = {"X-API-Key": "of-the-proxies-case"}

# For each proxy: the configuration around the block of PROXIES.md, and the command that runs it in the foreground.
# {rules} is the block, {file} the configuration file, {folder} a private folder, {port} the proxy's port.
PROXIES = {
    "nginx": (
        "daemon off; pid {folder}/pid; error_log stderr;\nevents {{}}\n"
        "http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;"
        " fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n{rules}\n}}",
        "nginx -e stderr -p {folder} -c {file}",
    ),
    "haproxy": ("{rules}", "haproxy -db -f {file}"),
    "vcl": ("{rules}", "varnishd -F -f {file} -a 127.0.0.1:{port} -n {folder}/varnish -s malloc,32m"),
    "apache": (
        "ServerRoot {folder}\nServerName localhost\nPidFile {folder}/pid\nErrorLog /dev/stderr\n{rules}",
        "apache2 -D FOREGROUND -f {file}",
    ),
    "caddyfile": (
        "{{\nadmin off\nauto_https off\ndefault_bind 127.0.0.1\n}}\n{rules}",
        "caddy run --adapter caddyfile --config {file}",
    ),
    "lighttpd": ("{rules}", "lighttpd -D -f {file}"),
    "nghttpx": ("{rules}\nworkers=1\nno-ocsp=yes", "nghttpx --conf={file}"),
    "squid": (
        "{rules}\npid_filename {folder}/pid\naccess_log none\ncache_log {folder}/log\ncoredump_dir {folder}\n"
        "visible_hostname localhost\nshutdown_lifetime 0 seconds\nnetdb_filename none\n"
        "pinger_enable off",
        "squid -N -n fantail{port} -f {file}",
    ),
}

checks = Checks(f"proxies {sys.argv[1]}")


def rules(language, proxy_port, server_port):
    """The block of PROXIES.md with the ports of this run."""
    with open(PAGE) as file:
        (block,) = re.findall(rf"^```{language}\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)
    block = block.replace("0.0.0.0", "127.0.0.1")
    return block.replace("8080", str(proxy_port)).replace("8000", str(server_port))


class Behind(OwnServer):
    """The server behind a proxy. FANTAIL_HTTP is the address of the proxy, FANTAIL_DIRECT that of the server."""

    def __init__(self, language, change=lambda block: block):
        super().__init__(f"proxies-{language}")
        self.language, self.change = language, change

    def command(self):
        return [
            *super().command(), "--api-key", KEY["X-API-Key"], "--page", "true", "--origin", "http://app.example",
            "--drain-time", "2s",
        ]

    def __enter__(self):
        super().__enter__()
        self.stack = contextlib.ExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        os.chmod(folder, 0o777)  # proxies that drop root privileges write there too
        os.environ["FANTAIL_DIRECT"] = os.environ["FANTAIL_HTTP"]
        port, (_, server_port) = free_port(), address("FANTAIL_DIRECT")
        frame_of, command = PROXIES[self.language]
        names = {"folder": folder, "file": f"{folder}/rules", "port": port}
        block = self.change(rules(self.language, port, server_port))
        with open(names["file"], "w") as file:
            file.write(frame_of.format(rules=block, **names))
        words = command.format(**names).split()
        log = self.stack.enter_context(open(self.log_path.replace("-server", ""), "w"))
        self.proxy = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "HOME": folder})
        self.stack.callback(self.end_proxy)
        os.environ["FANTAIL_HTTP"] = f"127.0.0.1:{port}"
        if not until(lambda: ask("GET", "/health/live")[0] == 200, 5):
            self.__exit__()
            raise RuntimeError(f"{words[0]} does not forward requests, see {log.name}")
        return self

    def end_proxy(self):
        self.proxy.terminate()
        try:
            self.proxy.wait(5)
        except subprocess.TimeoutExpired:
            self.proxy.kill()
            self.proxy.wait()

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
        self.connection.request("GET", path, headers=headers)
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
    with contextlib.closing(RawWebSocket("FANTAIL_HTTP", "/ws?channel=socket")) as socket_:
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
    answered = 0
    for rest in rests.values():
        with contextlib.closing(connect("FANTAIL_HTTP", timeout=0.5)) as sock:
            heard = b""
            # Both a rejection and a timeout are correct.
            with contextlib.suppress(OSError):
                sock.sendall(b"POST /publish?channel=outer HTTP/1.1\r\nHost: a\r\n" + rest + inner)
                while part := sock.recv(65536):
                    heard += part
            answered += heard.count(b'"offset"')
        status, _, body = ask("GET", "/health/live")
        checks.that("the next request gets its own response", status == 200 and b"offset" not in body, (status, body))
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


def plain_check(language):
    """HAProxy's default check: OPTIONS / over HTTP/1.0."""
    with Behind(language, lambda block: block.replace("option httpchk GET /health/ready", "option httpchk")):
        # Three failed checks remove a server.
        time.sleep(2)
        checks.equal("behind the default `option httpchk`", ask("GET", "/health/live")[0], 200)


def main(language):
    with Behind(language) as behind:
        for probe in (page, preflight_and_post, events, polls, websocket, health, ambiguous):
            checks.run(probe.__name__, probe)
        checks.run("shutdown", shutdown, behind)
        checks.that("nothing panicked", "panicked" not in behind.log())
    if language == "haproxy":
        checks.run("plain check", plain_check, language)


checks.run("all", main, sys.argv[1])
checks.finish()
