// centrifuge-js over each of its transports: subscribes, publishes, queries, loses its connection and recovers all missed
// publications.

import { once } from 'node:events';
import net from 'node:net';
import { Centrifuge } from 'centrifuge';
import { Centrifuge as BinaryCentrifuge } from 'centrifuge/build/protobuf';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { Checks } from './checks.mjs';
import { OwnServer } from './own_server.mjs';

const checks = new Checks('centrifuge_js');
const http = process.env.FANTAIL_HTTP;
const [host, port] = http.split(':');

// The transport of the clients, and the beginning of the names of their channels.
let transport = 'websocket';
let js = 'js';

// Without this, Node ends at a request that fails while the server is away.
function quietFetch(...request) {
  const answer = fetch(...request);
  answer.catch(() => {});
  return answer;
}

function client(address = http, Sdk = Centrifuge) {
  const scheme = transport === 'websocket' ? 'ws' : 'http';
  const transports = [{ transport, endpoint: `${scheme}://${address}/connection/${transport}` }];
  return new Sdk(transports, {
    websocket: WebSocket,
    fetch: quietFetch,
    readableStream: ReadableStream,
    eventsource: EventSource,
    emulationEndpoint: `http://${address}/emulation`,
    minReconnectDelay: 50,
    maxReconnectDelay: 200,
    name: 'conformance',
    data: { any: ['thing'] },
  });
}

// Resolves at the next event of this type.
const event = (emitter, name) => new Promise((resolve) => emitter.once(name, resolve));

async function connected(address) {
  const centrifuge = client(address);
  const hello = event(centrifuge, 'connected');
  centrifuge.connect();
  await hello;
  return centrifuge;
}

// A subscription that collects its publications.
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
  // Bytes are sent without a media type; a string would be sent as text/plain and stay text.
  const sent = { method: 'POST', body: Buffer.from(body) };
  const response = await fetch(`http://${http}/publish?channel=${channel}`, sent);
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

// A TCP proxy between a client and the server that can be cut.
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
  const [hers, his] = [await subscribed(anna, `${js}-chat`), await subscribed(ben, `${js}-chat`)];
  checks.equal('a first subscription recovers nothing', [hers.context.wasRecovering, hers.context.recovered], [false, false]);
  checks.equal('the subscription is positioned', [hers.context.positioned, hers.context.recoverable], [true, true]);
  await his.publish({ text: 'hello' });
  await ben.publish(`${js}-chat`, 'é\n');
  await publish(`${js}-chat`, 'plain text');
  await until('both hear all', () => hers.got.length === 3 && his.got.length === 3);
  checks.equal('in order', hers.got, [{ text: 'hello' }, 'é\n', 'plain text']);

  const { clients } = await hers.presence();
  checks.equal('both are present', Object.keys(clients).length, 2);
  checks.that('each with its name', Object.entries(clients).every(([name, info]) => info.client === name));
  checks.equal('they are counted', counts(await hers.presenceStats()), [2, 1]);
  checks.equal('another channel has no clients', counts(await anna.presenceStats(`${js}-empty`)), [0, 0]);
  checks.equal('presence of another channel is empty', await anna.presence(`${js}-empty`), { clients: {} });

  const all = await hers.history({ limit: -1 });
  checks.equal('history', all.publications.map(({ offset }) => offset), [1, 2, 3]);
  const top = await hers.history();
  checks.equal('without a limit, the position only', [top.publications.length, top.offset, top.epoch], [0, 3, all.epoch]);
  const since = { offset: 1, epoch: all.epoch };
  const rest = await anna.history(`${js}-chat`, { since, limit: 1 });
  checks.equal('since', rest.publications.map(({ data }) => data), ['é\n']);
  const back = await anna.history(`${js}-chat`, { limit: 2, reverse: true });
  checks.equal('reverse', back.publications.map(({ offset }) => offset), [3, 2]);
  checks.equal('an invalid position', await error(hers.history({ since: { offset: 1, epoch: 'none' }, limit: 1 })), 112);

  checks.equal('rpc is not available', await error(anna.rpc('method', {})), 108);
  checks.equal('an unknown namespace', await error(anna.publish('nowhere:a', 1)), 102);

  his.unsubscribe();
  await publish(`${js}-chat`, 'after');
  await until('the remaining subscriber receives the next one', () => hers.got.length === 4);
  checks.equal('an unsubscribed client does not receive it', his.got.length, 3);
  checks.equal('one is left', (await hers.presenceStats()).numClients, 1);
  anna.disconnect();
  ben.disconnect();
}

async function cutOff() {
  const between = await proxy();
  const centrifuge = await connected(between.address_);
  const subscription = await subscribed(centrifuge, `${js}-cut`);
  for (const number of numbers(1, 5)) await publish(`${js}-cut`, String(number));
  await until('it receives them', () => subscription.got.length === 5);
  for (const round of [1, 2, 3]) {
    const gone = event(subscription, 'subscribing');
    between.cut();
    await gone;
    const missed = numbers(round * 100, round * 100 + 50);
    for (const number of missed) await publish(`${js}-cut`, String(number));
    const back = event(subscription, 'subscribed');
    between.mend();
    const context = await back;
    checks.equal(`cut ${round}: recovered`, [context.wasRecovering, context.recovered, context.hasRecoveredPublications], [true, true, true]);
    await publish(`${js}-cut`, '"live"');
    await until('it receives new publications', () => subscription.got.at(-1) === 'live');
  }
  const expected = [...numbers(1, 5), ...[1, 2, 3].flatMap((round) => [...numbers(round * 100, round * 100 + 50), 'live'])];
  checks.equal('nothing is lost, duplicated or reordered', subscription.got, expected);

  // More publications than the history keeps.
  const gone = event(subscription, 'subscribing');
  between.cut();
  await gone;
  await Promise.all(numbers(1, 1100).map((number) => publish(`${js}-cut`, String(number))));
  const back = event(subscription, 'subscribed');
  between.mend();
  const context = await back;
  checks.equal('removed publications cannot be recovered', [context.wasRecovering, context.recovered], [true, false]);
  checks.equal('the reply has the new position', context.streamPosition.offset, 5 + 3 * 52 + 1100);
  await publish(`${js}-cut`, '"anew"');
  await until('it continues', () => subscription.got.at(-1) === 'anew');
  centrifuge.disconnect();
  between.close();
}

async function elsewhere() {
  const centrifuge = await connected();
  const subscription = await subscribed(centrifuge, `${js}-since`, { since: { offset: 7, epoch: 'another' } });
  checks.equal('a foreign epoch', [subscription.context.wasRecovering, subscription.context.recovered], [true, false]);
  const unknown = centrifuge.newSubscription('nowhere:a');
  const ended = event(unknown, 'unsubscribed');
  unknown.subscribe();
  checks.equal('an unknown namespace ends a subscription', (await ended).code, 102);
  centrifuge.disconnect();
}

// A hundred unsubscribes in a few frames.
async function many() {
  const centrifuge = client();
  const subscriptions = numbers(1, 100).map((number) => centrifuge.newSubscription(`${js}-many-${number}`));
  const all = Promise.all(subscriptions.map((subscription) => event(subscription, 'subscribed')));
  for (const subscription of subscriptions) subscription.subscribe();
  centrifuge.connect();
  await all;
  const replies = await Promise.all(subscriptions.map((subscription) => subscription.publish(1)));
  checks.equal('all commands are answered', replies.length, 100);
  centrifuge.disconnect();
}

// An application that reloads its state and position whenever recovery fails (flag 2 of a subscribe requests error 112
// then) misses nothing over a restart.
async function stateOverARestart() {
  const server = await new OwnServer('centrifuge-js').start();
  const history = async (limit) =>
    (await server.post('/api/history', JSON.stringify({ channel: 'js-state', limit }))).result;
  const say = (number) => server.post('/publish?channel=js-state', String(number));
  let state = [];
  let loads = 0;
  const getState = async () => {
    loads += 1;
    const { offset, epoch } = await history(0);
    state = (await history(-1)).publications.map(({ data }) => data);
    return { offset, epoch };
  };
  for (const number of [1, 2, 3]) await say(number);
  const centrifuge = await connected(server.http);
  const subscription = centrifuge.newSubscription('js-state', { getState });
  subscription.on('publication', ({ data }) => state.push(data));
  const done = event(subscription, 'subscribed');
  subscription.subscribe();
  await done;
  await say(4);
  await until('it receives new publications', () => state.length === 4);
  const gone = event(subscription, 'subscribing');
  await server.stop('SIGKILL');
  await gone;
  await server.start();
  for (const number of [5, 6]) await say(number);
  await until('the state is loaded again', () => loads === 2);
  await until('it is subscribed again', () => subscription.state === 'subscribed');
  await say(7);
  await until('it receives the last one', () => state.at(-1) === 7);
  checks.equal('the state after the restart', state, [5, 6, 7]);
  checks.equal('loaded once for each start of the server', loads, 2);
  centrifuge.disconnect();

  // A position before the first publication.
  const another = await connected(server.http);
  const all = await subscribed(another, 'js-state', { since: { offset: 0, epoch: '' } });
  await until('all that is kept comes', () => all.got.length === 3);
  checks.equal('from the start', [all.context.recovered, all.got], [true, [5, 6, 7]]);
  another.disconnect();
  await server.stop();
}

async function disconnects() {
  const socket = new WebSocket(`ws://${http}/connection/websocket`);
  await once(socket, 'open');
  socket.send('no command');
  const [refusal] = await once(socket, 'message');
  checks.equal('an invalid command', JSON.parse(refusal).error.code, 107);
  socket.send(Buffer.from('{"id":1,"connect":{}}'));
  const [welcome] = await once(socket, 'message');
  checks.equal('a command in a binary message', JSON.parse(welcome).id, 1);
  socket.send('{"id":2,"refresh":{}}');
  const [code, reason] = await once(socket, 'close');
  checks.equal('a refresh without a token', [code, reason.toString()], [3501, 'bad request']);
  const left = await connected();
  const gone = event(left, 'disconnected');
  left.disconnect();
  checks.equal('a client may disconnect', (await gone).code, 0);
}

// With deltas a subscriber sees the same as without, in JSON and in Protobuf, also after it has lost its connection.
async function deltas() {
  const between = await proxy();
  const channel = `${js}-delta`;
  const rows = numbers(1, 40).map((row) => ({ row, text: 'é "quoted"\n' }));
  const document = (number) => ({ number, rows });
  const open = async (address, Sdk, options) => {
    const centrifuge = client(address, Sdk);
    centrifuge.connect();
    return [centrifuge, await subscribed(centrifuge, channel, options)];
  };
  const [one, plain] = await open(http, Centrifuge);
  const [two, delta] = await open(between.address_, Centrifuge, { delta: 'fossil' });
  const clients = [one, two];
  const subscriptions = [plain, delta];
  if (transport !== 'sse') {
    const [three, binary] = await open(between.address_, BinaryCentrifuge, { delta: 'fossil' });
    clients.push(three);
    subscriptions.push(binary);
  }
  checks.equal('deltas are agreed on', subscriptions.map((it) => Boolean(it._delta_negotiated)), [false, true, true].slice(0, clients.length));
  for (const number of numbers(1, 5)) await publish(channel, JSON.stringify(document(number)));
  await until('all receive them', () => subscriptions.every(({ got }) => got.length === 5));
  const gone = Promise.all(subscriptions.slice(1).map((it) => event(it, 'subscribing')));
  between.cut();
  await gone;
  for (const number of numbers(6, 10)) await publish(channel, JSON.stringify(document(number)));
  const back = Promise.all(subscriptions.slice(1).map((it) => event(it, 'subscribed')));
  between.mend();
  checks.equal('it is recovered', (await back).map(({ recovered }) => recovered), Array(clients.length - 1).fill(true));
  for (const number of numbers(11, 15)) await publish(channel, JSON.stringify(document(number)));
  await publish(channel, 'other text');
  await until('all receive the rest', () => subscriptions.every(({ got }) => got.length === 16));
  const expected = [...numbers(1, 15).map(document), 'other text'];
  const text = (data) => Buffer.from(data).toString();
  const parsed = (data) => (text(data) === 'other text' ? 'other text' : JSON.parse(text(data)));
  checks.equal('without deltas', plain.got, expected);
  checks.equal('with deltas', delta.got, expected);
  if (subscriptions[2]) checks.equal('with deltas of bytes', subscriptions[2].got.map(parsed), expected);
  for (const centrifuge of clients) centrifuge.disconnect();
  between.close();
}

// A subscriber with a filter gets the publications whose tags fit.
async function filters() {
  const channel = `${js}-filter`;
  const is = (val) => ({ key: 'lang', cmp: 'eq', val });
  const centrifuge = await connected();
  const english = await subscribed(centrifuge, channel, { tagsFilter: is('en') });
  const other = await connected();
  const rest = await subscribed(other, channel, { tagsFilter: { op: 'not', nodes: [is('en')] } });
  for (const number of numbers(1, 6)) {
    const body = { channel, data: number, tags: { lang: number % 3 === 0 ? 'en' : 'de' } };
    const sent = { method: 'POST', body: JSON.stringify(body) };
    checks.equal('it is published', (await fetch(`http://${http}/api/publish`, sent)).status, 200);
  }
  await until('both receive theirs', () => english.got.length === 2 && rest.got.length === 4);
  checks.equal('what fits', [english.got, rest.got], [[3, 6], [1, 2, 4, 5]]);
  const unknown = centrifuge.newSubscription(`${channel}-unknown`, { tagsFilter: { ...is('en'), cmp: 'like' } });
  const ended = event(unknown, 'unsubscribed');
  unknown.subscribe();
  checks.equal('an unknown comparison', (await ended).code, 107);
  centrifuge.disconnect();
  other.disconnect();
}

for (transport of ['websocket', 'http_stream', 'sse']) {
  js = transport === 'websocket' ? 'js' : transport;
  for (const check of [chat, cutOff, elsewhere, many, deltas, filters, stateOverARestart]) await checks.run(check);
}

// Bytes in Protobuf, by an answer over HTTP.
async function protobuf() {
  const [centrifuge, other] = [client(http, BinaryCentrifuge), client()];
  const got = { centrifuge: [], other: [] };
  for (const [name, sdk] of Object.entries({ centrifuge, other })) {
    const subscription = sdk.newSubscription('js-protobuf');
    subscription.on('publication', ({ data }) => got[name].push(name === 'other' ? data : Array.from(data)));
    const done = event(subscription, 'subscribed');
    subscription.subscribe();
    sdk.connect();
    await done;
  }
  await centrifuge.publish('js-protobuf', new Uint8Array([0, 255]));
  await other.publish('js-protobuf', { n: 1 });
  await until('both receive them', () => got.centrifuge.length === 2 && got.other.length === 2);
  checks.equal('bytes and JSON', got, { centrifuge: [[0, 255], Array.from(Buffer.from('{"n":1}'))], other: ['AP8=', { n: 1 }] });
  const error = await centrifuge.publish('nowhere:a', new Uint8Array([1])).then(() => 'none', ({ code }) => code);
  checks.equal('an unknown namespace', error, 102);
  centrifuge.disconnect();
  other.disconnect();
}

transport = 'http_stream';
await checks.run(protobuf);
transport = 'websocket';
await checks.run(disconnects);
checks.finish();
