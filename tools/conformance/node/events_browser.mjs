// EventSource and fetch of headless Chromium, used as in tutorials.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { Checks } from './checks.mjs';
import { launch } from './chromium.mjs';
import { Cutter } from './cutter.mjs';

const checks = new Checks('events_browser');
const http = process.env.FANTAIL_HTTP;
const network = await new Cutter(http).listen();

const context = await launch();

async function publish(channel, body, event = '') {
  const query = new URLSearchParams(event ? { channel, event } : { channel });
  // Bytes are sent without a media type; a string would be sent as text/plain and stay text.
  const response = await fetch(`http://${http}/publish?${query}`, { method: 'POST', body: Buffer.from(body) });
  checks.equal('publish', response.status, 200);
}

// A page of the server's own origin with a script.
async function tab(script, argument, origin = network.address) {
  const page = await context.newPage();
  await page.goto(`http://${origin}/health/live`);
  await page.evaluate(() => (globalThis.heard = []));
  await page.evaluate(script, argument);
  return page;
}

async function heard(page, count) {
  await page.waitForFunction((count) => heard.length >= count, count, { timeout: 20_000 });
  return page.evaluate(() => heard);
}

async function subscribers(count) {
  const gauge = /^fantail_subscriptions\{.*\} (\d+)$/gm;
  for (;;) {
    const text = await (await fetch(`http://${http}/metrics`)).text();
    const sum = [...text.matchAll(gauge)].reduce((sum, [, value]) => sum + Number(value), 0);
    if (sum >= count) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  // Subscriptions may still be in progress between workers.
  await new Promise((resolve) => setTimeout(resolve, 200));
}

// The event stream of a tutorial.
function listen() {
  const events = new EventSource('/events');
  events.onmessage = (event) => heard.push(JSON.parse(event.data));
  events.addEventListener('notification', (event) => heard.push({ notification: JSON.parse(event.data) }));
  return new Promise((resolve) => (events.onopen = resolve));
}

// The long polling loop of a tutorial.
function pollForever() {
  async function poll() {
    try {
      const response = await fetch('/poll');
      const data = await response.json();
      if (data.data) heard.push(data.data);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    poll();
  }
  poll();
}

async function theTutorialsRunUnchanged() {
  const [events, polls] = [await tab(listen), await tab(pollForever)];
  await subscribers(2);
  const expected = [];
  for (let number = 0; number < 20; number++) {
    await publish('lobby', JSON.stringify({ number }));
    expected.push({ number });
  }
  checks.equal('EventSource', await heard(events, 20), expected);
  checks.equal('fetch', await heard(polls, 20), expected);
  await network.cut(async () => {
    for (let number = 20; number < 25; number++) {
      await publish('lobby', JSON.stringify({ number }));
      expected.push({ number });
    }
  });
  checks.equal('EventSource misses nothing', await heard(events, 25), expected);
  checks.equal('fetch misses nothing', await heard(polls, 25), expected);
  await publish('lobby', '{"x":1}', 'notification');
  checks.equal('a listener receives its event type', (await heard(events, 26)).at(-1), { notification: { x: 1 } });
  checks.equal('fetch receives it too', (await heard(polls, 26)).at(-1), { x: 1 });
  await events.close();
  await polls.close();
}

async function aCutBeforeTheFirstEventMissesNothing() {
  const page = await tab((query) => {
    const events = new EventSource(`/events?${query}`);
    events.onmessage = (event) => heard.push(event.data);
    return new Promise((resolve) => (events.onopen = resolve));
  }, 'channel=eb1&channel=eb2');
  await network.cut(() => publish('eb2', 'while it was away'));
  await publish('eb1', 'back');
  checks.equal('both arrive', (await heard(page, 2)).sort(), ['back', 'while it was away']);
  await page.close();
}

async function anotherOriginMayListenAndPoll() {
  const page = await tab(
    async (http) => {
      const events = new EventSource(`http://${http}/events?channel=eb3`);
      events.onmessage = (event) => heard.push(event.data);
      await new Promise((resolve) => (events.onopen = resolve));
      // The header makes the request need a preflight.
      const tag = (await fetch(`http://${http}/poll?channel=eb3`, { method: 'HEAD' })).headers.get('ETag');
      fetch(`http://${http}/poll?channel=eb3`, { headers: { 'If-None-Match': tag } })
        .then((response) => response.json())
        .then((answer) => heard.push(answer.publications[0].data));
    },
    http,
  );
  await publish('eb3', 'across');
  checks.equal('both receive it', await heard(page, 2), ['across', 'across']);
  await page.close();
}

// It sends the event id of another server, gets a gap event, and receives later publications.
async function anIdOfAnotherServerIsNotTheEnd() {
  const other = createServer((request, response) => {
    const isStream = request.url.startsWith('/events');
    response.writeHead(200, { 'Content-Type': isStream ? 'text/event-stream' : 'text/plain' });
    if (isStream) response.write('retry: 100\nid: 5\ndata: of another\n\n');
    else response.end('page');
  });
  other.listen(0, '127.0.0.1');
  await once(other, 'listening');
  const network = await new Cutter(`127.0.0.1:${other.address().port}`).listen();
  const page = await tab(
    () => {
      const events = new EventSource('/events?channel=eb4');
      events.onmessage = ({ data }) => heard.push(data);
      events.addEventListener('gap', () => heard.push('gap'));
    },
    null,
    network.address,
  );
  checks.equal('of another', await heard(page, 1), ['of another']);
  await network.cut(() => (network.target = http));
  checks.equal('a gap', await heard(page, 2), ['of another', 'gap']);
  await publish('eb4', 'of this one');
  checks.equal('a later publication', (await heard(page, 3)).at(-1), 'of this one');
  await page.close();
  network.close();
  other.close();
}

for (const check of [
  theTutorialsRunUnchanged, aCutBeforeTheFirstEventMissesNothing, anotherOriginMayListenAndPoll,
  anIdOfAnotherServerIsNotTheEnd,
]) {
  await checks.run(check);
}
await context.close();
network.close();
checks.finish();
