"""Malformed, oversized, slow and random input: each gets the error of its protocol, and other clients are unaffected."""

import base64
import json
import os
import random
import socket
import threading
import time

from checks import (
    Checks, RawWebSocket, Reader, Response, address, close_payload, connect, frame, read_to_end,
)

checks = Checks("bad_input")
HANDSHAKE_SECONDS = float(os.environ.get("FANTAIL_HANDSHAKE_SECONDS", "10"))
HOST = "%s:%d" % address("FANTAIL_HTTP")


# WebSocket

def websocket_faults():
    faults = [
        ("an unmasked frame", 1002, frame(1, b"hello", masked=False)),
        ("RSV1", 1002, frame(1, b"hello", rsv=4)),
        ("RSV2", 1002, frame(1, b"hello", rsv=2)),
        ("RSV3", 1002, frame(1, b"hello", rsv=1)),
        *((f"opcode {opcode}", 1002, frame(opcode, b"")) for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]),
        ("a fragmented ping", 1002, frame(9, b"", fin=False)),
        ("a fragmented close", 1002, frame(8, b"", fin=False)),
        ("a ping of 126 bytes", 1002, frame(9, b"x" * 126)),
        ("a ping that only declares 126 bytes", 1002, frame(9, b"", declared=126)),
        ("a close of 126 bytes", 1002, frame(8, close_payload(1000) + b"x" * 124)),
        ("a continuation without a first fragment", 1002, frame(0, b"x")),
        ("a text inside a fragmented text", 1002, frame(1, b"a", fin=False) + frame(1, b"b")),
        ("a close of one byte", 1002, frame(8, b"\x03")),
        *((f"close code {code}", 1002, frame(8, close_payload(code)))
          for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]),
        ("a reason with invalid UTF-8", 1007, frame(8, close_payload(1000, b"\xff"))),
        ("a text with invalid UTF-8", 1007, frame(1, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80")),
        ("an overlong NUL", 1007, frame(1, b"\xc0\x80")),
        ("a code point past U+10FFFF", 1007, frame(1, b"\xf4\x90\x80\x80")),
        ("a text that ends within a character", 1007, frame(1, b"\xe2\x82")),
        ("a bad byte in the second fragment", 1007, frame(1, b"a", fin=False) + frame(0, b"\xff")),
        ("a bad byte before the last fragment", 1007, frame(1, b"\xff", fin=False)),
        ("a character that the next fragment breaks", 1007, frame(1, b"\xe2", fin=False) + frame(0, b"a")),
        ("64 MiB declared", 1009, frame(2, b"", declared=(64 << 20) + 1)),
        ("a length with its top bit set", (1002, 1009), frame(2, b"", declared=1 << 63)),
    ]
    for service, path in [("FANTAIL_ECHO", "/"), ("FANTAIL_HTTP", "/ws?channel=bad")]:
        for what, code, data in faults:
            checks.run(f"{what} at {service}", websocket_fault, service, path, what, code, data)
    for split in (1, 2, 5):
        for what, code, data in faults[:4]:
            checks.run(f"{what} split", websocket_fault, "FANTAIL_ECHO", "/", what, code, data, split)


def websocket_fault(service, path, what, code, data, split=None):
    client = RawWebSocket(service, path)
    if split is None:
        client.send(data)
    else:
        for start in range(0, len(data), split):
            client.send(data[start : start + split])
    got = client.receive_close()
    expected = code if isinstance(code, tuple) else (code,)
    checks.that(f"{what} at {service}", got in expected, f"got {got}, expected {code}")
    checks.that(f"{what} at {service} ends the connection", client.is_closed_by_peer())
    client.close()


def websocket_too_big():
    """The limit of /ws is 1 MiB. It applies to the declared length and to the sum of all fragments."""
    client = RawWebSocket("FANTAIL_HTTP", "/ws?channel=bad")
    client.send(frame(2, b"", declared=(1 << 20) + 1))
    checks.equal("1 MiB and a byte, declared", client.receive_close(), 1009)
    client = RawWebSocket("FANTAIL_HTTP", "/ws?channel=bad")
    client.send(frame(2, b"x" * (1 << 19), fin=False) + frame(0, b"x" * (1 << 19), fin=False))
    client.send(frame(0, b"x"))
    checks.equal("1 MiB and a byte, in fragments", client.receive_close(), 1009)
    client = RawWebSocket("FANTAIL_HTTP", "/ws?channel=limit")
    client.send(frame(2, b"x" * (1 << 20)))
    _, opcode, payload = client.receive()
    checks.equal("1 MiB is accepted", (opcode, len(payload)), (2, 1 << 20))


def websocket_closes():
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]:
        client = RawWebSocket("FANTAIL_ECHO")
        client.send(frame(8, close_payload(code, b"why not")))
        checks.equal(f"close {code} is echoed", client.receive_close(), code)
        checks.that(f"close {code} ends the connection", client.is_closed_by_peer())
    client = RawWebSocket("FANTAIL_ECHO")
    client.send(frame(8) + frame(1, b"too late"))
    _, opcode, _ = client.receive()
    checks.equal("an empty close is answered", opcode, 8)
    checks.that("no data follows a close", client.is_closed_by_peer())


# HTTP

def request(line, *headers, body=b"", host=True):
    lines = [line, *([f"Host: {HOST}"] if host else []), *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def http_statuses():
    """(what, status or statuses, request, whether the connection must end)"""
    publish = "POST /publish?channel=bad HTTP/1.1"
    upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    key = "Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode()
    cases = [
        ("not HTTP", 400, b"\x16\x03\x01\x02\x00\r\n\r\n", True),
        ("a request line of one word", 400, request("GET"), True),
        ("no Host", 400, request("GET /health/live HTTP/1.1", host=False), True),
        ("two Hosts", 400, request("GET /health/live HTTP/1.1", "Host: other"), True),
        ("a NUL in a value", 400, request("GET /health/live HTTP/1.1", "X: a\0b"), True),
        ("a name that is not a token", 400, request("GET /health/live HTTP/1.1", "X Y: z"), True),
        ("a space before the colon", 400, request("GET /health/live HTTP/1.1", "X : z"), True),
        ("a line without a colon", 400, request("GET /health/live HTTP/1.1", "nothing"), True),
        ("obs-fold", 400, request("GET /health/live HTTP/1.1", "X: a", " b"), True),
        ("a bare LF between headers", 400, f"GET /health/live HTTP/1.1\nHost: {HOST}\n\n".encode(), True),
        ("a bare LF in a head of CRLFs", 400, request("GET /health/live HTTP/1.1", "X: a\nY: b"), True),
        ("a bare CR in a value", 400, request("GET /health/live HTTP/1.1", "X: a\rY: b"), True),
        ("Content-Length beside Transfer-Encoding", 400,
         request(publish, "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), True),
        ("Content-Length twice, different", 400,
         request(publish, "Content-Length: 5", "Content-Length: 6", body=b"hello!"), True),
        ("Content-Length as a list, different", 400, request(publish, "Content-Length: 5, 6", body=b"hello!"), True),
        ("Content-Length with a sign", 400, request(publish, "Content-Length: +5", body=b"hello"), True),
        ("Content-Length below zero", 400, request(publish, "Content-Length: -1"), True),
        ("Content-Length in hex", 400, request(publish, "Content-Length: 0x5", body=b"hello"), True),
        ("Content-Length past 64 bits", (400, 413), request(publish, "Content-Length: 99999999999999999999"), True),
        ("an empty Content-Length", 400, request(publish, "Content-Length:"), True),
        ("chunked, but not last", (400, 501), request(publish, "Transfer-Encoding: chunked, identity"), True),
        ("chunked twice", (400, 501), request(publish, "Transfer-Encoding: chunked, chunked"), True),
        ("chunked in HTTP/1.0", 400,
         request("POST /publish?channel=bad HTTP/1.0", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), True),
        ("a chunk size that is not a number", 400,
         request(publish, "Transfer-Encoding: chunked", body=b"xyz\r\nhello\r\n0\r\n\r\n"), True),
        ("a chunk size past 64 bits", (400, 413),
         request(publish, "Transfer-Encoding: chunked", body=b"fffffffffffffffff\r\n"), True),
        ("a chunk ended by a bare LF", 400,
         request(publish, "Transfer-Encoding: chunked", body=b"5\nhello\r\n0\r\n\r\n"), True),
        ("a chunk longer than its size", 400,
         request(publish, "Transfer-Encoding: chunked", body=b"3\r\nhello\r\n0\r\n\r\n"), True),
        ("an upgrade without a key", 400, request("GET /ws HTTP/1.1", *upgrade), False),
        ("an upgrade with a short key", 400, request("GET /ws HTTP/1.1", *upgrade, "Sec-WebSocket-Key: c2hvcnQ="), False),
        ("an upgrade with a key that is not base64", 400,
         request("GET /ws HTTP/1.1", *upgrade, "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="), False),
        ("a channel of 256 bytes", 400,
         request(f"GET /ws?channel={'x' * 256} HTTP/1.1", *upgrade, key), False),
        ("a channel with invalid UTF-8", 400, request("GET /ws?channel=%ff HTTP/1.1", *upgrade, key), False),
        ("a bad escape", 400, request("GET /ws?channel=%zz HTTP/1.1", *upgrade, key), False),
        ("an unknown path", 404, request("GET /nothing HTTP/1.1"), False),
        ("DELETE of the health", 405, request("DELETE /health/live HTTP/1.1"), False),
        ("GET of a POST endpoint", 405, request("GET /publish?channel=bad HTTP/1.1"), False),
        ("POST without a length: an empty body", 200, request(publish), False),
        ("a body past 1 MiB, declared", 413, request(publish, f"Content-Length: {(1 << 20) + 1}"), True),
        ("a chunk past 1 MiB, declared", 413, request(publish, "Transfer-Encoding: chunked", body=b"100001\r\n"), True),
        ("a target of 64 KiB", 414, request(f"GET /{'x' * 65536} HTTP/1.1"), True),
        ("no upgrade where one is required", 426, request("GET /ws?channel=bad HTTP/1.1"), False),
        ("WebSocket version 8", 426,
         request("GET /ws HTTP/1.1", *upgrade[:2], "Sec-WebSocket-Version: 8", key), False),
        ("a header of 64 KiB", 431, request("GET /health/live HTTP/1.1", "X: " + "x" * 65536), True),
        ("a thousand headers", 431, request("GET /health/live HTTP/1.1", *(f"X-{n}: y" for n in range(1000))), True),
        ("an unknown method", (405, 501), request("BREW /publish?channel=bad HTTP/1.1"), False),
        ("an unknown transfer coding", 501, request(publish, "Transfer-Encoding: gzip, chunked"), True),
        ("HTTP/2.0", 505, request("GET /health/live HTTP/2.0"), True),
        ("HTTP/3.7", 505, request("GET /health/live HTTP/3.7"), True),
    ]
    seen = set()
    for what, status, data, ends in cases:
        response = checks.run(what, http_status, what, status, data, ends)
        if response:
            seen.add(response.status)
    for status in (400, 404, 405, 413, 414, 426, 431, 501, 505):
        checks.that(f"status {status} is covered", status in seen)


def http_status(what, status, data, ends):
    sock = connect("FANTAIL_HTTP")
    reader = Reader(sock)
    try:
        sock.sendall(data)
    except (ConnectionResetError, BrokenPipeError):
        # Rejected before all was sent; the response may still be readable.
        pass
    response = Response(reader)
    expected = status if isinstance(status, tuple) else (status,)
    checks.that(what, response.status in expected, f"got {response.line}, expected {status}")
    checks.that(f"{what}: a short JSON body", is_json_error(response), response.body)
    if response.status == 405:
        checks.that(f"{what}: Allow", response.headers.get("allow"), response.headers)
    if response.status == 426:
        checks.equal(f"{what}: Sec-WebSocket-Version", response.headers.get("sec-websocket-version"), "13")
    if ends:
        # A smuggled request after it must not be answered.
        try:
            sock.sendall(request("GET /health/live HTTP/1.1"))
        except OSError:
            pass
        checks.equal(f"{what}: no response follows", reader.buffer + read_to_end(sock), b"")
    sock.close()
    return response


def is_json_error(response):
    if not response.headers.get("content-type", "").startswith("application/json"):
        return False
    try:
        return isinstance(json.loads(response.body), dict) and len(response.body) < 1024
    except ValueError:
        return False


def http_good():
    """Unusual but valid requests."""
    sock = connect("FANTAIL_HTTP")
    reader = Reader(sock)
    sock.sendall(request("GET /health/live HTTP/1.1") * 50)
    checks.equal("fifty pipelined", [Response(reader).status for _ in range(50)], [200] * 50)
    publish = "POST /publish?channel=good HTTP/1.1"
    body = b"5;name=value\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"
    sock.sendall(request(publish, "Transfer-Encoding: chunked", body=body) + request("GET /health/live HTTP/1.1"))
    checks.equal("chunk extension and trailer", [Response(reader).status, Response(reader).status], [200, 200])
    sock.sendall(request("GET /health/live HTTP/1.1", "Connection: close"))
    checks.equal("Connection: close", Response(reader).status, 200)
    checks.equal("closes", read_to_end(sock), b"")
    for byte_by_byte in [request("GET /health/live HTTP/1.1"), request(publish, "Content-Length: 2", body=b"hi")]:
        sock = connect("FANTAIL_HTTP")
        for byte in byte_by_byte:
            sock.sendall(bytes([byte]))
        checks.equal("byte by byte", Response(Reader(sock)).status, 200)


# Slowness

def slow_clients():
    """Silent clients and clients that send one byte per second are closed at the deadline by every service."""
    limit = HANDSHAKE_SECONDS + 3

    def silent(name):
        sock = connect(name, timeout=limit)
        began = time.monotonic()
        rest = read_to_end(sock)
        return name, "silent", time.monotonic() - began, rest

    def dripping(name, data):
        sock = connect(name, timeout=limit)
        sock.settimeout(1)
        began = time.monotonic()
        rest = b""
        for byte in data:
            if time.monotonic() - began > limit:
                break
            try:
                sock.sendall(bytes([byte]))
                part = sock.recv(4096)
                if not part:
                    break
                rest += part
            except socket.timeout:
                continue
            except OSError:
                break
        return name, "dripping", time.monotonic() - began, rest

    head = request("GET /ws?channel=slow HTTP/1.1", "X-Padding: " + "x" * 100)
    body = request("POST /publish?channel=slow HTTP/1.1", "Content-Length: 100", body=b"x" * 100)
    # All but the end of the body is sent at once.
    tasks = [
        (silent, "FANTAIL_HTTP"), (silent, "FANTAIL_ECHO"), (silent, "FANTAIL_TCP"),
        (dripping, "FANTAIL_TCP", b'{"id":1,"connect":{}}\n'),
        (dripping, "FANTAIL_HTTP", head), (dripping, "FANTAIL_ECHO", head), (dripping, "FANTAIL_HTTP", body),
    ]
    results = []

    def run(function, *arguments):
        try:
            results.append(function(*arguments))
        except Exception as error:  # any error of the client is a failure
            results.append((arguments[0], function.__name__, float("inf"), repr(error).encode()))

    threads = [threading.Thread(target=run, args=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, kind, seconds, rest in results:
        checks.that(f"a {kind} client of {name} is closed at the deadline", seconds <= limit, (seconds, rest))
        if kind == "dripping" and name != "FANTAIL_TCP":
            checks.that(f"a {kind} client of {name} gets 408", b" 408 " in rest.split(b"\r\n")[0], rest)


# Garbage

def garbage():
    """Seeded random bytes, truncated anywhere, to every service."""
    seed = int(os.environ.get("CONFORMANCE_SEED", "20"))
    noise = random.Random(seed)
    openings = {
        "FANTAIL_HTTP": [b"", b"GET / HTTP/1.1\r\n", b"POST /publish?channel=x HTTP/1.1\r\nContent-Length: "],
        "FANTAIL_ECHO": [b"", b"GET / HTTP/1.1\r\nHost: a\r\n"],
        "FANTAIL_TCP": [b"", b'{"id":1,"connect":{}}\n{"id":'],
        "FANTAIL_ECHO_TCP": [b""],
    }
    for name, starts in openings.items():
        for _ in range(100):
            with connect(name) as sock:
                try:
                    sock.sendall(noise.choice(starts) + noise.randbytes(noise.choice([1, 10, 100, 3000])))
                    if noise.random() < 0.5:
                        sock.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
    for _ in range(200):
        client = RawWebSocket("FANTAIL_ECHO")
        try:
            client.send(noise.randbytes(noise.choice([2, 14, 200, 5000])))
        except OSError:
            pass
        client.close()
    checks.that(f"the server survived noise of seed {seed}", True)


class Bystander:
    """A subscriber and a publisher that must stay unaffected."""

    def __init__(self):
        self.subscriber = RawWebSocket("FANTAIL_HTTP", "/ws?channel=bystander")
        self.publisher = RawWebSocket("FANTAIL_HTTP", "/ws?channel=bystander")
        self.sent = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.publish, daemon=True)
        self.thread.start()

    def publish(self):
        while not self.over.wait(0.01):
            self.publisher.send(frame(1, b"%d" % self.sent))
            self.sent += 1

    def finish(self):
        self.over.set()
        self.thread.join()
        heard = []
        while len(heard) < self.sent:
            fin, opcode, payload = self.subscriber.receive()
            if opcode == 1:
                heard.append(payload)
            elif opcode == 9:
                self.subscriber.send(frame(10, payload))
        checks.that("the bystander received everything in order", heard == [b"%d" % n for n in range(self.sent)])
        checks.that("something was published", self.sent > 10, self.sent)


bystander = checks.run("bystander", Bystander)
for function in [
    websocket_faults, websocket_too_big, websocket_closes, http_statuses, http_good, slow_clients, garbage,
]:
    checks.run(function.__name__, function)
if bystander:
    checks.run("bystander", bystander.finish)
checks.finish()
