#!/usr/bin/env bash
# MQTT.js reports the server's DISCONNECT, and goes on using the connection as if it were connected.
#
# mqtt 5.16.0 (npm). MQTT 5.0, section 3.14.4: after DISCONNECT the sender sends nothing more, and the receiver closes the
# connection if it is still open. The server here accepts the client, sends DISCONNECT with reason 0x9c (use another
# server) and leaves the socket open, as a server does that waits for its peer to close first. It answers pings.
#
# Expected: the client closes the socket and connects again after reconnectPeriod.
# Observed: `disconnect` is raised, `connected` stays true, publications are written to the old connection and reported as
# sent, and pings go on for as long as they are answered. It connects again only when the server closes the socket. A
# server that drains must not wait for these clients.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true}' >package.json
npm install --silent --no-audit --no-fund mqtt@5.16.0
cat >check.mjs <<'JS'
import { createServer } from 'node:net';
import mqtt from 'mqtt';

const CONNACK = Buffer.from('2003000000', 'hex');
const DISCONNECT = Buffer.from('e0019c', 'hex');
const PINGRESP = Buffer.from('d000', 'hex');
let connections = 0, pings = 0, publications = 0, isTold = false, socketOfServer;
const server = createServer((socket) => {
  connections += 1;
  socketOfServer = socket;
  socket.on('error', () => {});
  socket.write(CONNACK);
  setTimeout(() => { socket.write(DISCONNECT); isTold = true; }, 300);
  socket.on('data', (data) => {
    // The client writes one packet at a time here.
    if (data[0] === 0xc0) { pings += isTold ? 1 : 0; socket.write(PINGRESP); }
    if (data[0] >> 4 === 3) publications += isTold ? 1 : 0;
  });
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const options = { clientId: 'cid', protocolVersion: 5, keepalive: 1, reconnectPeriod: 200 };
const client = mqtt.connect(`mqtt://127.0.0.1:${server.address().port}`, options);
const events = [];
for (const name of ['connect', 'disconnect', 'close', 'reconnect']) client.on(name, () => events.push(name));
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
await sleep(2000);
await new Promise((resolve) => client.publish('a', 'b', { qos: 0 }, resolve));
await sleep(3000);
const before = `${events.join(' ')}, connected ${client.connected}`;
const seen = { connections, pings, publications };
console.log(`5 s after DISCONNECT: ${before}, connections ${connections}, pings after it ${pings}, publications after it ${publications}`);
socketOfServer.destroy();
await sleep(1000);
console.log(`after the server closed the socket: connections ${connections}`);
client.end(true);
server.close();
const asSeen = before === 'connect disconnect, connected true' && seen.connections === 1
  && seen.pings >= 2 && seen.publications === 1 && connections === 2;
process.exit(asSeen ? 0 : 1);
JS
timeout 60 node check.mjs
