// centrifuge-js on a page of another origin in headless Chromium: over each of its transports, in JSON and in Protobuf, it
// subscribes, publishes, queries, recovers what it missed, and goes on after a restart of the server.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { Checks } from './checks.mjs';
import { launch } from './chromium.mjs';
import { Cutter } from './cutter.mjs';
import { OwnServer, freePort } from './own_server.mjs';
import { now, signedToken } from './signed_token.mjs';

const checks = new Checks('sdk_browser');
const SECRET = 'of-the-case-of-the-browser-sdk-x';
const KEY = 'of-the-case-of-the-browser-sdk-too';

// An application's pages, with either build of the SDK.
const FILES = { json: 'centrifuge.js', protobuf: 'centrifuge.protobuf.js' };
const site = createServer(({ url }, response) => {
  const file = Object.values(FILES).find((name) => url === `/${name}`);
  if (file) {
    const script = readFileSync(new URL(`node_modules/centrifuge/dist/${file}`, import.meta.url));
    response.setHeader('Content-Type', 'text/javascript').end(script);
    return;
  }
  response.setHeader('Content-Type', 'text/html').end(`<!doctype html><script src="/${FILES[url.slice(1)]}"></script>`);
});
site.listen(0, '127.0.0.1');
await once(site, 'listening');
const origin = `http://127.0.0.1:${site.address().port}`;

const SETTINGS = `
api.key = "${KEY}"
http.origins = ["${origin}"]
auth.hmac_secret = "${SECRET}"
auth.personal_channel = true
[channels]
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
allow_presence_for_subscriber = true
presence = true
history_size = 100
`;
const server = new OwnServer('sdk-browser', ['--workers', '2'], SETTINGS);
server.http = `127.0.0.1:${await freePort()}`;
await server.start();
const cutter = await new Cutter(server.http).listen();
const context = await launch();

async function api(method, parameters) {
  const headers = { 'X-API-Key': KEY };
  const sent = { method: 'POST', headers, body: JSON.stringify(parameters) };
  const answer = await (await fetch(`http://${server.http}/api/${method}`, sent)).json();
  checks.that(method, answer.result, JSON.stringify(answer));
  return answer.result ?? {};
}

// Runs in the page: connects, subscribes, and keeps what happens in lists.
function open([address, transport, encoding, token]) {
  const scheme = transport === 'websocket' ? 'ws' : 'http';
  const client = new Centrifuge([{ transport, endpoint: `${scheme}://${address}/connection/${transport}` }], {
    emulationEndpoint: `http://${address}/emulation`, token, minReconnectDelay: 50, maxReconnectDelay: 200,
  });
  const text = (data) => new TextDecoder().decode(data);
  const value = (data) => (encoding === 'protobuf' ? JSON.parse(text(data)) : data);
  const sdk = { client, got: [], own: [], connected: [], subscribed: [], ended: [], errors: [] };
  sdk.data = (data) => (encoding === 'protobuf' ? new TextEncoder().encode(JSON.stringify(data)) : data);
  sdk.value = value;
  client.on('connected', ({ transport }) => sdk.connected.push(transport));
  client.on('disconnected', ({ code }) => sdk.ended.push(code));
  client.on('publication', ({ channel, data }) => sdk.own.push([channel, value(data)]));
  // While the server is away, connections fail.
  client.on('error', ({ type, error }) => type !== 'transport' && sdk.errors.push([type, error.code, error.message]));
  const news = client.newSubscription('news');
  news.on('subscribed', ({ wasRecovering, recovered }) => sdk.subscribed.push([wasRecovering, recovered]));
  news.on('publication', ({ data }) => sdk.got.push(value(data)));
  news.on('error', ({ error }) => sdk.errors.push(['news', error.code, error.message]));
  news.subscribe();
  client.connect();
  Object.assign(globalThis, { sdk, news });
}

async function session(transport, encoding) {
  const page = await context.newPage();
  await page.goto(`${origin}/${encoding}`);
  const has = (list, count) =>
    page.waitForFunction(([list, count]) => sdk[list].length >= count, [list, count], { timeout: 10_000 })
      .then(() => page.evaluate((list) => sdk[list], list));
  const user = `${transport}-${encoding}`;
  const token = signedToken({ sub: user, exp: now() + 600 }, SECRET);
  await page.evaluate(open, [cutter.address, transport, encoding, token]);
  const is = (what, actual, expected) => checks.equal(`${user}: ${what}`, actual, expected);
  is('it is subscribed', await has('subscribed', 1), [[false, false]]);
  is('over this transport', await has('connected', 1), [transport]);
  await page.evaluate(() => news.publish(sdk.data({ from: 'page' })));
  await api('publish', { channel: 'news', data: { é: '\n' } });
  await api('publish', { channel: `#${user}`, data: 1 });
  const expected = [{ from: 'page' }, { é: '\n' }];
  is('both publications', await has('got', 2), expected);
  is('one for its user', await has('own', 1), [[`#${user}`, 1]]);
  const asked = await page.evaluate(async () => {
    const { publications } = await news.history({ limit: 2, reverse: true });
    const { clients } = await news.presence();
    const { numClients } = await news.presenceStats();
    const refused = await sdk.client.publish('nowhere:a', sdk.data(1)).then(() => 'none', ({ code }) => code);
    return [publications.map(({ data }) => sdk.value(data)), Object.values(clients).map(({ user }) => user), numClients, refused];
  });
  is('history, presence, numbers and an error', asked, [expected.toReversed(), [user], 1, 102]);
  await page.evaluate(() => Promise.all(Array.from({ length: 50 }, (_, n) => news.publish(sdk.data(n)))));
  expected.push(...Array.from({ length: 50 }, (_, n) => n));
  // Over HTTP each is a request, which the browser makes on several connections.
  const many = await has('got', 52);
  if (transport !== 'websocket') many.splice(2, 50, ...many.slice(2).toSorted((a, b) => a - b));
  is('many at once', many, expected);
  await cutter.cut(async () => {
    for (const n of [50, 51]) await api('publish', { channel: 'news', data: n });
  });
  is('it recovers', await has('subscribed', 2), [[false, false], [true, true]]);
  is('what it missed', (await has('got', 54)).slice(52), [50, 51]);
  await server.stop('SIGKILL');
  await server.start();
  is('it starts anew after a restart', (await has('subscribed', 3)).at(-1), [true, false]);
  await page.evaluate(() => news.publish(sdk.data('after')));
  is('what follows', (await has('got', 55)).at(-1), 'after');
  await api('disconnect', { user });
  is('it is told the end', await has('ended', 1), [3503]);
  is('no errors', await page.evaluate(() => sdk.errors), []);
  await page.close();
  for (let turn = 0; turn < 100; turn += 1) {
    if ((await api('presence_stats', { channel: 'news' })).num_clients === 0) return;
    await sleep(50);
  }
  checks.that(`${user}: it is gone`, false);
}

// SSE is text: the SDK has it in JSON only.
for (const [transport, encoding] of [
  ['websocket', 'json'], ['websocket', 'protobuf'], ['http_stream', 'json'], ['http_stream', 'protobuf'], ['sse', 'json'],
]) {
  await checks.run(async function browser() { await session(transport, encoding); });
}

// A page whose WebSocket is blocked falls back, as the SDK's list of transports says.
await checks.run(async function fallback() {
  const page = await context.newPage();
  await page.goto(`${origin}/json`);
  const token = signedToken({ sub: 'anna', exp: now() + 600 }, SECRET);
  const chosen = await page.evaluate(([address, token]) => {
    const endpoint = (scheme, name) => `${scheme}://${address}/connection/${name}`;
    const client = new Centrifuge([
      { transport: 'websocket', endpoint: endpoint('ws', 'nowhere') },
      { transport: 'http_stream', endpoint: endpoint('http', 'http_stream') },
      { transport: 'sse', endpoint: endpoint('http', 'sse') },
    ], { emulationEndpoint: `http://${address}/emulation`, token, minReconnectDelay: 50, maxReconnectDelay: 200 });
    client.connect();
    return new Promise((resolve) => client.on('connected', ({ transport }) => { resolve(transport); client.disconnect(); }));
  }, [server.http, token]);
  checks.equal('the second transport', chosen, 'http_stream');
  await page.close();
});

await context.close();
cutter.close();
await server.stop();
site.close();
checks.finish();
