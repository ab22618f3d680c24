// A WebSocket over HTTP/2 (RFC 8441), without TLS: websocket_h2.mjs ADDRESS PATH. Prints whether the server offers it, the
// status of the response, and the first message or the body.

import { once } from 'node:events';
import { connect } from 'node:http2';

const [address, path] = process.argv.slice(2);
const session = connect(`http://${address}`);
const [{ enableConnectProtocol }] = await once(session, 'remoteSettings');
console.log(enableConnectProtocol ? 'offered' : 'not offered');
if (!enableConnectProtocol) process.exit();
const stream = session.request({
  ':method': 'CONNECT',
  ':protocol': 'websocket',
  ':scheme': 'http',
  ':path': path,
  'sec-websocket-version': '13',
});
const [headers] = await once(stream, 'response');
console.log(headers[':status']);
let received = Buffer.alloc(0);
for await (const part of stream) {
  received = Buffer.concat([received, part]);
  // A short text message has a header of two bytes.
  if (headers[':status'] === 200 && received.length >= 2 && received.length >= 2 + received[1]) break;
}
console.log(String(headers[':status'] === 200 ? received.subarray(2, 2 + received[1]) : received));
process.exit();
