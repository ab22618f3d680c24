// centrifuge-js with tokens: it connects, refreshes and subscribes with them, and takes refusals as its users expect.

import { once } from 'node:events';
import { Centrifuge, UnauthorizedError } from 'centrifuge';
import WebSocket from 'ws';
import { Checks } from './checks.mjs';
import { OwnServer } from './own_server.mjs';
import { base64, now, signedToken } from './signed_token.mjs';

const checks = new Checks('tokens_js');
const SECRET = 'of-the-tokens-case';
const KEY = 'of-the-tokens-case-too';

const SETTINGS = `
api.key = "${KEY}"
[auth]
hmac_secret = "${SECRET}"
expired_close_delay = "3 s"
[channels]
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_presence_for_subscriber = true
presence = true
join_leave = true
history_size = 100
[namespaces.private]
allow_presence_for_subscriber = true
presence = true
[namespaces.own]
history_size = 100
`;
const server = new OwnServer('tokens-js', [], SETTINGS);

const token = (claims, secret = SECRET) => signedToken(claims, secret);
const expired = (claims) => token({ ...claims, exp: now() - 60 });

async function api(method, body) {
  const headers = { 'X-API-Key': KEY, 'Content-Type': 'application/json' };
  const response = await fetch(`http://${server.http}/api/${method}`, { method: 'POST', headers, body: JSON.stringify(body) });
  const answer = await response.json();
  checks.that(`${method} succeeds`, answer.result !== undefined, JSON.stringify(answer));
  return answer.result;
}

const publish = (channel, data) => api('publish', { channel, data });

// A client that records its events.
function client(options) {
  const centrifuge = new Centrifuge(`ws://${server.http}/connection/websocket`, {
    websocket: WebSocket,
    minReconnectDelay: 20,
    maxReconnectDelay: 100,
    ...options,
  });
  centrifuge.seen = [];
  const names = ['connecting', 'connected', 'disconnected', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave'];
  for (const name of names) centrifuge.on(name, (context) => centrifuge.seen.push({ name, ...context }));
  centrifuge.on('error', (context) => centrifuge.seen.push({ name: 'error', ...context }));
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

// Connects, and returns the first context of `connected` or `disconnected`.
async function outcome(centrifuge) {
  centrifuge.connect();
  await until('an outcome', () => named(centrifuge, 'connected').length || named(centrifuge, 'disconnected').length);
  return centrifuge.seen.find(({ name }) => name === 'connected' || name === 'disconnected');
}

async function connected(claims, options = {}) {
  const centrifuge = client({ token: token(claims), ...options });
  const { name, code } = await outcome(centrifuge);
  checks.equal('connected', [name, code], ['connected', undefined]);
  return centrifuge;
}

// Subscribes, and returns the subscription after its first `subscribed` or `unsubscribed`.
async function subscribing(centrifuge, channel, options) {
  const subscription = centrifuge.newSubscription(channel, options);
  subscription.seen = [];
  for (const name of ['subscribing', 'subscribed', 'unsubscribed', 'error', 'publication', 'join', 'leave']) {
    subscription.on(name, (context) => subscription.seen.push({ name, ...context }));
  }
  subscription.subscribe();
  const outcomes = ['subscribed', 'unsubscribed'];
  await until('an outcome', () => subscription.seen.some(({ name }) => outcomes.includes(name)));
  subscription.outcome = subscription.seen.find(({ name }) => outcomes.includes(name));
  return subscription;
}

async function identities() {
  const anna = await connected({ sub: 'anna', info: { name: 'Anna' } });
  const hers = await subscribing(anna, 'identities');
  checks.equal('a subscription', hers.outcome.name, 'subscribed');
  const another = await connected({ sub: 'anna' });
  const b64info = Buffer.from('{"name":"Ben"}').toString('base64');
  const ben = await connected({ sub: 'ben', b64info });
  await subscribing(another, 'identities');
  const his = await subscribing(ben, 'identities');
  const { clients } = await hers.presence();
  const people = Object.values(clients).map(({ user, connInfo }) => [user, connInfo?.name]);
  checks.equal('presence', people.sort(), [['anna', undefined], ['anna', 'Anna'], ['ben', 'Ben']].sort());
  const { numClients, numUsers } = await hers.presenceStats();
  checks.equal('clients and users are counted', [numClients, numUsers], [3, 2]);
  await his.publish('hello');
  await until('a publication', () => named(hers, 'publication').length);
  checks.equal('a publication', named(hers, 'publication')[0].data, 'hello');
  await until('a join', () => named(hers, 'join').some((join) => join.info.user === 'ben'));
  ben.disconnect();
  await until('a leave', () => named(hers, 'leave').some((leave) => leave.info.user === 'ben'));
  const left = named(hers, 'leave').find((leave) => leave.info.user === 'ben');
  checks.equal('a leave has the info too', left.info.connInfo, { name: 'Ben' });
  for (const one of [anna, another]) one.disconnect();
}

async function invalidTokens() {
  const tokens = {
    'another secret': token({ sub: 'anna' }, 'another'),
    'no token at all': 'hello',
    'alg none': `${base64({ alg: 'none' })}.${base64({ sub: 'anna' })}.`,
    'a number as sub': token({ sub: 42 }),
    'a changed claim': token({ sub: 'anna' }).replace(/\..*\./, `.${base64({ sub: 'ben' })}.`),
  };
  for (const [what, invalid] of Object.entries(tokens)) {
    const centrifuge = client({ token: invalid });
    const { name, code, reason } = await outcome(centrifuge);
    checks.equal(`${what} disconnects for good`, [name, code, reason], ['disconnected', 3500, 'invalid token']);
    checks.equal('and it does not try again', centrifuge.state, 'disconnected');
  }
  const { name, code } = await outcome(client());
  checks.equal('without a token', [name, code], ['disconnected', 3501]);
}

async function expiredTokens() {
  let asked = 0;
  const centrifuge = client({
    token: expired({ sub: 'anna' }),
    getToken: async () => {
      asked += 1;
      return token({ sub: 'anna' });
    },
  });
  const { name } = await outcome(centrifuge);
  checks.equal('an expired token is replaced', [name, asked], ['connected', 1]);
  checks.equal('after error 109', named(centrifuge, 'error').map(({ error }) => error.code), [109]);
  centrifuge.disconnect();

  const alone = client({ token: expired({ sub: 'anna' }) });
  const ended = await outcome(alone);
  checks.equal('without getToken it ends unauthorized', [ended.name, ended.code], ['disconnected', 1]);

  const refused = client({ getToken: async () => { throw new UnauthorizedError(); } });
  const { code } = await outcome(refused);
  checks.equal('no token for this user', code, 1);
}

async function refreshes() {
  let asked = 0;
  const centrifuge = client({
    getToken: async () => {
      asked += 1;
      return token({ sub: 'anna', exp: asked < 3 ? now() + 2 : now() + 600 });
    },
  });
  await outcome(centrifuge);
  await until('two refreshes', () => asked === 3);
  // Longer than the first token and the delay.
  await new Promise((resolve) => setTimeout(resolve, 3500));
  const names = centrifuge.seen.map(({ name }) => name);
  checks.equal('the connection stays through two refreshes', [names, asked], [['connecting', 'connected'], 3]);
  centrifuge.disconnect();
}

async function expiry() {
  const centrifuge = client({ token: token({ sub: 'anna', exp: now() + 2 }) });
  await outcome(centrifuge);
  await until('the end', () => centrifuge.state === 'disconnected');
  // The SDK cannot refresh, so it ends by itself when the token is about to expire.
  checks.equal('without getToken it ends', named(centrifuge, 'disconnected').map(({ code }) => code), [1]);

  // What a client without the SDK's timer meets.
  const socket = new WebSocket(`ws://${server.http}/connection/websocket`);
  await once(socket, 'open');
  const began = Date.now();
  socket.send(JSON.stringify({ id: 1, connect: { token: token({ sub: 'anna', exp: now() + 1 }) } }));
  const [message] = await once(socket, 'message');
  const { connect } = JSON.parse(message);
  checks.equal('the reply says so', [connect.expires, connect.ttl >= 0 && connect.ttl <= 1], [true, true]);
  const [code, reason] = await once(socket, 'close');
  checks.equal('an expired connection is closed', [code, String(reason)], [3005, 'connection expired']);
  const seconds = (Date.now() - began) / 1000;
  checks.that('after the delay', seconds > 2.9 && seconds < 10, seconds);
}

async function refusedRefreshes() {
  const next = {
    'another user': [token({ sub: 'ben', exp: now() + 600 }), 3500],
    'an invalid token': ['hello', 3500],
  };
  for (const [what, [refreshed, expected]] of Object.entries(next)) {
    let asked = 0;
    const centrifuge = client({
      getToken: async () => {
        asked += 1;
        return asked === 1 ? token({ sub: 'anna', exp: now() + 2 }) : refreshed;
      },
    });
    await outcome(centrifuge);
    await until(what, () => centrifuge.state === 'disconnected');
    checks.equal(`refreshed with ${what}`, named(centrifuge, 'disconnected')[0].code, expected);
  }
}

async function subscriptionTokens() {
  const anna = await connected({ sub: 'anna' });
  const channel = 'private:room';
  const claims = { sub: 'anna', channel };
  const refused = await subscribing(anna, channel);
  checks.equal('without a token', [refused.outcome.name, refused.outcome.code], ['unsubscribed', 103]);
  anna.removeSubscription(refused);

  const asked = [];
  const getToken = async (context) => {
    asked.push(context.channel);
    return token({ ...claims, info: { seat: asked.length } });
  };
  const room = await subscribing(anna, channel, { getToken });
  checks.equal('with a token', [room.outcome.name, asked], ['subscribed', [channel]]);
  const { clients } = await room.presence();
  checks.equal('its info', Object.values(clients).map(({ user, chanInfo }) => [user, chanInfo]), [['anna', { seat: 1 }]]);
  room.unsubscribe();
  anna.removeSubscription(room);

  const late = await subscribing(anna, channel, { token: expired(claims), getToken });
  checks.equal('an expired token is replaced', [late.outcome.name, asked.length], ['subscribed', 2]);
  late.unsubscribe();
  anna.removeSubscription(late);

  const barred = await subscribing(anna, channel, { getToken: async () => { throw new UnauthorizedError(); } });
  checks.equal('no token for this user', [barred.outcome.name, barred.outcome.code], ['unsubscribed', 1]);
  anna.disconnect();

  for (const [what, other] of Object.entries({
    'of another channel': { sub: 'anna', channel: 'private:other' },
    'of another user': { sub: 'ben', channel },
    'of nobody': { channel },
  })) {
    const centrifuge = await connected({ sub: 'anna' });
    centrifuge.newSubscription(channel, { token: token(other) }).subscribe();
    await until('the end', () => centrifuge.state === 'disconnected');
    checks.equal(`a token ${what}`, named(centrifuge, 'disconnected')[0].code, 3500);
  }
}

async function subscriptionRefreshes() {
  const anna = await connected({ sub: 'anna' });
  let asked = 0;
  const getToken = async ({ channel }) => {
    asked += 1;
    return token({ sub: 'anna', channel, exp: asked < 3 ? now() + 2 : now() + 600 });
  };
  const room = await subscribing(anna, 'private:refreshed', { getToken });
  await until('two refreshes', () => asked === 3);
  await new Promise((resolve) => setTimeout(resolve, 3500));
  await publish('private:refreshed', 'still there');
  await until('a publication', () => named(room, 'publication').length === 1);
  checks.equal('it stays through two refreshes', [named(room, 'subscribed').length, asked], [1, 3]);
  anna.disconnect();
}

async function serverSide() {
  const subs = { 'own:a': {}, 'own:b': { data: { theme: 'dark' }, info: { seat: 7 } } };
  const anna = await connected({ sub: 'anna', subs });
  await until('subscriptions', () => named(anna, 'subscribed').length === 2);
  const contexts = Object.fromEntries(named(anna, 'subscribed').map((context) => [context.channel, context]));
  checks.equal('subscriptions of the token', Object.keys(contexts).sort(), ['own:a', 'own:b']);
  checks.equal('data of a subscription', contexts['own:b']?.data, { theme: 'dark' });
  checks.equal('it can recover', [contexts['own:a']?.recoverable, contexts['own:a']?.positioned], [true, true]);
  await publish('own:a', 1);
  await publish('own:b', 2);
  const heard = () => named(anna, 'publication').map(({ channel, data }) => [channel, data]);
  await until('publications', () => heard().length === 2);
  checks.equal('publications', heard().sort(), [['own:a', 1], ['own:b', 2]]);

  // What is published while it is away comes when it is back, once.
  await api('disconnect', { user: 'anna', disconnect: { code: 3012, reason: 'back soon' } });
  await publish('own:a', 3);
  await until('the missed one', () => heard().length === 3);
  checks.equal('recovered', heard()[2], ['own:a', 3]);
  checks.equal('by its subscription', named(anna, 'subscribed').at(-1).wasRecovering, true);

  await api('unsubscribe', { user: 'anna', channel: 'own:b' });
  await until('the end of one', () => named(anna, 'unsubscribed').length === 1);
  checks.equal('unsubscribed', named(anna, 'unsubscribed')[0].channel, 'own:b');
  await api('subscribe', { user: 'anna', channel: 'own:c' });
  await until('another one', () => named(anna, 'subscribed').some(({ channel }) => channel === 'own:c'));
  anna.disconnect();

  const ben = await connected({ sub: 'ben', channels: ['own:a', 'own:b'] });
  await until('channels', () => named(ben, 'subscribed').length === 2);
  await publish('own:b', 4);
  await until('a publication', () => named(ben, 'publication').length === 1);
  ben.disconnect();

  const lost = await outcome(client({ token: token({ sub: 'anna', channels: ['nowhere:a'] }) }));
  checks.equal('a namespace that does not exist', [lost.name, lost.code], ['disconnected', 102]);
}

async function byUser() {
  const [anna, ben] = [await connected({ sub: 'anna' }), await connected({ sub: 'ben' })];
  await api('disconnect', { user: 'anna' });
  await until('the end', () => anna.state === 'disconnected');
  checks.equal('disconnected for good', named(anna, 'disconnected')[0].code, 3503);
  checks.equal('the other user stays', ben.state, 'connected');

  let asked = 0;
  const getToken = async () => {
    asked += 1;
    return token({ sub: 'carl', exp: now() + 600 });
  };
  const carl = client({ getToken });
  await outcome(carl);
  await api('refresh', { user: 'carl', expired: true });
  await until('it comes back', () => named(carl, 'connected').length === 2);
  checks.equal('an expired user reconnects', named(carl, 'connecting').map(({ code }) => code), [0, 3005]);
  checks.equal('with the token that it has, which is still valid', asked, 1);
  for (const one of [ben, carl]) one.disconnect();
}

async function rights() {
  const anna = await connected({ sub: 'anna' });
  const code = (promise) => promise.then(() => 'none', (error) => error.code);
  checks.equal('publish before the subscription', await code(anna.publish('rights', 1)), 103);
  const subscription = await subscribing(anna, 'rights');
  checks.equal('and after it', await code(subscription.publish(1)), 'none');
  checks.equal('a channel for the server alone', (await subscribing(anna, 'own:x')).outcome.code, 103);
  checks.equal('an unknown namespace', (await subscribing(anna, 'nowhere:x')).outcome.code, 102);
  checks.equal('presence without the right', await code(anna.presence('own:x')), 108);
  anna.disconnect();
}

await server.start();
await Promise.all([
  identities, invalidTokens, expiredTokens, refreshes, expiry, refusedRefreshes, subscriptionTokens,
  subscriptionRefreshes, rights,
].map((check) => checks.run(check)));
// These act on all connections of a user.
for (const check of [serverSide, byUser]) await checks.run(check);
await server.stop();
checks.finish();
