// Node's `ws` and `tls` over TLS: echo, publications, sessions that go on.

import { once } from 'node:events';
import https from 'node:https';
import tls from 'node:tls';
import WebSocket from 'ws';
import { Checks } from './checks.mjs';

const checks = new Checks('tls_node');
const [host, port] = process.env.FANTAIL_TLS_HTTP.split(':');
const http = `localhost:${port}`;
const echo = `wss://localhost:${process.env.FANTAIL_TLS_ECHO.split(':')[1]}`;

async function open(url, options = {}) {
  const socket = new WebSocket(url, options);
  await once(socket, 'open');
  return socket;
}

async function echoes(maxVersion) {
  for (const length of [0, 125, 16384, 65536, 1 << 20]) {
    const socket = await open(echo, { maxVersion });
    const data = Buffer.alloc(length, 7);
    socket.send(data);
    const [answer] = await once(socket, 'message');
    checks.that(`${maxVersion}: binary of ${length}`, data.equals(answer));
    socket.close(1000, 'bye');
    const [code] = await once(socket, 'close');
    checks.equal('close', code, 1000);
  }
}

async function publishes() {
  const subscriber = await open(`wss://${http}/ws?channel=node`);
  const request = https.request(`https://${http}/publish?channel=node`, { method: 'POST' });
  request.end('published');
  const [response] = await once(request, 'response');
  response.resume();
  checks.equal('status', response.statusCode, 200);
  const [message] = await once(subscriber, 'message');
  checks.equal('the body arrives', String(message), 'published');
  subscriber.terminate();
}

async function resumes(maxVersion) {
  let session;
  for (let at = 0; at < 6; at += 1) {
    const socket = tls.connect({ host, port, servername: 'localhost', maxVersion, session });
    socket.on('session', (given) => {
      session = given;
    });
    await once(socket, 'secureConnect');
    checks.equal(`${maxVersion}: comes back`, socket.isSessionReused(), at > 0);
    socket.write('GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
    const [data] = await once(socket, 'data');
    checks.that('is answered', String(data).startsWith('HTTP/1.1 200'));
    socket.resume();
    await once(socket, 'close');
  }
}

for (const version of ['TLSv1.3', 'TLSv1.2']) {
  await checks.run(() => echoes(version));
  await checks.run(() => resumes(version));
}
await checks.run(publishes);
checks.finish();
