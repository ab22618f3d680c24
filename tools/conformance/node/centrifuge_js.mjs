// centrifuge-js: subscribes, publishes, asks, is cut off, comes back and has missed nothing.

import { once } from 'node:events';
import net from 'node:net';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { Checks } from './checks.mjs';

const checks = new Checks('centrifuge_js');
const http = process.env.FANTAIL_HTTP;
const [host, port] = http.split(':');

function client(address = http) {
  return new Centrifuge(`ws://${address}/connection/websocket`, {
    websocket: WebSocket,
    minReconnectDelay: 50,
    maxReconnectDelay: 200,
    name: 'conformance',
    data: { any: ['thing'] },
  });
}

// The next time an event comes.
const event = (emitter, name) => new Promise((resolve) => emitter.once(name, resolve));

async function connected(address) {
  const centrifuge = client(address);
  const hello = event(centrifuge, 'connected');
  centrifuge.connect();
  await hello;
  return centrifuge;
}

// A subscription that gathers what it gets.
async function subscribed(centrifuge, channel, options) {
  const subscription = centrifuge.newSubscription(channel, options);
  subscription.got = [];
  subscription.on('publication', ({ data }) => subscription.got.push(data));
  const done = event(subscription, 'subscribed');
  subscription.subscribe();
  subscription.context = await done;
  return subscription;
}

async function publish(channel, body) {
  const response = await fetch(`http://${http}/publish?channel=${channel}`, { method: 'POST', body });
  checks.equal('publish', response.status, 200);
}

async function until(what, holds) {
  for (let turn = 0; turn < 500; turn += 1) {
    if (holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`waited for: ${what}`);
}

const error = (promise) => promise.then(() => 'none', (fault) => fault.code);

const counts = ({ numClients, numUsers }) => [numClients, numUsers];

const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

// What stands between a client and the server, and can be cut.
async function proxy() {
  const sockets = new Set();
  const server = net.createServer((near) => {
    if (server.isDown) return near.destroy();
    const far = net.connect(Number(port), host);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => { sockets.delete(socket); near.destroy(); far.destroy(); });
    }
    near.pipe(far).pipe(near);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  server.isDown = false;
  server.cut = () => { server.isDown = true; for (const socket of sockets) socket.destroy(); };
  server.mend = () => { server.isDown = false; };
  server.address_ = `127.0.0.1:${server.address().port}`;
  return server;
}

async function chat() {
  const [anna, ben] = await Promise.all([connected(), connected()]);
  const [hers, his] = [await subscribed(anna, 'js-chat'), await subscribed(ben, 'js-chat')];
  checks.equal('a first subscription recovers nothing', [hers.context.wasRecovering, hers.context.recovered], [false, false]);
  checks.equal('it is positioned', [hers.context.positioned, hers.context.recoverable], [true, true]);
  await his.publish({ text: 'hello' });
  await ben.publish('js-chat', 'é\n');
  await publish('js-chat', 'plain text');
  await until('both hear all', () => hers.got.length === 3 && his.got.length === 3);
  checks.equal('in order', hers.got, [{ text: 'hello' }, 'é\n', 'plain text']);

  const { clients } = await hers.presence();
  checks.equal('both are present', Object.keys(clients).length, 2);
  checks.that('each with its name', Object.entries(clients).every(([name, info]) => info.client === name));
  checks.equal('they are counted', counts(await hers.presenceStats()), [2, 1]);
  checks.equal('nobody is elsewhere', counts(await anna.presenceStats('js-nobody')), [0, 0]);
  checks.equal('nobody is named elsewhere', await anna.presence('js-nobody'), { clients: {} });

  const all = await hers.history({ limit: -1 });
  checks.equal('history', all.publications.map(({ offset }) => offset), [1, 2, 3]);
  const top = await hers.history();
  checks.equal('without a limit, the position only', [top.publications.length, top.offset, top.epoch], [0, 3, all.epoch]);
  const since = { offset: 1, epoch: all.epoch };
  const rest = await anna.history('js-chat', { since, limit: 1 });
  checks.equal('since', rest.publications.map(({ data }) => data), ['é\n']);
  const back = await anna.history('js-chat', { limit: 2, reverse: true });
  checks.equal('reverse', back.publications.map(({ offset }) => offset), [3, 2]);
  checks.equal('a position that is none', await error(hers.history({ since: { offset: 1, epoch: 'none' }, limit: 1 })), 112);

  checks.equal('rpc is not available', await error(anna.rpc('method', {})), 108);
  checks.equal('an unknown namespace', await error(anna.publish('nowhere:a', 1)), 102);

  his.unsubscribe();
  await publish('js-chat', 'after');
  await until('who stayed hears on', () => hers.got.length === 4);
  checks.equal('who left does not', his.got.length, 3);
  checks.equal('one is left', (await hers.presenceStats()).numClients, 1);
  anna.disconnect();
  ben.disconnect();
}

async function cutOff() {
  const between = await proxy();
  const centrifuge = await connected(between.address_);
  const subscription = await subscribed(centrifuge, 'js-cut');
  for (const number of numbers(1, 5)) await publish('js-cut', String(number));
  await until('it hears them', () => subscription.got.length === 5);
  for (const round of [1, 2, 3]) {
    const gone = event(subscription, 'subscribing');
    between.cut();
    await gone;
    const missed = numbers(round * 100, round * 100 + 50);
    for (const number of missed) await publish('js-cut', String(number));
    const back = event(subscription, 'subscribed');
    between.mend();
    const context = await back;
    checks.equal(`cut ${round}: recovered`, [context.wasRecovering, context.recovered, context.hasRecoveredPublications], [true, true, true]);
    await publish('js-cut', '"live"');
    await until('it hears on', () => subscription.got.at(-1) === 'live');
  }
  const expected = [...numbers(1, 5), ...[1, 2, 3].flatMap((round) => [...numbers(round * 100, round * 100 + 50), 'live'])];
  checks.equal('nothing is lost, doubled or out of order', subscription.got, expected);

  // More than is kept.
  const gone = event(subscription, 'subscribing');
  between.cut();
  await gone;
  await Promise.all(numbers(1, 1100).map((number) => publish('js-cut', String(number))));
  const back = event(subscription, 'subscribed');
  between.mend();
  const context = await back;
  checks.equal('what is gone cannot be recovered', [context.wasRecovering, context.recovered], [true, false]);
  checks.equal('and the position is told', context.streamPosition.offset, 5 + 3 * 52 + 1100);
  await publish('js-cut', '"anew"');
  await until('it goes on', () => subscription.got.at(-1) === 'anew');
  centrifuge.disconnect();
  between.close();
}

async function elsewhere() {
  const centrifuge = await connected();
  const subscription = await subscribed(centrifuge, 'js-since', { since: { offset: 7, epoch: 'another' } });
  checks.equal('a foreign epoch', [subscription.context.wasRecovering, subscription.context.recovered], [true, false]);
  const unknown = centrifuge.newSubscription('nowhere:a');
  const ended = event(unknown, 'unsubscribed');
  unknown.subscribe();
  checks.equal('an unknown namespace ends a subscription', (await ended).code, 102);
  centrifuge.disconnect();
}

// A hundred subscriptions leave in a few frames.
async function many() {
  const centrifuge = client();
  const subscriptions = numbers(1, 100).map((number) => centrifuge.newSubscription(`js-many-${number}`));
  const all = Promise.all(subscriptions.map((subscription) => event(subscription, 'subscribed')));
  for (const subscription of subscriptions) subscription.subscribe();
  centrifuge.connect();
  await all;
  const replies = await Promise.all(subscriptions.map((subscription) => subscription.publish(1)));
  checks.equal('all are answered', replies.length, 100);
  centrifuge.disconnect();
}

async function goodbyes() {
  const socket = new WebSocket(`ws://${http}/connection/websocket`);
  await once(socket, 'open');
  socket.send('no command');
  const [refusal] = await once(socket, 'message');
  checks.equal('what is no command', JSON.parse(refusal).error.code, 107);
  socket.send(Buffer.from('{"id":1,"connect":{}}'));
  const [code, reason] = await once(socket, 'close');
  checks.equal('what cannot hold commands', [code, reason.toString()], [3501, 'bad request']);
  const left = await connected();
  const gone = event(left, 'disconnected');
  left.disconnect();
  checks.equal('a client may leave', (await gone).code, 0);
}

for (const check of [chat, cutOff, elsewhere, many, goodbyes]) await checks.run(check);
checks.finish();
