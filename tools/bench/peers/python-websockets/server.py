"""Python's `websockets` as recommended in its page on performance: uvloop, broadcast(), no compression."""

import asyncio
import logging
import sys

import uvloop
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed

connections = set()


async def echo(connection):
    try:
        async for message in connection:
            await connection.send(message)
    except ConnectionClosed:
        pass


async def fanout(connection):
    connections.add(connection)
    try:
        async for message in connection:
            broadcast(connections, message)
    except ConnectionClosed:
        pass
    finally:
        connections.discard(connection)


async def main(mode, port):
    # The clients of the load leave with a reset, which is not logged.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    handler = {"echo": echo, "fanout": fanout}[mode]
    async with serve(handler, "127.0.0.1", int(port), compression=None, backlog=1024) as server:
        await server.serve_forever()


uvloop.run(main(*sys.argv[1:]))
