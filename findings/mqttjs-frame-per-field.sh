#!/usr/bin/env bash
# MQTT.js over WebSocket sends the fields of one packet in a frame each.
#
# mqtt 5.16.0 (npm), compared with paho-mqtt 2.2.0 (PyPI). MQTT 5.0 and 3.1.1, section 6: a receiver must not assume that
# packets are aligned on frames. The server here accepts an upgrade with the subprotocol `mqtt`, and prints the binary
# messages that come before it has sent anything.
#
# Expected: CONNECT in one message, as paho sends it, since a frame costs a header and, with permessage-deflate, a
# compression of its own.
# Observed: MQTT.js sends CONNECT with a client id in nine messages of 1 to 4 bytes: type, length, length of the
# protocol's name, name, version, flags, keepalive, length of the id, id. A broker that takes one message for one packet
# works with paho and refuses every MQTT.js client; a limit of messages per second counts nine for one connect.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true}' >package.json
npm install --silent --no-audit --no-fund mqtt@5.16.0 ws@8.18.3
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check paho-mqtt==2.2.0
cat >client.py <<'PY'
import sys
import paho.mqtt.client as mqtt

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="cid", transport="websockets")
client.connect("127.0.0.1", int(sys.argv[1]), 60)
client.loop_start()
sys.stdin.read()
PY
cat >check.mjs <<'JS'
import { spawn } from 'node:child_process';
import mqtt from 'mqtt';
import { WebSocketServer } from 'ws';

// The messages that a client sends within two seconds of the upgrade.
async function messagesOf(start) {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: () => 'mqtt' });
  await new Promise((resolve) => server.on('listening', resolve));
  const messages = [];
  server.on('connection', (socket) => socket.on('message', (data) => messages.push(data.toString('hex'))));
  const stop = start(server.address().port);
  await new Promise((resolve) => setTimeout(resolve, 2000));
  stop();
  server.close();
  return messages;
}

const mqttjs = await messagesOf((port) => {
  const client = mqtt.connect(`ws://127.0.0.1:${port}/mqtt`, { clientId: 'cid', reconnectPeriod: 0 });
  client.on('error', () => {});
  return () => client.end(true);
});
const paho = await messagesOf((port) => {
  const child = spawn('venv/bin/python', ['client.py', port], { stdio: ['pipe', 'ignore', 'inherit'] });
  return () => child.kill();
});
console.log(`MQTT.js: ${mqttjs.join(' | ')}`);
console.log(`paho: ${paho.join(' | ')}`);
const asSeen = mqttjs.length === 9 && paho.length === 1 && mqttjs.join('') === '100f00044d5154540402003c0003636964';
process.exit(asSeen ? 0 : 1);
JS
timeout 60 node check.mjs
