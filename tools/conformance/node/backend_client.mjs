// Prints what centrifuge-js gets from the backends of src/callback/README.md.

import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

function client(cookie) {
  class WithCookie extends WebSocket {
    constructor(address, protocols) {
      super(address, protocols, { headers: { ...(cookie && { Cookie: cookie }) } });
    }
  }
  return new Centrifuge(`ws://${process.env.FANTAIL_HTTP}/connection/websocket`, { websocket: WithCookie });
}

// Fulfilled by the first of these events.
const first = (emitter, ...names) =>
  new Promise((resolve) => names.forEach((name) => emitter.once(name, (context) => resolve({ name, ...context }))));

async function failure(promise) {
  try {
    await promise;
  } catch ({ code }) {
    return code;
  }
  return undefined;
}

const stranger = client();
stranger.connect();
console.log('stranger', (await first(stranger, 'connected', 'disconnected')).code);
const [anna, ben] = [client('session=1'), client('session=2')];
anna.connect();
console.log('anna', (await first(anna, 'connected', 'disconnected')).name);
const room = anna.newSubscription('rooms:private');
room.subscribe();
console.log('private', (await first(room, 'subscribed', 'unsubscribed')).name);
ben.connect();
await first(ben, 'connected', 'disconnected');
const gone = first(ben, 'connecting', 'disconnected');
const closed = ben.newSubscription('rooms:private');
closed.subscribe();
console.log('ben', (await first(closed, 'subscribed', 'unsubscribed')).code);
const heard = first(room, 'publication');
await room.publish({ text: 'hello' });
const { text, by } = (await heard).data;
console.log('heard', text, 'by', by);
console.log('no text', await failure(room.publish({})));
console.log('add', (await anna.rpc('add', [1, 2])).data);
console.log('unknown', await failure(anna.rpc('none', [])));
console.log('ben', (await gone).code);
// By now anna was asked about as well.
await new Promise((resolve) => setTimeout(resolve, 3000));
console.log('anna', anna.state === 'connected' ? 'goes on' : 'is gone');
process.exit();
