"""OpenSSL, curl and Python's ssl over TLS 1.2 and 1.3: requests, sessions that go on, new keys, ends."""

import os
import re
import signal
import socket
import ssl
import subprocess
import time

from checks import Checks, Reader, Response, frame
from tls_server import WORK, TlsServer

checks = Checks("tls")
LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
VERSIONS = ("1.3", "1.2")


def s_client(server, version, *options, said=(LIVE,)):
    """What openssl prints; between what is said, it gets time to do it."""
    command = ["openssl", "s_client", "-connect", server.http, "-servername", "localhost", f"-tls{version.replace('.', '_')}",
               "-CAfile", server.addresses["FANTAIL_TLS_CERT"], "-verify_return_error", *options]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for text in said:
        time.sleep(0.3)
        try:
            client.stdin.write(text)
            client.stdin.flush()
        except BrokenPipeError:
            break  # The server has ended the connection.
    time.sleep(0.5)
    try:
        out, _ = client.communicate(timeout=20)
    except BrokenPipeError:
        out = client.stdout.read()
    return out.decode("latin-1")


def openssl_resumes(server, version):
    file = os.path.join(WORK, "tls", f"session-{version}.pem")
    first = s_client(server, version, "-sess_out", file)
    checks.that(f"{version}: a full handshake", "New, TLS" in first and "200 OK" in first, first[-300:])
    for _ in range(4):
        again = s_client(server, version, "-sess_in", file)
        checks.that(f"{version}: it comes back", "Reused, TLS" in again and "200 OK" in again, again[-300:])
    server.stop(signal.SIGTERM)
    server.start()
    after = s_client(server, version, "-sess_in", file)
    checks.that(f"{version}: and after a restart", "Reused, TLS" in after and "200 OK" in after, after[-300:])


def openssl_changes_keys(server):
    for said in ((LIVE, b"k\n", LIVE), (LIVE, b"K\n", LIVE), (b"K\n", b"k\n", b"K\n", LIVE, LIVE)):
        out = s_client(server, "1.3", said=said)
        checks.equal(f"answers around {said}", out.count("HTTP/1.1 200 OK"), said.count(LIVE))
        checks.that("the keys were changed", "KEYUPDATE" in out, out[-300:])
    for suite in ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"):
        out = s_client(server, "1.3", "-ciphersuites", suite, said=(LIVE, b"K\n", LIVE))
        checks.that(suite, suite in out and out.count("HTTP/1.1 200 OK") == 2, out[-300:])


def openssl_renegotiates(server):
    out = s_client(server, "1.2", said=(LIVE, b"R\n", LIVE))
    checks.that("a renegotiation is refused", "RENEGOTIATING" in out and out.count("200 OK") <= 2, out[-300:])
    checks.that("with an alert", re.search(r"no renegotiation|alert number 100", out), out[-300:])


def curl(server, version):
    command = ["curl", "-sv", f"--tlsv{version}", "--tls-max", version, "--cacert", server.addresses["FANTAIL_TLS_CERT"],
               f"https://{server.http}/health/live", f"https://{server.http}/metrics"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    checks.equal(f"curl {version}", (ended.returncode, "fantail_tls_handshakes_total" in ended.stdout), (0, True))
    checks.that("over one connection", "Re-using existing connection" in ended.stderr, ended.stderr[-300:])
    checks.that("which speaks http/1.1", re.search(r"ALPN.*http/1\.1", ended.stderr), ended.stderr[-300:])


def context(server, version):
    made = ssl.create_default_context(cafile=server.addresses["FANTAIL_TLS_CERT"])
    made.minimum_version = made.maximum_version = getattr(ssl.TLSVersion, f"TLSv{version.replace('.', '_')}")
    return made


def open_python(server, made, session=None):
    host, port = server.echo.split(":")
    sock = socket.create_connection((host, int(port)), 10)
    return made.wrap_socket(sock, server_hostname="localhost", session=session)


def python_resumes(server, version):
    made, session = context(server, version), None
    for at in range(8):
        sock = open_python(server, made, session)
        sock.sendall(LIVE)
        # An echo has no such path.
        checks.equal(f"Python {version}", Response(Reader(sock)).status, 426)
        checks.equal(f"Python {version} comes back", sock.session_reused, at > 0)
        session = sock.session
        sock.unwrap()


def python_echoes(server, version):
    sock = open_python(server, context(server, version))
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    reader = Reader(sock)
    checks.equal("upgraded", Response(reader).status, 101)
    for length in (1, 125, 16_384, 65_535, 1_000_000):
        text = os.urandom(length)
        sock.sendall(frame(2, text))
        head = 2 if length < 126 else 4 if length < 65_536 else 10
        checks.that(f"{version}: {length} bytes come back", reader.exactly(head + length)[head:] == text)
    sock.sendall(frame(8, b"\x03\xe8"))
    checks.equal("the close is answered", reader.exactly(4), b"\x88\x02\x03\xe8")
    # A close_notify comes: without one, this raises an error.
    checks.equal("and then TLS ends", sock.recv(1), b"")


def main():
    with TlsServer("tls") as server:
        for version in VERSIONS:
            checks.run(f"openssl {version}", openssl_resumes, server, version)
            checks.run(f"curl {version}", curl, server, version)
            checks.run(f"Python {version}", python_resumes, server, version)
            checks.run(f"echo {version}", python_echoes, server, version)
        checks.run("keys", openssl_changes_keys, server)
        checks.run("renegotiation", openssl_renegotiates, server)
        checks.that("no panic", "panicked" not in server.log(), server.log()[-300:])
    checks.finish()


if __name__ == "__main__":
    main()
