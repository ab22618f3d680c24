"""Without free descriptors, accepting pauses and resumes, and connected clients are unaffected."""

import os
import resource
import socket
import time

from checks import Checks, RawWebSocket, Reader, Response, frame
from own_server import OwnServer

checks = Checks("descriptors")
LIMIT = 128
ATTEMPTS = 200


def starve(server):
    pair = [RawWebSocket("FANTAIL_HTTP", "/ws?channel=starving") for _ in range(2)]
    host, port = os.environ["FANTAIL_HTTP"].split(":")
    # Lowered while the server runs, because it plans for a limit known at start.
    pid = server.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (LIMIT, hard))
    crowd = []
    for _ in range(ATTEMPTS):
        sock = socket.create_connection((host, int(port)), timeout=10)
        sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        crowd.append(sock)
    time.sleep(1)
    first, last = (Reader(sock) for sock in (crowd[0], crowd[-1]))
    checks.equal("the first of the crowd is accepted", Response(first).status, 200)
    for number in range(10):
        pair[0].send(frame(1, b"%d" % number))
        checks.equal("connected clients are served", pair[1].receive(), (True, 1, b"%d" % number))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    crowd[-1].settimeout(10)
    checks.equal("the last is accepted once descriptors are free", Response(last).status, 200)
    for sock in crowd:
        sock.close()
    answered = 0
    for _ in range(ATTEMPTS):
        try:
            with socket.create_connection((host, int(port)), timeout=5) as sock:
                sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answered += Response(Reader(sock)).status == 200
        except OSError:
            # Closed connections of the crowd may still occupy the backlog.
            time.sleep(0.1)
    checks.that("accepting resumes", answered > ATTEMPTS // 2, answered)


def main():
    with OwnServer("descriptors") as server:
        checks.run("starve", starve, server)
        checks.that("the server lives", server.process.poll() is None, server.process.poll())
    text = server.log()
    checks.that("the log reports it in few lines", 0 < text.count("\n") < 50, f"{text.count(chr(10))} lines")
    checks.that("nothing panicked", "panicked" not in text)


checks.run("descriptors", main)
checks.finish()
