// A backend as Centrifugo's documentation describes it answers through the callbacks; centrifuge-js sees what it says.

import { createServer } from 'node:http';
import { once } from 'node:events';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { Checks } from './checks.mjs';
import { OwnServer } from './own_server.mjs';

const checks = new Checks('callbacks');

// The backend: what it is asked, by path.
const denied = { error: { code: 403, message: 'members only' } };
const ANSWERS = {
  '/subscribe': ({ channel }) => {
    if (channel === 'asked:closed') return denied;
    if (channel === 'asked:trap') return { disconnect: { code: 4502, reason: 'not even tried' } };
    return { result: { info: { seat: 7 }, data: { topic: 'tea' } } };
  },
  '/publish': ({ data, channel }) => {
    if (data === 'rude') return { error: { code: 1001, message: 'be kind' } };
    if (data === 'vile') return { disconnect: { code: 4503, reason: 'goodbye' } };
    return { result: data === 'plain' ? {} : { data: { text: data, to: channel } } };
  },
  '/rpc': ({ method, data }) => {
    if (method === 'sum') return { result: { data: { sum: data.reduce((a, b) => a + b) } } };
    if (method === 'refuse') return { error: { code: 1002, message: 'not now', temporary: true } };
    if (method === 'end') return { disconnect: { code: 4504, reason: 'over' } };
    return { error: { code: 404, message: 'no such method' } };
  },
};

const asked = [];
const backend = createServer(async (request, response) => {
  let text = '';
  for await (const part of request) text += part;
  const body = JSON.parse(text);
  asked.push({ path: request.url, method: request.method, headers: request.headers, body });
  const say = (status, answer) => response.writeHead(status, { 'Content-Type': 'application/json' }).end(answer);
  if (body.method === 'crash') return say(500, '');
  if (body.method === 'garbage') return say(200, 'hello');
  if (body.method === 'hang') return setTimeout(() => say(200, '{"result":{}}'), 1500);
  return say(200, JSON.stringify(ANSWERS[request.url](body, request.headers)));
});
backend.listen(0, '127.0.0.1');
await once(backend, 'listening');
const url = `http://127.0.0.1:${backend.address().port}`;

const SETTINGS = `
[callbacks]
timeout = "500 ms"
[callbacks.subscribe]
endpoint = "${url}/subscribe"
[callbacks.publish]
endpoint = "${url}/publish"
[callbacks.rpc]
endpoint = "${url}/rpc"
[namespaces.asked]
callback_subscribe = true
callback_publish = true
allow_presence_for_subscriber = true
allow_presence_for_anonymous = true
presence = true
`;
const server = new OwnServer('callbacks', [], SETTINGS);

// A client that records its events.
function client(data) {
  const options = { websocket: WebSocket, minReconnectDelay: 20, maxReconnectDelay: 100, data };
  const centrifuge = new Centrifuge(`ws://${server.http}/connection/websocket`, options);
  centrifuge.seen = [];
  for (const name of ['connected', 'disconnected', 'error']) {
    centrifuge.on(name, (context) => centrifuge.seen.push({ name, ...context }));
  }
  return centrifuge;
}

async function until(what, holds) {
  for (let turn = 0; turn < 500; turn += 1) {
    if (holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`waited for: ${what}`);
}

const named = (emitter, name) => emitter.seen.filter((event) => event.name === name);

async function outcome(centrifuge) {
  centrifuge.connect();
  await until('an outcome', () => named(centrifuge, 'connected').length || named(centrifuge, 'disconnected').length);
  return centrifuge.seen.find(({ name }) => name === 'connected' || name === 'disconnected');
}

async function connected(data) {
  const centrifuge = client(data);
  centrifuge.context = await outcome(centrifuge);
  checks.equal('connected', centrifuge.context.name, 'connected');
  return centrifuge;
}

async function subscribing(centrifuge, channel, options) {
  const subscription = centrifuge.newSubscription(channel, options);
  subscription.seen = [];
  for (const name of ['subscribed', 'unsubscribed', 'publication']) {
    subscription.on(name, (context) => subscription.seen.push({ name, ...context }));
  }
  subscription.subscribe();
  await until('an outcome', () => subscription.seen.length || centrifuge.state === 'disconnected');
  [subscription.outcome] = subscription.seen;
  return subscription;
}

async function failure(promise) {
  try {
    await promise;
  } catch ({ code, message, temporary }) {
    return { code, message, temporary };
  }
  return undefined;
}

async function subscribes() {
  const [anna, ben] = [await connected(), await connected()];
  const open = await subscribing(anna, 'asked:open');
  checks.equal('subscribed, with data', [open.outcome.name, open.outcome.data], ['subscribed', { topic: 'tea' }]);
  const { clients } = await open.presence();
  const infos = Object.values(clients).map(({ user, chanInfo }) => [user, chanInfo]);
  checks.equal('with info', infos, [['', { seat: 7 }]]);
  const { body } = asked.find(({ path, body: { channel } }) => path === '/subscribe' && channel === 'asked:open');
  checks.equal('what it has', [body.client, body.transport], [anna.context.client, 'websocket']);
  const closed = await subscribing(anna, 'asked:closed');
  checks.equal('an error', [closed.outcome.name, closed.outcome.code, closed.outcome.reason], ['unsubscribed', 403, 'members only']);

  const heard = () => named(open, 'publication').map(({ data }) => data);
  checks.equal('a publication', await failure(open.publish('hello')), undefined);
  checks.equal('another', await failure(anna.publish('asked:open', 'plain')), undefined);
  await until('publications', () => heard().length === 2);
  checks.equal('data of the answer', heard(), [{ text: 'hello', to: 'asked:open' }, 'plain']);
  checks.equal('refused', (await failure(open.publish('rude')))?.code, 1001);
  checks.equal('by a client that is not subscribed', await failure(ben.publish('asked:open', 'plain')), undefined);
  await until('its publication', () => heard().length === 3);

  await subscribing(ben, 'asked:trap');
  await until('the end', () => ben.state === 'disconnected');
  checks.equal('a disconnect', named(ben, 'disconnected').map(({ code, reason }) => [code, reason]), [[4502, 'not even tried']]);
  anna.publish('asked:open', 'vile').catch(() => {});
  await until('the end', () => anna.state === 'disconnected');
  checks.equal('a publisher is disconnected', named(anna, 'disconnected')[0].code, 4503);
}

async function calls() {
  const anna = await connected();
  checks.equal('a result', await anna.rpc('sum', [1, 2, 3]), { data: { sum: 6 } });
  const [{ method, headers, body }] = asked.filter(({ path }) => path === '/rpc');
  checks.equal('a POST of JSON', [method, headers['content-type']], ['POST', 'application/json']);
  const { client, transport, protocol, encoding, data } = body;
  checks.equal('the client', client, anna.context.client);
  checks.equal('how it is connected', [transport, protocol, encoding], ['websocket', 'json', 'json']);
  checks.equal('what it asks', [body.method, data], ['sum', [1, 2, 3]]);
  const refused = await failure(anna.rpc('refuse', null));
  checks.equal('an error as it is', [refused?.code, refused?.message], [1002, 'not now']);
  checks.equal('an unknown method', (await failure(anna.rpc('none', {})))?.code, 404);
  for (const method of ['crash', 'garbage', 'hang']) {
    checks.equal(`a backend that fails: ${method}`, (await failure(anna.rpc(method, {})))?.code, 100);
  }
  checks.equal('and is asked again', (await anna.rpc('sum', [1])).data.sum, 1);
  anna.rpc('end', {}).catch(() => {});
  await until('the end', () => anna.state === 'disconnected');
  const { code, reason } = named(anna, 'disconnected')[0];
  checks.equal('a disconnect', [code, reason], [4504, 'over']);
}

await server.start();
await Promise.all([subscribes, calls].map((check) => checks.run(check)));
await server.stop();
backend.closeAllConnections();
checks.finish();
