"""Tests proxies that send the PROXY protocol (HAProxy, stunnel, hitch) in front of the server, on TCP and a Unix socket."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time

from checks import Checks
from own_server import OwnServer, free_port

checks = Checks("proxy_protocol")

HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend web
    bind 127.0.0.1:{port}
    default_backend fantail
backend fantail
    server s1 {server} {option} check inter 2s {check}
"""

STUNNEL = """
foreground = yes
pid =
[fantail]
accept = 127.0.0.1:{port}
connect = {server}
cert = {folder}/pem
protocol = proxy
"""

HITCH = """
frontend = "[127.0.0.1]:{port}"
backend = "[{host}]:{to}"
pem-file = "{folder}/pem"
workers = 1
{user}
{option} = on
"""

# The name, the configuration, the command, and whether it ends TLS.
PROXIES = [
    ("HAProxy send-proxy", HAPROXY, "haproxy -db -f {file}", False, {"option": "send-proxy", "check": "check-send-proxy"}),
    ("HAProxy send-proxy-v2", HAPROXY, "haproxy -db -f {file}", False, {"option": "send-proxy-v2", "check": ""}),
    (
        "HAProxy send-proxy-v2 with extensions", HAPROXY, "haproxy -db -f {file}", False,
        {"option": "send-proxy-v2 proxy-v2-options unique-id,crc32c,authority", "check": ""},
    ),
    ("stunnel", STUNNEL, "stunnel4 {file}", True, {}),
    ("hitch v1", HITCH, "hitch --config={file}", True, {"option": "write-proxy-v1"}),
    ("hitch v2", HITCH, "hitch --config={file}", True, {"option": "write-proxy-v2"}),
]


class Proxied(OwnServer):
    """A server whose HTTP address and Unix socket expect the PROXY protocol."""

    def __init__(self, folder):
        super().__init__("proxy_protocol")
        self.unix = f"{folder}/socket"

    def command(self):
        command = super().command()
        at = command.index("--listen") + 1
        command[at] += " proxy"
        return [
            *command, "--listen", f"unix:{self.unix} proxy", "--trusted-proxy", "127.0.0.1", "--unix-mode", "666",
            "--log-level", "worker=debug",
        ]


@contextlib.contextmanager
def proxy(configuration, command, folder, server, options):
    """Runs a proxy in front of the server, and gives its port."""
    port = free_port()
    host, _, to = server.rpartition(":")
    # hitch refuses to run as root.
    user = 'user = "nobody"' if os.geteuid() == 0 else ""
    names = {"user": user, "folder": folder, "file": f"{folder}/rules", "port": port}
    names |= {"server": server, "host": host, "to": to, **options}
    with open(names["file"], "w") as file:
        file.write(configuration.format(**names))
    with open(f"{folder}/log", "w") as log:
        process = subprocess.Popen(command.format(**names).split(), stdout=log, stderr=log)
    try:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(5)


def ask(port, tls):
    """One request, after a while in which the client says nothing; returns the client's port and the response."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        own = sock.getsockname()[1]
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            sock = context.wrap_socket(sock, server_hostname="localhost")
        time.sleep(0.1)
        sock.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
        heard = b""
        while part := sock.recv(65536):
            heard += part
        return own, heard


def through(name, configuration, command, tls, options, folder, server, backend):
    with proxy(configuration, command, folder, backend, options) as port:
        for _ in range(2):
            time.sleep(0.3)  # the log has at most ten lines a second of a kind
            own, heard = ask(port, tls)
            checks.that(f"{name} to {backend}: answered", heard.startswith(b"HTTP/1.1 200"), heard[:80])
            wanted = f"127.0.0.1:{own}"
            lines = [line for line in server.log().splitlines() if "PROXY protocol header" in line]
            checks.that(f"{name} to {backend}: the log has the client", any(wanted in line for line in lines), wanted)


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
             "-keyout", f"{folder}/key", "-out", f"{folder}/cert"], check=True, capture_output=True)
        with open(f"{folder}/pem", "w") as pem:
            pem.writelines(open(f"{folder}/{part}").read() for part in ("key", "cert"))
        with Proxied(folder) as server:
            for name, configuration, command, tls, options in PROXIES:
                backends = [server.addresses["FANTAIL_HTTP"]]
                if name.startswith("HAProxy"):
                    backends.append(f"unix@{server.unix}")
                for backend in backends:
                    checks.run(name, through, name, configuration, command, tls, options, folder, server, backend)
            checks.that("nothing panicked", "panicked" not in server.log())
            server.stop(signal.SIGTERM)
            checks.that("the socket's file is removed", not os.path.exists(server.unix))


checks.run("all", main)
checks.finish()
