"""The socket programs of common tutorials, and a thousand of them at once."""

import asyncio
import io
import socket
import threading
from contextlib import redirect_stdout

from checks import Checks, RawWebSocket, address, frame

checks = Checks("sockets")


def tutorial(host, port):
    """The client of a tutorial, verbatim."""
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.connect((host, port))
    client.send("hello".encode())
    print(client.recv(1024).decode())
    client.close()


def one():
    output = io.StringIO()
    with redirect_stdout(output):
        tutorial(*address("FANTAIL_ECHO_TCP"))
    checks.equal("the tutorial's client prints what it sent", output.getvalue(), "hello\n")


def thousand_threads():
    """A thousand clients at once: none sends before all are connected."""
    host, port = address("FANTAIL_ECHO_TCP")
    ready = threading.Barrier(THOUSAND)
    answers = [None] * THOUSAND

    def client(number):
        with socket.create_connection((host, port), timeout=30) as sock:
            ready.wait(timeout=30)
            text = f"hello {number}".encode()
            sock.sendall(text)
            answer = b""
            while len(answer) < len(text):
                part = sock.recv(1024)
                if not part:
                    break
                answer += part
            answers[number] = answer == text

    threading.stack_size(256 * 1024)
    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(THOUSAND)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    checks.equal("a thousand TCP clients are echoed", answers.count(True), THOUSAND)


async def thousand_streams():
    """A thousand asyncio clients, ten messages each."""
    host, port = address("FANTAIL_ECHO_TCP")
    streams = [await asyncio.open_connection(host, port) for _ in range(THOUSAND)]

    async def talk(number, reader, writer):
        for turn in range(10):
            text = f"{number} {turn}\n".encode()
            writer.write(text)
            if await reader.readline() != text:
                return False
        writer.close()
        return True

    talks = [talk(number, *stream) for number, stream in enumerate(streams)]
    answers = await asyncio.wait_for(asyncio.gather(*talks), 60)
    checks.equal("a thousand asyncio clients are echoed", answers.count(True), THOUSAND)


def large():
    """Data that exceeds all socket buffers, sent while reading: nothing is lost or reordered."""
    sent = bytes(range(256)) * 64 * 1024
    received = bytearray()
    with socket.create_connection(address("FANTAIL_ECHO_TCP"), timeout=30) as sock:
        def send():
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        while part := sock.recv(1 << 20):
            received += part
        thread.join()
    checks.that("16 MiB are echoed unchanged, then the stream ends", bytes(received) == sent, len(received))


def websocket_by_hand():
    """A WebSocket echo without a library: handshake, text, binary, ping."""
    client = RawWebSocket("FANTAIL_ECHO")
    checks.equal("upgrade", client.response.headers.get("upgrade", "").lower(), "websocket")
    client.send(frame(1, b"hello") + frame(2, b"\x00\xff") + frame(9, b"ping"))
    checks.equal("text", client.receive(), (True, 1, b"hello"))
    checks.equal("binary", client.receive(), (True, 2, b"\x00\xff"))
    checks.equal("pong", client.receive(), (True, 10, b"ping"))


THOUSAND = 1000
for function in [one, thousand_threads, large, websocket_by_hand]:
    checks.run(function.__name__, function)
checks.run("thousand_streams", lambda: asyncio.run(thousand_streams()))
checks.finish()
