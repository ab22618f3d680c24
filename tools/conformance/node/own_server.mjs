// A private server for a case, with its own options, that can be stopped and restarted.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const { CONFORMANCE_WORK, CONFORMANCE_DRIVER, FANTAIL_SERVER } = process.env;

export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  return port;
}

export class OwnServer {
  // `settings` is the text of a settings file.
  constructor(name, options = [], settings = '') {
    this.name = `${CONFORMANCE_WORK}/logs/${CONFORMANCE_DRIVER}-${name}-server`;
    this.options = options;
    writeFileSync(`${this.name}.toml`, settings);
  }

  async start() {
    this.http ??= `127.0.0.1:${await freePort()}`;
    const log = openSync(`${this.name}.log`, 'a');
    const words = ['--driver', CONFORMANCE_DRIVER, '--config', `${this.name}.toml`, '--listen', this.http];
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('FANTAIL_')));
    this.process = spawn(FANTAIL_SERVER, ['serve', ...words, ...this.options], { env, stdio: ['ignore', log, log] });
    this.ended = once(this.process, 'exit');
    for (let turn = 0; turn < 100; turn += 1) {
      const answer = await fetch(`http://${this.http}/health/live`).catch(() => ({}));
      if (answer.status === 200) return this;
      await sleep(50);
    }
    throw new Error(`the server did not start, see ${this.name}.log`);
  }

  async stop(signal = 'SIGTERM') {
    this.process.kill(signal);
    await this.ended;
    // After a process that used io_uring is killed, its listeners accept connections for a short time.
    const [host, port] = this.http.split(':');
    const isOpen = () =>
      new Promise((resolve) => {
        const socket = net.connect(Number(port), host);
        socket.on('error', ({ code }) => resolve(code !== 'ECONNREFUSED'));
        socket.on('connect', () => {
          socket.destroy();
          resolve(true);
        });
      });
    while (await isOpen()) await sleep(5);
  }

  // Bytes are sent without a media type; a string would be sent as text/plain and stay text.
  async post(path, body) {
    const response = await fetch(`http://${this.http}${path}`, { method: 'POST', body: Buffer.from(body) });
    return response.json();
  }
}
