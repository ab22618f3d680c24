#!/usr/bin/env bash
# Three Python libraries for event streams deliver less than the data of an event.
#
# aiosseclient 0.1.8, requests-sse 0.5.3, aiohttp-sse-client 0.2.1, compared with httpx-sse 0.4.3 and sseclient-py
# 1.9.0. WHATWG HTML, 9.2.5 and 9.2.6: a line ends only in LF, CR or CRLF; one leading space is removed from the value
# after the colon.
#
# Expected: any text arrives unchanged.
# Observed: aiosseclient splits with str.splitlines, so the text after a U+2028, U+0085 or vertical tab becomes a
# separate line, is logged as "Invalid SSE line", and is lost; JSON.stringify does not escape U+2028. requests-sse and
# aiohttp-sse-client remove all leading blanks. The two others are correct.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/python"
"$folder/python/bin/pip" -q install --disable-pip-version-check aiosseclient==0.1.8 aiohttp-sse-client==0.2.1 \
  aiohttp==3.13.2 requests-sse==0.5.3 requests==2.34.2 httpx==0.28.1 httpx-sse==0.4.3 sseclient-py==1.9.0
cat >"$folder/check.py" <<'PY'
import asyncio
import http.server
import sys
import threading

import aiohttp_sse_client.client
import aiosseclient
import httpx
import httpx_sse
import requests
import requests_sse
import sseclient

SENT = {
    "a line separator": '{"text": "before\u2028after"}',
    "next line": "before\u0085after",
    "a vertical tab": "before\vafter",
    "indented": "    return x",
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for data in SENT.values():
            self.wfile.write(f"data: {data}\n\n".encode())

    def log_message(self, *_):
        pass


def by_httpx_sse():
    with httpx.Client() as client, httpx_sse.connect_sse(client, "GET", URL) as source:
        return [event.data for event in source.iter_sse()]


def by_sseclient():
    return [event.data for event in sseclient.SSEClient(requests.get(URL, stream=True)).events()]


def by_requests_sse():
    heard = []
    with requests_sse.EventSource(URL) as source:
        for event in source:
            heard.append(event.data)
            if len(heard) == len(SENT):
                return heard


async def by_aiosseclient():
    return [event.data async for event in aiosseclient.aiosseclient(URL)]


async def by_aiohttp_sse_client():
    heard = []
    async with aiohttp_sse_client.client.EventSource(URL) as source:
        async for event in source:
            heard.append(event.data)
            if len(heard) == len(SENT):
                return heard


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
URL = f"http://127.0.0.1:{server.server_port}/"
as_sent = list(SENT.values())
blanks_lost = as_sent[:3] + ["return x"]
cut = ['{"text": "before', "before", "before", "    return x"]
expected = {
    "httpx-sse": (by_httpx_sse(), as_sent),
    "sseclient-py": (by_sseclient(), as_sent),
    "requests-sse": (by_requests_sse(), blanks_lost),
    "aiohttp-sse-client": (asyncio.run(by_aiohttp_sse_client()), blanks_lost),
    "aiosseclient": (asyncio.run(by_aiosseclient()), cut),
}
for library, (heard, _) in expected.items():
    print(f"{library}: {heard}")
sys.exit(any(heard != as_seen for heard, as_seen in expected.values()))
PY
timeout 60 "$folder/python/bin/python" "$folder/check.py"
