// Node's `ws`: chat, echo, close codes, a thousand clients at once.

import { once } from 'node:events';
import WebSocket from 'ws';
import { Checks } from './checks.mjs';

const checks = new Checks('node');
const http = process.env.FANTAIL_HTTP;
const echo = `ws://${process.env.FANTAIL_ECHO}`;

// An open socket that queues its messages from the first byte.
async function open(url) {
  const socket = new WebSocket(url);
  const queue = [];
  const waiting = [];
  socket.on('message', (data, isBinary) => {
    const message = isBinary ? data : data.toString();
    waiting.length ? waiting.shift()(message) : queue.push(message);
  });
  socket.next = () =>
    queue.length ? Promise.resolve(queue.shift()) : new Promise((resolve) => waiting.push(resolve));
  await once(socket, 'open');
  return socket;
}

async function lobbyIsAChat() {
  const [anna, ben] = await Promise.all([open(`ws://${http}`), open(`ws://${http}/`)]);
  anna.send('hello from node');
  checks.equal('the other client receives it', await ben.next(), 'hello from node');
  ben.send(Buffer.from([0, 255]));
  await anna.next();
  checks.equal('binary stays binary', [...(await anna.next())], [0, 255]);
  anna.terminate();
  ben.terminate();
}

async function publishOverHttp() {
  const subscriber = await open(`ws://${http}/ws?channel=node`);
  const response = await fetch(`http://${http}/publish?channel=node`, { method: 'POST', body: 'fetched' });
  checks.equal('status', response.status, 200);
  checks.equal('the body arrives', String(await subscriber.next()), 'fetched');
  const publications = Array.from({ length: 1000 }, (_, number) => `number ${number}`);
  for (const publication of publications) subscriber.send(publication);
  const heard = [];
  while (heard.length < publications.length) heard.push(await subscriber.next());
  checks.equal('a thousand publications arrive in order', heard, publications);
  subscriber.terminate();
}

async function echoAndClose() {
  for (const length of [0, 125, 126, 65535, 65536, 1 << 20]) {
    const socket = await open(echo);
    const data = Buffer.alloc(length, 7);
    socket.send(data);
    checks.that(`binary of ${length}`, data.equals(await socket.next()));
    socket.terminate();
  }
  for (const code of [1000, 3000, 4999]) {
    const socket = await open(echo);
    socket.close(code, 'bye');
    const [got] = await once(socket, 'close');
    checks.equal(`close ${code}`, got, code);
  }
  const socket = await open(echo);
  socket.ping('are you there');
  const [pong] = await once(socket, 'pong');
  checks.equal('pong', pong.toString(), 'are you there');
  socket.terminate();
}

async function refusals() {
  const refused = (url) =>
    new Promise((resolve) => {
      const socket = new WebSocket(url);
      socket.on('unexpected-response', (_, response) => resolve(response.statusCode));
      socket.on('error', () => {});
      socket.on('open', () => resolve('open'));
    });
  checks.equal('an unknown path is 404', await refused(`ws://${http}/nothing`), 404);
  checks.equal('a channel name too long is 400', await refused(`ws://${http}/ws?channel=${'x'.repeat(256)}`), 400);
}

async function thousand() {
  const sockets = await Promise.all(Array.from({ length: 1000 }, () => open(echo)));
  const answers = await Promise.all(
    sockets.map((socket, number) => {
      socket.send(`hello ${number}`);
      return socket.next();
    }),
  );
  checks.equal('a thousand at once are echoed', answers.filter((text, number) => text === `hello ${number}`).length, 1000);
  for (const socket of sockets) socket.terminate();
}

for (const check of [lobbyIsAChat, publishOverHttp, echoAndClose, refusals, thousand]) await checks.run(check);
checks.finish();
