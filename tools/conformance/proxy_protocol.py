"""Tests proxies that send the PROXY protocol, with their configurations in proxies/, on TCP and a Unix socket."""

import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time

from checks import Checks
from own_server import OwnServer, free_port
from recipes import recipe, replaced, running

checks = Checks("proxy_protocol")

HEALTH_CHECK = "check port 8002"
V2 = "send-proxy-v2"
# The name, the configuration, what is changed in it, and whether it ends TLS.
PROXIES = [
    ("HAProxy send-proxy-v2", "haproxy-tcp.cfg", {}, False),
    (
        "HAProxy send-proxy", "haproxy-tcp.cfg",
        {V2: "send-proxy", HEALTH_CHECK: "check check-send-proxy", "option httpchk GET /health/ready": ""}, False,
    ),
    (
        "HAProxy send-proxy-v2 with extensions", "haproxy-tcp.cfg",
        {V2: f"{V2} proxy-v2-options unique-id,crc32c,authority"}, False,
    ),
    ("nginx", "nginx-stream.conf", {}, False),
    ("stunnel", "stunnel.conf", {}, True),
    ("hitch v2", "hitch.conf", {}, True),
    ("hitch v1", "hitch.conf", {"write-proxy-v2": "write-proxy-v1"}, True),
]


class Proxied(OwnServer):
    """A server whose HTTP address and Unix socket expect the PROXY protocol."""

    def __init__(self, folder):
        super().__init__("proxy_protocol")
        self.unix = f"{folder}/socket"
        self.admin_port = free_port()

    def command(self):
        command = super().command()
        for flag in ("--listen", "--tcp"):
            command[command.index(flag) + 1] += " proxy"
        return [
            *command, "--listen", f"unix:{self.unix} proxy", "--trusted-proxy", "127.0.0.1", "--unix-mode", "666",
            "--admin", f"127.0.0.1:{self.admin_port}", "--log-level", "worker=debug",
        ]


def ask(port, tls):
    """One request, after a while in which the client says nothing; returns the client's port and the response."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        own = sock.getsockname()[1]
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            sock = context.wrap_socket(sock, server_hostname="localhost")
        time.sleep(0.1)
        sock.sendall(b"GET /poll?channel=a&timeout=0 HTTP/1.0\r\n\r\n")
        heard = b""
        while part := sock.recv(65536):
            heard += part
        return own, heard


def connect(port):
    """A connection through a proxy that may just be starting."""
    end = time.monotonic() + 5
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def through(name, file, changes, tls, folder, server, backend):
    port = free_port()
    changes = {**changes, "127.0.0.1:8000": backend, "8443" if tls else "8080": str(port)}
    if file == "haproxy-tcp.cfg" and HEALTH_CHECK not in changes:
        # For a Unix socket, the address of the check would be that socket too.
        changes[HEALTH_CHECK] = "" if backend.startswith("unix") else f"check port {server.admin_port}"
    if file == "hitch.conf":
        del changes["127.0.0.1:8000"]
        changes["[127.0.0.1]:8000"] = "[{}]:{}".format(*backend.split(":"))
    if tls:
        changes["/etc/ssl/example.org.pem"] = f"{folder}/pem"
    with running(file, port, replaced(recipe(file), changes), server.log_path.replace("-server", "-proxy")):
        connect(port).close()
        for _ in range(2):
            time.sleep(0.3)  # the log has at most ten lines a second of a kind
            own, heard = ask(port, tls)
            checks.that(f"{name} to {backend}: answered", heard.startswith(b"HTTP/1.1 200"), heard[:80])
            wanted = f"127.0.0.1:{own}"
            lines = [line for line in server.log().splitlines() if "PROXY protocol header" in line]
            checks.that(f"{name} to {backend}: the log has the client", any(wanted in line for line in lines), wanted)


def half_closed(server):
    """A client of raw TCP that has sent all its commands closes its side, and still receives replies and publications."""
    port, publisher_port = free_port(), free_port()
    backend = server.addresses["FANTAIL_TCP"]
    log = server.log_path.replace("-server", "-proxy")

    def nginx(port):
        changes = {"127.0.0.1:8000": backend, "8080": str(port)}
        return running("nginx-stream.conf", port, replaced(recipe("nginx-stream.conf"), changes), log)

    with nginx(port), nginx(publisher_port), connect(port) as sock, connect(publisher_port) as publisher:
        sock.sendall(b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"half"}}\n')
        sock.shutdown(socket.SHUT_WR)
        heard = b""
        while b'"id":2' not in heard and (part := sock.recv(65536)):
            heard += part
        checks.that("a half-closed client: replies", b'"subscribe"' in heard, heard)
        publisher.sendall(b'{"id":1,"connect":{}}\n{"id":2,"publish":{"channel":"half","data":"late"}}\n')
        while b"late" not in heard and (part := sock.recv(65536)):
            heard += part
        checks.that("a half-closed client: a publication", b'"late"' in heard, heard)


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
             "-keyout", f"{folder}/key", "-out", f"{folder}/cert"], check=True, capture_output=True)
        with open(f"{folder}/pem", "w") as pem:
            pem.writelines(open(f"{folder}/{part}").read() for part in ("key", "cert"))
        with Proxied(folder) as server:
            for name, file, changes, tls in PROXIES:
                backends = [server.addresses["FANTAIL_HTTP"]]
                if name.startswith("HAProxy"):
                    backends.append(f"unix@{server.unix}")
                for backend in backends:
                    checks.run(name, through, name, file, changes, tls, folder, server, backend)
            checks.run("a half-closed client", half_closed, server)
            checks.that("nothing panicked", "panicked" not in server.log())
            server.stop(signal.SIGTERM)
            checks.that("the socket's file is removed", not os.path.exists(server.unix))


checks.run("all", main)
checks.finish()
