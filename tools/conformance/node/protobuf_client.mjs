// The Protobuf build of centrifuge-js, for protobuf.py.

import { Centrifuge } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';

const [url, token] = process.argv.slice(2);
const centrifuge = new Centrifuge(url, { websocket: WebSocket, token, minReconnectDelay: 50, maxReconnectDelay: 200 });
const news = centrifuge.newSubscription('news');
const say = (...words) => console.log(words.join(' '));
let isFirst = true;

centrifuge.on('connected', () => say('connected'));
centrifuge.on('error', ({ type, error }) => type === 'transport' || say('error', JSON.stringify(error)));
news.on('error', ({ error }) => say('error', JSON.stringify(error)));
news.on('publication', ({ data }) => say('message', Buffer.from(data).toString('base64')));
news.on('subscribed', async ({ wasRecovering, recovered }) => {
  say('subscribed', wasRecovering, recovered);
  if (isFirst) {
    isFirst = false;
    await news.publish(new TextEncoder().encode('{"from":"node"}'));
  }
});
news.subscribe();
centrifuge.connect();
