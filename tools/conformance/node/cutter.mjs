// A network between a client and the server that can be cut or stalled.

import net from 'node:net';
import { once } from 'node:events';

export class Cutter {
  // `target` may be changed later.
  constructor(target) {
    this.target = target;
    this.sockets = new Set();
    this.refuses = false;
    this.server = net.createServer((near) => {
      if (this.refuses) return near.destroy();
      const [host, port] = this.target.split(':');
      const far = net.connect(Number(port), host);
      for (const [socket, other] of [[near, far], [far, near]]) {
        this.sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => {
          this.sockets.delete(socket);
          other.destroy();
        });
        socket.pipe(other);
      }
    });
  }

  async listen() {
    this.server.listen(0, '127.0.0.1');
    await once(this.server, 'listening');
    this.address = `127.0.0.1:${this.server.address().port}`;
    return this;
  }

  // Closes all connections, and refuses new ones while `meanwhile` runs.
  async cut(meanwhile) {
    this.refuses = true;
    for (const socket of this.sockets) socket.destroy();
    await meanwhile();
    this.refuses = false;
  }

  // Forwards no data while `meanwhile` runs, and keeps all connections.
  async hold(meanwhile) {
    const held = [...this.sockets];
    for (const socket of held) socket.pause();
    await meanwhile();
    for (const socket of held) socket.resume();
  }

  close() {
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
  }
}
