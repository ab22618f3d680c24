// The WebSocket of headless Chromium: a chat in two tabs, echo, close codes.

import { Checks } from './checks.mjs';
import { launch } from './chromium.mjs';

const checks = new Checks('browser');
const http = process.env.FANTAIL_HTTP;
const echo = `ws://${process.env.FANTAIL_ECHO}`;

const context = await launch();

// A tab of the server's own origin with a tutorial's client, which collects its messages in a list.
async function tab(url) {
  const page = await context.newPage();
  await page.goto(`http://${http}/health/live`);
  await page.evaluate(
    (url) =>
      new Promise((resolve, reject) => {
        globalThis.messages = [];
        globalThis.socket = new WebSocket(url);
        socket.binaryType = 'arraybuffer';
        socket.onmessage = ({ data }) =>
          messages.push(typeof data === 'string' ? data : Array.from(new Uint8Array(data)));
        socket.onopen = () => resolve();
        socket.onerror = () => reject(new Error(`cannot open ${url}`));
        globalThis.ended = new Promise((resolve) => {
          socket.onclose = ({ code, reason, wasClean }) => resolve({ code, reason, wasClean });
        });
      }),
    url,
  );
  return page;
}

async function heard(page, count) {
  await page.waitForFunction((count) => messages.length >= count, count, { timeout: 10_000 });
  return page.evaluate(() => messages);
}

async function twoTabsAreAChat() {
  const [anna, ben] = [await tab(`ws://${http}`), await tab(`ws://${http}`)];
  await anna.evaluate(() => socket.send('hello from a tab'));
  checks.equal('the other tab receives it', await heard(ben, 1), ['hello from a tab']);
  await ben.evaluate(() => socket.send(new Uint8Array([0, 255])));
  checks.equal('text and binary, in order', await heard(anna, 2), ['hello from a tab', [0, 255]]);
  await anna.close();
  await ben.evaluate(() => socket.send('still here'));
  checks.equal('a closed tab does not affect others', (await heard(ben, 3)).at(-1), 'still here');
  await ben.close();
}

// A browser fails the connection if it offered subprotocols and none is selected.
async function subprotocols() {
  const page = await tab(`ws://${http}`);
  const chosen = (url, offered) =>
    page.evaluate(
      ([url, offered]) =>
        new Promise((resolve) => {
          const socket = new WebSocket(url, offered);
          socket.onopen = () => resolve(socket.protocol);
          socket.onerror = () => resolve('refused');
        }),
      [url, offered],
    );
  checks.equal('none', await chosen(`ws://${http}/ws`, []), '');
  checks.equal('the first', await chosen(`ws://${http}/ws`, ['chat', 'superchat']), 'chat');
  checks.equal('on echo', await chosen(echo, ['chat']), 'chat');
  const commands = `ws://${http}/connection/websocket`;
  checks.equal('commands', await chosen(commands, ['centrifuge-protobuf', 'centrifuge-json']), 'centrifuge-protobuf');
  checks.equal('an unsupported subprotocol', await chosen(commands, ['centrifuge-other']), 'refused');
  await page.close();
}

async function fetchPublishes() {
  const page = await tab(`ws://${http}/ws?channel=browser`);
  const status = await page.evaluate(async () => {
    const response = await fetch('/publish?channel=browser', { method: 'POST', body: 'fetched' });
    return response.status;
  });
  checks.equal('status', status, 200);
  checks.equal('the body arrives', await heard(page, 1), ['fetched']);
  await page.close();
}

async function echoesAndCloses() {
  const page = await tab(echo);
  await page.evaluate(() => socket.send('x'.repeat(1_000_000)));
  checks.equal('a megabyte is echoed', (await heard(page, 1))[0].length, 1_000_000);
  const end = await page.evaluate(() => (socket.close(4000, 'bye'), ended));
  checks.equal('the close is answered', [end.code, end.wasClean], [4000, true]);
  await page.close();
}

async function tooBigIsTold() {
  const page = await tab(`ws://${http}/ws?channel=big`);
  const end = await page.evaluate(() => (socket.send('x'.repeat(2 << 20)), ended));
  checks.equal('the page gets the close code', end.code, 1009);
  await page.close();
}

for (const check of [twoTabsAreAChat, subprotocols, fetchPublishes, echoesAndCloses, tooBigIsTold]) {
  await checks.run(check);
}
await context.close();
checks.finish();
