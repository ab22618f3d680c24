"""Start and shutdown: errors are reported in one line, and every client receives a close."""

import os
import signal
import socket
import subprocess
import time

from checks import Checks, RawWebSocket, Reader, address, connect, frame, read_to_end
from own_server import OwnServer, free_port, server_environment

checks = Checks("lifecycle")
SERVER = os.environ["FANTAIL_SERVER"]
ENDS_WITHIN_SECONDS = 15


def run(*arguments):
    result = subprocess.run(
        [SERVER, *arguments], capture_output=True, text=True, timeout=20, env=server_environment()
    )
    return result.returncode, result.stderr + result.stdout


def help_lists_the_flags():
    for arguments in (["--help"], ["serve", "--help"]):
        code, text = run(*arguments)
        checks.equal(f"{arguments} succeeds", code, 0)
    for flag in ("--listen", "--tcp", "--echo", "--echo-tcp", "--workers", "--driver"):
        checks.that(f"help has {flag}", flag in text)


def errors_at_start():
    ports = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        name = "127.0.0.1:%d" % taken.getsockname()[1]
        code, text = run("serve", "--listen", name, "--tcp", ports[0])
        checks.that("a taken port is an error", code != 0, code)
        checks.that("the error names the port", name in text, text)
        checks.that("the error has few lines", len(text.strip().splitlines()) <= 5, text)
    for what, arguments in {
        "an invalid address": ["--listen", "nonsense"],
        "no workers": ["--workers", "0"],
        "an unknown driver": ["--driver", "kqueue"],
        "an unknown flag": ["--lisen", ports[0]],
    }.items():
        code, text = run("serve", *arguments)
        checks.that(f"{what} is an error", code != 0, code)
        checks.that(f"{what} is named", arguments[0] in text or arguments[1] in text, text)
        checks.that(f"{what}: no panic", "panicked" not in text, text)


def ends(signal_number):
    with OwnServer("lifecycle") as server:
        clients = [RawWebSocket("FANTAIL_HTTP", "/ws?channel=end") for _ in range(50)]
        lines = connect("FANTAIL_TCP")
        lines.sendall(b'{"id":1,"connect":{}}\n')
        Reader(lines).until(b"\n")
        silent = connect("FANTAIL_HTTP")
        publications = [b"%d" % number for number in range(200)]
        clients[0].send(b"".join(frame(1, publication) for publication in publications))
        # The last publication is accepted once its publisher receives it.
        while clients[0].receive()[2] != publications[-1]:
            pass
        began = time.monotonic()
        server.process.send_signal(signal_number)
        for client in clients[1:]:
            heard = []
            while True:
                _, opcode, payload = client.receive()
                if opcode == 8:
                    break
                if opcode == 1:
                    heard.append(payload)
            checks.equal("accepted publications are delivered", len(heard), len(publications))
            checks.equal("close code", int.from_bytes(payload[:2], "big"), 1001)
            client.send(frame(8, payload[:2]))
            checks.that("the connection is closed", client.is_closed_by_peer())
        clients[0].close()
        read_to_end(lines)
        read_to_end(silent)
        code = server.process.wait(ENDS_WITHIN_SECONDS)
        checks.equal("exit code", code, 0)
        checks.that("the server exits in time", time.monotonic() - began < ENDS_WITHIN_SECONDS)
        try:
            socket.create_connection(address("FANTAIL_HTTP"), timeout=1).close()
            checks.that("the port is closed", False)
        except OSError:
            checks.that("the port is closed", True)
    checks.that("nothing panicked", "panicked" not in server.log())


checks.run("help", help_lists_the_flags)
checks.run("errors at start", errors_at_start)
for number in (signal.SIGTERM, signal.SIGINT):
    checks.run(f"{signal.Signals(number).name}", ends, number)
checks.finish()
