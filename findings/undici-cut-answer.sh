#!/usr/bin/env bash
# Whether undici detects a truncated chunked response depends on an unrelated header.
#
# undici 6.24.1 (included in Node 20.20) and 7.16.0, compared with undici 6.27.0. RFC 9112, section 8: a chunked body is
# incomplete without the chunk of size zero. The server here sends one chunk and the beginning of another, and closes
# the connection: once with `Connection: close` in its head, and once without.
#
# Expected: both reads fail, as they do for a truncated Content-Length.
# Observed: only the one without the header fails. With it, `text()` resolves with the truncated body, in fetch() and in
# request(): the announced close is treated as the end of the body. Behind a server or a proxy without persistent
# connections, every truncated response looks complete. 6.27.0 fails both times.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true}' >package.json
npm install --silent --no-audit --no-fund seen-6@npm:undici@6.24.1 seen-7@npm:undici@7.16.0 later@npm:undici@6.27.0
cat >check.mjs <<'JS'
import { createServer } from 'node:net';

// One process per version, because versions in one process share a dispatcher.
const [name, whatWithClose] = process.argv.slice(2);
const undici = await import(name);

async function read(call, head, body) {
  const server = createServer((socket) => {
    socket.once('data', () => {
      socket.write(`HTTP/1.1 200 OK\r\n${head}\r\n`);
      setTimeout(() => socket.end(body), 100);
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    return await call(`http://127.0.0.1:${server.address().port}/`);
  } catch {
    return 'an error';
  } finally {
    server.close();
  }
}

const calls = {
  fetch: async (url) => (await undici.fetch(url)).text(),
  request: async (url) => (await undici.request(url)).body.text(),
};
const chunks = '6\r\nwhole,\r\n64\r\n half';
let asSeen = true;
for (const [method, call] of Object.entries(calls)) {
  const answers = [
    await read(call, 'Transfer-Encoding: chunked\r\n', chunks),
    await read(call, 'Transfer-Encoding: chunked\r\nConnection: close\r\n', chunks),
    await read(call, 'Content-Length: 106\r\nConnection: close\r\n', 'whole, half'),
  ];
  console.log(`${name} ${method}: chunked: ${answers[0]}; and Connection: close: ${answers[1]}; length: ${answers[2]}`);
  asSeen &&= answers.join() === ['an error', whatWithClose, 'an error'].join();
}
process.exit(asSeen ? 0 : 1);
JS
timeout 60 node check.mjs seen-6 'whole, half'
timeout 60 node check.mjs seen-7 'whole, half'
timeout 60 node check.mjs later 'an error'
