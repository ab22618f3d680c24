"""Shared code of the Python cases: counting checks, addresses, and a WebSocket that can send invalid frames."""

import base64
import os
import socket
import struct
import sys
import traceback


class Checks:
    """Counts checks; prints one line per failure and a summary."""

    def __init__(self, name):
        self.name = name
        self.passed = 0
        self.failed = 0

    def that(self, what, condition, detail=""):
        if condition:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAIL {self.name}: {what}{': ' if detail != '' else ''}{detail}", flush=True)

    def equal(self, what, actual, expected):
        self.that(what, actual == expected, f"got {actual!r}, expected {expected!r}")

    def run(self, what, function, *arguments):
        """Runs a function; an exception counts as a failure."""
        try:
            return function(*arguments)
        except Exception as error:  # any error of the client is a failure
            traceback.print_exc(file=sys.stdout)
            self.that(what, False, f"{type(error).__name__}: {error}")
            return None

    def finish(self):
        print(f"{self.name}: {self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed else 0)


def address(name):
    host, _, port = os.environ[name].rpartition(":")
    return host, int(port)


def connect(name, timeout=10):
    sock = socket.create_connection(address(name), timeout=timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_exactly(sock, count):
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ConnectionError(f"closed after {len(data)} of {count} bytes")
        data += part
    return data


def read_to_end(sock):
    """All bytes until the peer closes; a reset ends them too."""
    data = b""
    while True:
        try:
            part = sock.recv(65536)
        except ConnectionResetError:
            return data
        if not part:
            return data
        data += part


class Reader:
    """Buffered reading of heads, lines and counted bytes."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def fill(self):
        part = self.sock.recv(65536)
        if not part:
            raise ConnectionError(f"closed; unread: {self.buffer[:200]!r}")
        self.buffer += part

    def until(self, end):
        while end not in self.buffer:
            self.fill()
        data, self.buffer = self.buffer.split(end, 1)
        return data + end

    def exactly(self, count):
        while len(self.buffer) < count:
            self.fill()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data


class Response:
    def __init__(self, reader, head_only=False):
        lines = reader.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        self.line = lines[0]
        self.status = int(lines[0].split(" ")[1])
        self.headers = {}
        for line in lines[1:]:
            if line:
                name, _, value = line.partition(":")
                self.headers[name.lower()] = value.strip()
        length = 0 if head_only or self.status == 101 else int(self.headers.get("content-length", 0))
        self.body = reader.exactly(length)


def mask_bytes(payload, mask):
    if not payload:
        return b""
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return number.to_bytes(len(payload), "big")


def frame(opcode, payload=b"", fin=True, rsv=0, masked=True, declared=None):
    """Encodes a frame, valid or not. `declared` replaces the length in its header."""
    length = len(payload) if declared is None else declared
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    if length <= 125:
        head += bytes([bit | length])
    elif length <= 0xFFFF:
        head += bytes([bit | 126]) + struct.pack(">H", length)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", length)
    if not masked:
        return head + payload
    mask = b"\x37\xfa\x21\x3d"
    return head + mask + mask_bytes(payload, mask)


def close_payload(code, reason=b""):
    return struct.pack(">H", code) + reason


class RawWebSocket:
    def __init__(self, name, path="/", headers=""):
        self.sock = connect(name)
        self.reader = Reader(self.sock)
        key = base64.b64encode(os.urandom(16)).decode()
        host = "%s:%d" % address(name)
        self.sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
        )
        self.response = Response(self.reader)
        if self.response.status != 101:
            raise ConnectionError(self.response.line)

    def send(self, data):
        self.sock.sendall(data)

    def receive(self):
        """Reads the next frame; returns (fin, opcode, payload)."""
        first, second = self.reader.exactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self.reader.exactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self.reader.exactly(8))
        return bool(first & 0x80), first & 0x0F, self.reader.exactly(length)

    def receive_close(self):
        """Reads until a close frame; returns its code, or None if it has none."""
        while True:
            _, opcode, payload = self.receive()
            if opcode == 8:
                return struct.unpack(">H", payload[:2])[0] if payload else None

    def is_closed_by_peer(self):
        return read_to_end(self.sock) == b"" and self.reader.buffer == b""

    def close(self):
        self.sock.close()
