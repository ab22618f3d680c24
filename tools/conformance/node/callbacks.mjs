// A backend as Centrifugo's documentation describes it answers through the callbacks; centrifuge-js sees what it says.

import { createServer } from 'node:http';
import { once } from 'node:events';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { Checks } from './checks.mjs';
import { OwnServer } from './own_server.mjs';

const checks = new Checks('callbacks');
const KEY = 'of-the-callbacks-case';

// The backend: what it is asked, by path.
const USERS = { 'session=1': { user: 'anna', info: { name: 'Anna' } }, 'session=2': { user: 'ben' } };
const denied = { error: { code: 403, message: 'members only' } };
const ANSWERS = {
  '/connect': ({ data }, headers) => {
    const who = USERS[headers.cookie];
    if (who === undefined) return { disconnect: { code: 4501, reason: 'unauthorized' } };
    if (data?.fail !== undefined) return { error: { code: 1000, message: 'not today' } };
    return { result: { ...who, data: { welcome: data }, channels: [`own:${who.user}`] } };
  },
  '/subscribe': ({ channel, user }) => {
    if (channel === 'asked:closed') return denied;
    if (channel === 'asked:trap') return { disconnect: { code: 4502, reason: 'not even tried' } };
    return { result: { info: { seat: user }, data: { topic: 'tea' } } };
  },
  '/publish': ({ data, user }) => {
    if (data === 'rude') return { error: { code: 1001, message: 'be kind' } };
    if (data === 'vile') return { disconnect: { code: 4503, reason: 'goodbye' } };
    return { result: data === 'plain' ? {} : { data: { text: data, by: user } } };
  },
  '/rpc': ({ method, data, user }) => {
    if (method === 'sum') return { result: { data: { sum: data.reduce((a, b) => a + b), user } } };
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
api.key = "${KEY}"
[callbacks]
timeout = "500 ms"
http_headers = ["Cookie", "X-Forwarded-For"]
[callbacks.connect]
endpoint = "${url}/connect"
[callbacks.subscribe]
endpoint = "${url}/subscribe"
[callbacks.publish]
endpoint = "${url}/publish"
[callbacks.rpc]
endpoint = "${url}/rpc"
[channels]
allow_subscribe_for_client = true
[namespaces.asked]
callback_subscribe = true
callback_publish = true
allow_presence_for_subscriber = true
presence = true
[namespaces.own]
history_size = 10
`;
const server = new OwnServer('callbacks', [], SETTINGS);

// A client with a session cookie, as a browser has it, that records its events.
function client(cookie, data) {
  class WithCookie extends WebSocket {
    constructor(address, protocols) {
      super(address, protocols, { headers: { ...(cookie && { Cookie: cookie }), 'X-Secret': 'not to be passed on' } });
    }
  }
  const options = { websocket: WithCookie, minReconnectDelay: 20, maxReconnectDelay: 100, data };
  const centrifuge = new Centrifuge(`ws://${server.http}/connection/websocket`, options);
  centrifuge.seen = [];
  for (const name of ['connected', 'disconnected', 'subscribed', 'publication', 'error']) {
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

async function connected(cookie, data) {
  const centrifuge = client(cookie, data);
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

async function connects() {
  const anna = await connected('session=1', { room: 7 });
  checks.equal('data of the answer', anna.context.data, { welcome: { room: 7 } });
  await until('a subscription', () => named(anna, 'subscribed').length);
  checks.equal('channels of the answer', named(anna, 'subscribed')[0].channel, 'own:anna');
  const [{ method, headers, body }] = asked.filter(({ path, body }) => path === '/connect' && body.data?.room === 7);
  checks.equal('a POST of JSON', [method, headers['content-type']], ['POST', 'application/json']);
  const { transport, protocol, encoding, name, data } = body;
  checks.equal('what it has', [transport, protocol, encoding, name, data], ['websocket', 'json', 'json', 'js', { room: 7 }]);
  checks.equal('the client', body.client, anna.context.client);
  checks.equal('headers that are listed', headers.cookie, 'session=1');
  checks.equal('and no others', headers['x-secret'], undefined);
  anna.disconnect();

  const stranger = await outcome(client());
  checks.equal('a disconnect', [stranger.name, stranger.code, stranger.reason], ['disconnected', 4501, 'unauthorized']);
  const failed = await outcome(client('session=1', { fail: true }));
  checks.equal('an error', [failed.name, failed.code], ['disconnected', 1000]);
}

async function subscribes() {
  const [anna, ben] = [await connected('session=1'), await connected('session=2')];
  const open = await subscribing(anna, 'asked:open');
  checks.equal('subscribed, with data', [open.outcome.name, open.outcome.data], ['subscribed', { topic: 'tea' }]);
  const { clients } = await open.presence();
  const infos = Object.values(clients).map(({ user, connInfo, chanInfo }) => [user, connInfo, chanInfo]);
  checks.equal('with info', infos, [['anna', { name: 'Anna' }, { seat: 'anna' }]]);
  const { body } = asked.find(({ path, body: { channel } }) => path === '/subscribe' && channel === 'asked:open');
  checks.equal('what it has', [body.user, body.transport], ['anna', 'websocket']);
  const closed = await subscribing(anna, 'asked:closed');
  checks.equal('an error', [closed.outcome.name, closed.outcome.code, closed.outcome.reason], ['unsubscribed', 403, 'members only']);

  const heard = () => named(open, 'publication').map(({ data }) => data);
  checks.equal('a publication', await failure(open.publish('hello')), undefined);
  checks.equal('another', await failure(anna.publish('asked:open', 'plain')), undefined);
  await until('publications', () => heard().length === 2);
  checks.equal('data of the answer', heard(), [{ text: 'hello', by: 'anna' }, 'plain']);
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
  const anna = await connected('session=1');
  checks.equal('a result', await anna.rpc('sum', [1, 2, 3]), { data: { sum: 6, user: 'anna' } });
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
await Promise.all([connects, subscribes, calls].map((check) => checks.run(check)));
await server.stop();
backend.closeAllConnections();
checks.finish();
