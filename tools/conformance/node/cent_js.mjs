// cent.js, a library for backends: each of its methods, and what it makes of errors.

import { once } from 'node:events';
import net from 'node:net';
import { CentClient } from 'cent.js';
import { Checks } from './checks.mjs';

const checks = new Checks('cent_js');
const [host, port] = process.env.FANTAIL_TCP.split(':');
const cent = new CentClient({ url: `http://${process.env.FANTAIL_HTTP}/api`, apiKey: 'none is needed' });

// A connected client of the command protocol over TCP.
class LinesClient {
  static async open() {
    const client = new LinesClient();
    client.socket = net.connect(Number(port), host);
    await once(client.socket, 'connect');
    client.text = '';
    client.lines = [];
    client.socket.on('data', (data) => {
      const lines = (client.text + data).split('\n');
      client.text = lines.pop();
      client.lines.push(...lines.filter((line) => line !== '').map((line) => JSON.parse(line)));
      client.wake?.();
    });
    client.id = (await client.ask('connect')).connect.client;
    return client;
  }

  ask(method, parameters = {}) {
    this.socket.write(`${JSON.stringify({ id: 1, [method]: parameters })}\n`);
    return this.line(({ id }) => id === 1);
  }

  async push(kind) {
    return (await this.line(({ push }) => push?.[kind])).push;
  }

  async line(fits) {
    for (;;) {
      const at = this.lines.findIndex(fits);
      if (at >= 0) return this.lines.splice(at, 1)[0];
      await new Promise((resolve) => { this.wake = resolve; });
    }
  }
}

async function publications() {
  const [channel, other] = [`cent-js-${process.pid}`, `cent-js-other-${process.pid}`];
  const first = await cent.publish({ channel, data: { n: 1 }, tags: { a: 'b' } });
  checks.equal('the first offset', first.offset, 1);
  const { responses } = await cent.broadcast({ channels: [channel, other], data: 'é' });
  checks.equal('a broadcast', responses.map(({ result }) => result.offset), [2, 1]);
  checks.equal('not kept', await cent.publish({ channel, data: 'x', skip_history: true }), {});
  const { publications: kept, ...position } = await cent.getHistory({ channel, limit: -1 });
  checks.equal('the history', kept.map(({ data }) => data), [{ n: 1 }, 'é']);
  checks.equal('tags', kept[0].tags, { a: 'b' });
  checks.equal('its position', position, { epoch: first.epoch, offset: 2 });
  const part = await cent.getHistory({ channel, limit: 1, since: { offset: 1, epoch: first.epoch } });
  checks.equal('a part of it', part.publications.map(({ offset }) => offset), [2]);
  const back = await cent.getHistory({ channel, limit: 1, reverse: true });
  checks.equal('the newest publication', back.publications.map(({ offset }) => offset), [2]);
  checks.equal('it is removed', await cent.removeHistory({ channel }), {});
  checks.equal('nothing is left', (await cent.getHistory({ channel, limit: -1 })).publications ?? [], []);
  // Several commands behind each other, each with its method's name.
  const results = await cent.pipeline([
    { method: 'publish', params: { channel: other, data: 1 } },
    { method: 'presence_stats', params: { channel: other } },
    { method: 'history', params: { channel: other, limit: 1, reverse: true } },
  ]);
  checks.equal('a pipeline', [results[0].offset, results[1].num_clients, results[2].publications[0].data], [2, 0, 1]);
}

async function clients() {
  const channel = `cent-js-clients-${process.pid}`;
  const [own, other] = [await LinesClient.open(), await LinesClient.open()];
  await own.ask('subscribe', { channel });
  await own.ask('publish', { channel, data: 1 });
  const { publications: [{ info }] } = await cent.getHistory({ channel, limit: 1 });
  checks.equal('who published', info, { client: own.id, user: '' });
  const tagsFilter = undefined;
  checks.equal('subscribed', await cent.subscribe({ user: '', client: other.id, channel, tagsFilter }), {});
  checks.equal('a push about it', (await other.push('subscribe')).channel, channel);
  const { presence } = await cent.getPresence({ channel });
  checks.equal('presence', Object.keys(presence).sort(), [own.id, other.id].sort());
  checks.equal('of a client', presence[own.id], { client: own.id, user: '' });
  checks.equal('numbers', await cent.getPresenceStats({ channel }), { num_clients: 2, num_users: 1 });
  checks.equal('channels', (await cent.getChannels({ pattern: channel })).channels, { [channel]: { num_clients: 2 } });
  checks.that('all channels', channel in (await cent.getChannels()).channels);
  checks.equal('unsubscribed', await cent.unsubscribe({ user: '', client: other.id, channel }), {});
  checks.equal('a push about its end', (await other.push('unsubscribe')).unsubscribe.code, 2000);
  checks.equal('refreshed', await cent.refresh({ user: '', client: own.id }), {});
  const { nodes } = await cent.getInfo();
  checks.that('info', nodes.length === 1 && nodes[0].num_clients >= 2 && nodes[0].uid !== '' && nodes[0].uptime >= 0);
  checks.equal('disconnected', await cent.disconnect({ user: '', client: own.id }), {});
  checks.equal('a push about the end', (await own.push('disconnect')).disconnect.code, 3503);
  other.socket.destroy();
}

// The library throws an exception without the code: the answers themselves are looked at elsewhere.
async function errors() {
  const fails = (promise) => promise.then(() => false, ({ constructor }) => constructor.name);
  checks.equal('an unknown namespace', await fails(cent.publish({ channel: 'no:a', data: 1 })), 'CentException');
  checks.equal('no channel', await fails(cent.publish({ channel: '', data: 1 })), 'CentException');
  const since = { offset: 1, epoch: 'zzzz' };
  checks.equal('a foreign position', await fails(cent.getHistory({ channel: 'cent-js', limit: 1, since })), 'CentException');
  const results = await cent.pipeline([{ method: 'publish', params: { channel: 'no:a', data: 1 } }]);
  checks.equal('in a pipeline', results, [null]);
}

for (const check of [publications, clients, errors]) await checks.run(check);
checks.finish();
