// Headless Chromium with tokens: in a cookie, from pages of listed and other origins, and as a subprotocol.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { Checks } from './checks.mjs';
import { launch } from './chromium.mjs';
import { OwnServer, freePort } from './own_server.mjs';
import { now, signedToken } from './signed_token.mjs';

const checks = new Checks('tokens_browser');
const SECRET = 'of-the-tokens-case';
const KEY = 'of-the-tokens-case-too';

// An application's page, which is of another origin than the server, on the same site: the cookie is sent to both.
async function site() {
  const server = createServer((request, response) => response.setHeader('Content-Type', 'text/html').end('<!doctype html>'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  server.origin = `http://127.0.0.1:${server.address().port}`;
  return server;
}
const [listed, other] = [await site(), await site()];

const SETTINGS = `
api.key = "${KEY}"
http.origins = ["${listed.origin}"]
[auth]
hmac_secret = "${SECRET}"
cookie = "session"
[channels]
allow_subscribe_for_client = true
allow_publish_for_client = true
presence = true
history_size = 10
`;
const server = new OwnServer('tokens-browser', [], SETTINGS);
server.http = `127.0.0.1:${await freePort()}`;
await server.start();

const context = await launch();

// A tab of an origin, whose cookies are replaced.
async function tab(origin, cookie) {
  await context.clearCookies();
  if (cookie) {
    const options = { domain: '127.0.0.1', path: '/', httpOnly: true, sameSite: 'Lax' };
    await context.addCookies([{ name: 'session', value: cookie, ...options }]);
  }
  const page = await context.newPage();
  await page.goto(origin);
  return page;
}

// Opens a WebSocket in the page, and tells the chosen subprotocol, or with which code it ended.
const socket = (page, path, subprotocols = []) =>
  page.evaluate(
    ([url, subprotocols]) =>
      new Promise((resolve) => {
        const socket = new WebSocket(url, subprotocols);
        socket.onopen = () => resolve(`open ${socket.protocol}`);
        socket.onclose = ({ code }) => resolve(`closed ${code}`);
      }),
    [`ws://${server.http}${path}`, subprotocols],
  );

// The reply to the first command that a page sends without a token of its own, or with which code it is closed.
const connected = (page) =>
  page.evaluate(
    (url) =>
      new Promise((resolve) => {
        const socket = new WebSocket(url);
        socket.onopen = () => socket.send('{"id":1,"connect":{}}');
        socket.onmessage = ({ data }) => resolve(Object.keys(JSON.parse(data)).join());
        socket.onclose = ({ code }) => resolve(`closed ${code}`);
      }),
    `ws://${server.http}/connection/websocket`,
  );

// The status of a request by fetch with credentials, or the error that the page sees.
const fetched = (page, path, options = {}) =>
  page.evaluate(
    ([url, options]) =>
      fetch(url, { credentials: 'include', ...options }).then(({ status }) => status, ({ name }) => name),
    [`http://${server.http}${path}`, options],
  );

const streamed = (page, path) =>
  page.evaluate(
    (url) =>
      new Promise((resolve) => {
        const events = new EventSource(url, { withCredentials: true });
        events.onopen = () => resolve('open');
        events.onerror = () => resolve('error');
      }),
    `http://${server.http}${path}`,
  );

async function users(channel) {
  const headers = { 'X-API-Key': KEY };
  const body = JSON.stringify({ channel });
  const response = await fetch(`http://${server.http}/api/presence`, { method: 'POST', headers, body });
  const { result } = await response.json();
  return Object.values(result?.presence ?? {}).map(({ user }) => user);
}

const anna = signedToken({ sub: 'anna', exp: now() + 600 }, SECRET);
const late = signedToken({ sub: 'anna', exp: now() - 60 }, SECRET);

async function aCookieOfAListedOrigin() {
  const page = await tab(listed.origin, anna);
  checks.equal('a plain WebSocket', await socket(page, '/ws?channel=cookie'), 'open ');
  checks.equal('has the user', await users('cookie'), ['anna']);
  checks.equal('commands', await connected(page), 'id,connect');
  checks.equal('an event stream', await streamed(page, '/events?channel=stream'), 'open');
  checks.equal('has the user', await users('stream'), ['anna']);
  checks.equal('a poll', await fetched(page, '/poll?channel=cookie&timeout=0'), 200);
  await page.close();
}

async function aCookieOfAnotherOrigin() {
  const page = await tab(other.origin, anna);
  checks.equal('a plain WebSocket', await socket(page, '/ws?channel=other'), 'closed 1006');
  checks.equal('commands', await connected(page), 'closed 1006');
  checks.equal('an event stream', await streamed(page, '/events?channel=other'), 'error');
  checks.equal('a poll', await fetched(page, '/poll?channel=other&timeout=0'), 'TypeError');
  checks.equal('nothing was subscribed', await users('other'), []);
  await page.close();
}

async function aCookieThatIsNotValid() {
  for (const [what, cookie] of [['none', undefined], ['an expired one', late], ['no token', 'hello']]) {
    const page = await tab(listed.origin, cookie);
    checks.equal(`${what}: a plain WebSocket`, await socket(page, '/ws?channel=invalid'), 'closed 1006');
    checks.equal(`${what}: an event stream`, await streamed(page, '/events?channel=invalid'), 'error');
    checks.equal(`${what}: a poll`, await fetched(page, '/poll?channel=invalid&timeout=0'), 401);
    checks.equal(`${what}: nothing was subscribed`, await users('invalid'), []);
    await page.close();
  }
}

async function aSubprotocol() {
  const page = await tab(listed.origin);
  // A browser ends the connection if none of the subprotocols that it offers is chosen.
  checks.equal('beside another', await socket(page, '/ws?channel=bearer', ['chat', `bearer.${anna}`]), 'open chat');
  checks.equal('has the user', await users('bearer'), ['anna']);
  // It is never chosen itself, because the answer would then have it.
  checks.equal('alone', await socket(page, '/ws?channel=bearer', [`bearer.${anna}`]), 'closed 1006');
  const commands = await socket(page, '/connection/websocket', ['centrifuge-json', `bearer.${anna}`]);
  checks.equal('commands', commands, 'open centrifuge-json');
  checks.equal('an expired one', await socket(page, '/ws?channel=bearer', ['chat', `bearer.${late}`]), 'closed 1006');
  await page.close();
}

async function aHeader() {
  const page = await tab(listed.origin);
  const headers = { Authorization: `Bearer ${anna}` };
  checks.equal('a poll', await fetched(page, '/poll?channel=header&timeout=0', { headers }), 200);
  checks.equal('without it', await fetched(page, '/poll?channel=header&timeout=0'), 401);
  await page.close();
}

for (const check of [aCookieOfAListedOrigin, aCookieOfAnotherOrigin, aCookieThatIsNotValid, aSubprotocol, aHeader]) {
  await checks.run(check);
}
await context.close();
await server.stop();
for (const one of [listed, other]) one.close();
checks.finish();
