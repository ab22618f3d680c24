// npm `eventsource`: all payload kinds, several channels, lossless reconnects.

import { EventSource } from 'eventsource';
import { Checks } from './checks.mjs';
import { Cutter } from './cutter.mjs';

const checks = new Checks('events_node');
const http = process.env.FANTAIL_HTTP;
const network = await new Cutter(http).listen();

async function publish(channel, body, event = '') {
  const query = new URLSearchParams(event ? { channel, event } : { channel });
  const response = await fetch(`http://${http}/publish?${query}`, { method: 'POST', body });
  checks.equal('publish', response.status, 200);
}

// An open stream that collects its events in a list.
async function open(query, kinds = ['message']) {
  const source = new EventSource(`http://${network.address}/events?${query}`);
  const heard = [];
  source.heard = async (count) => {
    while (heard.length < count) await new Promise((resolve) => setTimeout(resolve, 10));
    return heard;
  };
  for (const kind of kinds) source.addEventListener(kind, ({ data }) => heard.push(data));
  await new Promise((resolve) => (source.onopen = resolve));
  return source;
}

async function payloadsAreEvents() {
  const source = await open('channel=en1', ['message', 'notification']);
  await publish('en1', 'two\nlines');
  await publish('en1', '{"n": 1}', 'notification');
  checks.equal('text, and JSON with a type', await source.heard(2), ['two\nlines', '{"n": 1}']);
  source.close();
}

async function aCutConnectionMissesNothing(query, channels) {
  const source = await open(query);
  const expected = [];
  const next = async () => {
    const text = `number ${expected.length}`;
    await publish(channels[expected.length % channels.length], text);
    expected.push(text);
  };
  // This library uses an id only if its block has data, so the first cut follows an event.
  await next();
  await source.heard(1);
  for (let round = 0; round < 3; round++) {
    await network.cut(async () => {
      await next();
      await next();
    });
    await source.heard(expected.length);
    await next();
    // Order is defined per channel only.
    const heard = await source.heard(expected.length);
    for (const [at, channel] of channels.entries()) {
      const of = (list) => list.filter((text) => Number(text.split(' ')[1]) % channels.length === at);
      checks.equal(`no event of ${channel} is lost or duplicated`, of(heard), of(expected));
    }
  }
  source.close();
}

async function refusalsAreErrors() {
  const source = new EventSource(`http://${http}/events?channel=nowhere:1`);
  const error = await new Promise((resolve) => (source.onerror = resolve));
  checks.equal('an unknown namespace', error.code, 404);
  checks.equal('and it does not reconnect', source.readyState, EventSource.CLOSED);
}

await checks.run(payloadsAreEvents);
await checks.run(() => aCutConnectionMissesNothing('channel=en2', ['en2']));
await checks.run(() => aCutConnectionMissesNothing('channel=en3&channel=en4', ['en3', 'en4']));
await checks.run(refusalsAreErrors);
network.close();
checks.finish();
