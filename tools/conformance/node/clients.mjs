// Clients of JavaScript libraries for event streams, for libraries.py.
//
//   clients.mjs eventsource|fetch-event-source URL
//
// Prints each event as its type, a blank, and its data.

import { EventSource } from 'eventsource';
import { fetchEventSource } from '@microsoft/fetch-event-source';

const [library, url] = process.argv.slice(2);
const print = (kind, text) => console.log(kind || 'message', text);

if (library === 'eventsource') {
  const source = new EventSource(url);
  for (const kind of ['message', 'gap']) source.addEventListener(kind, ({ data }) => print(kind, data));
  source.onerror = ({ code }) => {
    if (source.readyState === EventSource.CLOSED) print('error', `closed by ${code}`);
  };
} else if (library === 'fetch-event-source') {
  // The library is for browsers, but needs only these globals.
  globalThis.window = globalThis;
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
  // As in tutorials: each message is JSON, and errors of its fetch are retried.
  await fetchEventSource(url, {
    onmessage({ event, data }) {
      try {
        JSON.parse(data);
      } catch (error) {
        print('error', error.message);
      }
      print(event, data);
    },
  });
  print('error', 'ended');
}
