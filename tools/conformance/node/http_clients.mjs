// Requests as sent by Safari and Node's proxies, subprotocols, EventSource after a rejection, polls without a history,
// and the close codes that faye-websocket supports.

import { once } from 'node:events';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { EventSource } from 'eventsource';
import faye from 'faye-websocket';
import httpProxy from 'http-proxy';
import { createProxyServer } from 'httpxy';
import { WebSocket as UndiciWebSocket } from 'undici';
import WebSocket from 'ws';
import { Checks } from './checks.mjs';
import { OwnServer } from './own_server.mjs';

const checks = new Checks('http_clients');
const address = process.env.FANTAIL_HTTP;
// Every client may subscribe and publish.
const OPEN = ['subscribe', 'publish'].flatMap((right) =>
  ['client', 'anonymous'].map((client) => `allow_${right}_for_${client} = true`),
);

// Node's own client, without the restrictions and headers of fetch.
function request(to, method, path, headers = {}, body = '') {
  return new Promise((resolve, reject) => {
    const sent = http.request(`http://${to}${path}`, { method, headers, agent: false }, (response) => {
      let text = '';
      response.on('data', (data) => (text += data)).on('end', () => {
        resolve({ status: response.statusCode, headers: response.headers, text });
      });
    });
    sent.on('error', reject).end(body);
  });
}

async function preflight(to, path, headers) {
  const asked = { Origin: 'http://app.example', 'Access-Control-Request-Method': 'POST', ...headers };
  const { status, headers: answered } = await request(to, 'OPTIONS', path, asked);
  return [status, answered['access-control-allow-origin']];
}

// Safari sends Content-Length: 0 with a preflight (RFC 9110, 8.6: no content).
async function aLengthOfZeroIsAnEmptyBody() {
  const empty = { 'Content-Length': '0' };
  for (const path of ['/publish', '/api/publish', '/poll', '/events']) {
    const asked = { ...empty, 'Access-Control-Request-Headers': 'content-type,x-api-key' };
    checks.equal(`preflight of ${path}`, await preflight(address, path, asked), [204, '*']);
  }
  for (const path of ['/', '/health/live', '/health/ready', '/metrics', '/poll?channel=hc0&timeout=1']) {
    checks.equal(`GET ${path}`, (await request(address, 'GET', path, empty)).status, 200);
    checks.equal(`HEAD ${path}`, (await request(address, 'HEAD', path, empty)).status, 200);
  }
}

// A proxy configured as at the beginning of its documentation.
async function behind(name, proxy) {
  const server = http.createServer((request, response) => proxy.web(request, response));
  server.on('upgrade', (request, socket, head) => proxy.ws(request, socket, head));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const front = `127.0.0.1:${server.address().port}`;
  const channel = `hc-${name}`;
  checks.equal(`${name}: the page`, (await request(front, 'GET', '/')).status, 200);
  checks.equal(`${name}: a preflight`, await preflight(front, '/publish'), [204, '*']);
  const source = new EventSource(`http://${front}/events?channel=${channel}`);
  await new Promise((resolve) => (source.onopen = resolve));
  const event = new Promise((resolve) => (source.onmessage = ({ data }) => resolve(data)));
  const socket = new WebSocket(`ws://${front}/ws?channel=${channel}`);
  await once(socket, 'open');
  const message = once(socket, 'message');
  const { status } = await request(front, 'POST', `/publish?channel=${channel}`, {}, 'hello');
  checks.equal(`${name}: a POST`, status, 200);
  checks.equal(`${name}: an event, at once`, await Promise.race([event, sleep(2000)]), 'hello');
  checks.equal(`${name}: a message`, String((await message)[0]), 'hello');
  socket.terminate();
  source.close();
  server.close();
}

// Libraries that offered subprotocols fail the connection if none is selected (undici, ws, browsers).
async function subprotocols() {
  for (const [name, Client] of [['ws', WebSocket], ['undici', UndiciWebSocket]]) {
    const chosen = (path, offered) =>
      new Promise((resolve) => {
        const socket = new Client(`ws://${path}`, offered);
        socket.onopen = () => {
          resolve(socket.protocol);
          socket.close();
        };
        socket.onerror = () => resolve('refused');
      });
    const echo = process.env.FANTAIL_ECHO;
    checks.equal(`${name}: none`, await chosen(`${address}/ws`, []), '');
    checks.equal(`${name}: the first`, await chosen(`${address}/ws`, ['chat', 'superchat']), 'chat');
    checks.equal(`${name}: on echo`, await chosen(echo, ['chat', 'superchat']), 'chat');
    const commands = `${address}/connection/websocket`;
    checks.equal(`${name}: commands`, await chosen(commands, ['centrifuge-json']), 'centrifuge-json');
    const both = ['centrifuge-protobuf', 'centrifuge-json'];
    checks.equal(`${name}: of two`, await chosen(commands, both), 'centrifuge-protobuf');
    checks.equal(`${name}: an unsupported subprotocol`, await chosen(commands, ['centrifuge-other']), 'refused');
  }
}

// WHATWG HTML, 9.2.3: any status other than 200 ends an EventSource for good.
async function eventSourceComesBackAfterAnOverload() {
  const channels = Array.from({ length: 66 }, (_, number) => `latest:${number}`);
  const payload = 'x'.repeat(128 * 1024);
  // Memory is 87 % used by the latest publication of each channel once a subscriber of all channels stops reading.
  const budget = Math.floor((channels.length * payload.length * 100) / 87);
  const settings = ['[namespaces.latest]', ...OPEN, 'slow_consumer = "latest"'].join('\n');
  const options = ['--workers', '1', '--memory-bytes-max', String(budget)];
  const server = await new OwnServer('overload', options, settings).start();
  const level = async () => {
    const text = await (await fetch(`http://${server.http}/metrics`)).text();
    return Number(text.match(/^fantail_memory_pressure_level\{.*\} (\d)$/m)[1]);
  };
  const slow = new WebSocket(`ws://${server.http}/ws?${channels.map((name) => `channel=${name}`).join('&')}`);
  await once(slow, 'open');
  slow.pause();
  // Its kernel buffers hold some megabytes first.
  for (let number = 0; number < 100; number += 1) await server.post('/publish?channel=latest:0', payload);
  for (let turn = 0; turn < 5 && (await level()) < 2; turn += 1) {
    for (const channel of channels) await server.post(`/publish?channel=${channel}`, payload);
    await sleep(50);
  }
  checks.equal('memory is low', await level(), 2);

  const source = new EventSource(`http://${server.http}/events?channel=a`);
  await new Promise((resolve) => (source.onerror = resolve));
  checks.equal('it is reconnecting', source.readyState, EventSource.CONNECTING);
  slow.terminate();
  const heard = new Promise((resolve) => (source.onmessage = ({ data }) => resolve(data)));
  const began = Date.now();
  await new Promise((resolve) => source.addEventListener('position', resolve));
  checks.that('it waits before it reconnects', Date.now() - began > 2000, `after ${Date.now() - began} ms`);
  await server.post('/publish?channel=a', 'after the overload');
  checks.equal('it reconnects', await heard, 'after the overload');
  source.close();
  await server.stop();
}

// Its event id is from another server or malformed: it gets a gap event and receives later publications.
async function eventSourceComesFromElsewhere() {
  for (const id of ['5', '1700000000:0', 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6', 'null', '*']) {
    const withId = (url, init) => fetch(url, { ...init, headers: { ...init.headers, 'Last-Event-ID': id } });
    const source = new EventSource(`http://${address}/events?channel=hc1`, { fetch: withId });
    const heard = [];
    source.addEventListener('gap', () => heard.push('gap'));
    source.onmessage = ({ data }) => heard.push(data);
    await new Promise((resolve) => (source.onopen = source.onerror = resolve));
    checks.equal(`${id} opens`, source.readyState, EventSource.OPEN);
    if (source.readyState !== EventSource.OPEN) continue;
    const last = `after ${id}`;
    await request(address, 'POST', '/publish?channel=hc1', {}, last);
    for (let turn = 0; turn < 100 && heard.at(-1) !== last; turn += 1) await sleep(20);
    checks.equal(`${id}: first and last`, [heard[0], heard.at(-1)], ['gap', last]);
    source.close();
  }
}

// A tutorial's loop, by the position of the last response and by the cookie.
async function pollsWhereNothingIsKept() {
  const settings = [
    '[namespaces.live]', ...OPEN, 'history_size = 0',
    '[namespaces.forgetful]', ...OPEN, 'history_size = 10', 'recovery = false',
  ].join('\n');
  const server = await new OwnServer('polls', [], settings).start();
  for (const channel of ['live:a', 'forgetful:a']) {
    for (const way of ['since', 'cookie', 'tag']) {
      const heard = [];
      let answers = 0;
      let position = '';
      let headers = {};
      const loop = (async () => {
        while (heard.at(-1) !== 'last') {
          const since = way === 'since' && position ? `&since=${position}` : '';
          const response = await fetch(`http://${server.http}/poll?channel=${channel}${since}`, { headers });
          const answer = await response.json();
          answers += 1;
          if (way === 'cookie') headers = { Cookie: response.headers.get('Set-Cookie')?.split(';')[0] ?? '' };
          if (way === 'tag') headers = { 'If-None-Match': response.headers.get('ETag') };
          position = answer.position ?? position;
          heard.push(...(answer.publications?.map(({ data }) => data) ?? [answer.data ?? `status ${response.status}`]));
          if (response.status !== 200) break;
        }
      })();
      for (const text of ['one', 'two', 'last']) {
        await sleep(300);
        await server.post(`/publish?channel=${channel}`, text);
      }
      await Promise.race([loop, sleep(3000)]);
      checks.equal(`${channel} by ${way}: all are received`, heard, ['one', 'two', 'last']);
      checks.that(`${channel} by ${way}: it waits`, answers <= 4, `${answers} answers`);
    }
  }
  await server.stop();
}

// faye-websocket reports codes between 1012 and 2999 as 1002.
async function fayeUnderstandsWhyItIsClosed() {
  const server = await new OwnServer('faye').start();
  const open = async () => {
    const socket = new faye.Client(`ws://${server.http}/ws?channel=a`);
    await new Promise((resolve) => socket.on('open', resolve));
    socket.closed = new Promise((resolve) => socket.on('close', ({ code, reason }) => resolve([code, reason])));
    return socket;
  };
  const disconnect = async (parameters) => {
    const { closed } = await open();
    const { result } = await server.post('/api/presence', '{"channel":"a"}');
    for (const client of Object.keys(result.presence)) {
      await server.post('/api/disconnect', JSON.stringify({ client, ...parameters }));
    }
    return closed;
  };
  const own = { disconnect: { code: 4321, reason: 'go' } };
  checks.equal("a backend's code", await disconnect(own), [4321, 'go']);
  const isKnown = (code) => (code >= 1000 && code <= 1011 && code !== 1002) || (code >= 3000 && code <= 4999);
  for (const parameters of [{}, { disconnect: { code: 3011, reason: 'force reconnect' } }]) {
    const [code, reason] = await disconnect(parameters);
    checks.that('a code of the server', isKnown(code) && /force/.test(reason), [code, reason]);
  }
  const { closed } = await open();
  await server.stop();
  checks.equal('a shutdown', (await closed)[0], 1001);
}

await checks.run(aLengthOfZeroIsAnEmptyBody);
const target = `http://${address}`;
await checks.run(() => behind('http-proxy', httpProxy.createProxyServer({ target, ws: true })));
await checks.run(() => behind('httpxy', createProxyServer({ target, ws: true })));
for (const check of [
  subprotocols, eventSourceComesBackAfterAnOverload, eventSourceComesFromElsewhere, pollsWhereNothingIsKept,
  fayeUnderstandsWhyItIsClosed,
]) {
  await checks.run(check);
}
checks.finish();
