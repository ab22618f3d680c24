// The page at /, in headless Chromium, as a person uses it: by mouse, by keyboard, on a phone, over a network that is cut.
//
// With PAGE_SCREENSHOT=FILE it also takes the picture that the README shows.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import WebSocket from 'ws';
import { Checks } from './checks.mjs';
import { launch } from './chromium.mjs';
import { Cutter } from './cutter.mjs';

const checks = new Checks('page');
const http = process.env.FANTAIL_HTTP;
const network = await new Cutter(http).listen();
const run = promisify(execFile);

const TRANSPORTS = ['commands', 'websocket', 'sse', 'poll'];
const LABELS = { commands: 'Commands', websocket: 'WebSocket', sse: 'Event stream', poll: 'Long polling' };

const context = await launch({ viewport: { width: 1180, height: 900 } });

async function curl(channel, body, event = '') {
  const query = new URLSearchParams(event ? { channel, event } : { channel });
  const { stdout } = await run('curl', ['-sS', '--fail', '--data-binary', body, `http://${http}/publish?${query}`]);
  return JSON.parse(stdout);
}

// The page, and what its console complains of.
async function open() {
  const page = await context.newPage();
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(error.message));
  page.on('console', (message) => {
    // A connection that is cut is logged by the browser itself.
    const isNetwork = /ERR_|WebSocket connection/.test(message.text());
    if (message.type() === 'error' && !isNetwork) page.complaints.push(message.text());
  });
  await page.goto(`http://${network.address}/`);
  return page;
}

async function subscribe(page, transports, channel) {
  await page.locator('#subscribe [name=channel]').fill(channel);
  for (const transport of transports) {
    await page.locator(`#subscribe [value=${transport}]`).check();
    await page.locator('#subscribe button').click();
  }
  await connected(page, transports.length);
}

async function connected(page, count) {
  await page.waitForFunction(
    (count) => document.querySelectorAll('#subscriptions .good').length === count, count, { timeout: 15_000 },
  );
}

// What a transport's subscription has shown, the oldest first.
async function shown(page, transport, count) {
  const rows = `#messages li[data-transport="${LABELS[transport]}"]`;
  await page.waitForFunction(
    ([rows, count]) => document.querySelectorAll(rows).length >= count, [rows, count], { timeout: 15_000 },
  );
  return page.evaluate(
    (rows) => [...document.querySelectorAll(rows)].reverse().map((row) => row.querySelector('pre').textContent), rows,
  );
}

async function everyTransportShowsWhatCurlPublishes() {
  const page = await open();
  await subscribe(page, TRANSPORTS, 'page1');
  await curl('page1', 'hello <b>from</b> curl');
  await curl('page1', '{"n":1}', 'notification');
  for (const transport of TRANSPORTS) {
    checks.equal(transport, await shown(page, transport, 2), ['hello <b>from</b> curl', '{"n":1}']);
  }
  const meta = await page.locator('#messages li[data-transport="Event stream"] .meta').first().innerText();
  checks.that('position and type are shown', /position 2/.test(meta) && /type notification/.test(meta), meta);
  checks.equal('nothing is complained of', page.complaints, []);
  await page.close();
}

async function aCutConnectionComesBackAndMissesNothing() {
  const page = await open();
  await subscribe(page, TRANSPORTS, 'page2');
  const expected = [];
  const publish = async (count) => {
    for (let number = 0; number < count; number++) {
      expected.push(`message ${expected.length}`);
      await curl('page2', expected.at(-1));
    }
  };
  await publish(3);
  for (const transport of TRANSPORTS) await shown(page, transport, 3);
  // Twice, so that what came after the first cut counts as seen.
  for (const _ of [1, 2]) {
    await network.cut(() => publish(4));
    await connected(page, 4);
    await publish(2);
    for (const transport of ['commands', 'sse', 'poll']) {
      checks.equal(`${transport} misses nothing`, await shown(page, transport, expected.length), expected);
    }
  }
  const plain = await shown(page, 'websocket', 3 + 2 + 2 + 2);
  checks.that('a plain WebSocket comes back', plain.includes(expected.at(-1)), plain);
  checks.equal('and says that it cannot know', plain.filter((text) => /plain WebSockets have no positions/.test(text)).length, 2);
  await page.waitForFunction(() => /up for/.test(document.getElementById('server').textContent), null, { timeout: 10_000 });
  checks.equal('nothing is complained of', page.complaints, []);
  await page.close();
}

async function whatIsNotKeptIsSaid() {
  const page = await open();
  await subscribe(page, ['commands', 'sse', 'poll'], 'page3');
  await curl('page3', 'first');
  for (const transport of ['commands', 'sse', 'poll']) await shown(page, transport, 1);
  await network.cut(async () => {
    await curl('page3', 'lost');
    const body = JSON.stringify({ channel: 'page3' });
    await run('curl', ['-sS', '--fail', '--data-binary', body, `http://${http}/api/history_remove`]);
  });
  await connected(page, 3);
  await curl('page3', 'last');
  for (const transport of ['commands', 'sse', 'poll']) {
    const texts = await shown(page, transport, 3);
    checks.equal(`${transport} goes on`, [texts[0], texts.at(-1)], ['first', 'last']);
    checks.that(`${transport} tells of the gap`, /not kept any more/.test(texts[1]), texts);
  }
  await page.close();
}

async function countersMove() {
  const page = await open();
  const number = async (id) => Number((await page.locator(id).innerText()).replaceAll(/[^0-9]/g, ''));
  await page.waitForFunction(() => /[0-9]/.test(document.getElementById('connections').textContent), null, { timeout: 10_000 });
  const before = await number('#connections');
  await subscribe(page, ['commands', 'websocket'], 'page4');
  await page.waitForFunction(
    (before) => Number(document.getElementById('connections').textContent.replaceAll(',', '')) >= before + 2,
    before, { timeout: 10_000 },
  );
  checks.that('kinds are told apart', /commands websocket 1/.test(await page.locator('#kinds').innerText()));
  const busy = setInterval(() => fetch(`http://${http}/publish?channel=page4`, { method: 'POST', body: 'x' }), 20);
  await page.waitForFunction(
    () => Number(document.getElementById('deliveries').textContent.replaceAll(',', '')) >= 40, null, { timeout: 10_000 },
  );
  clearInterval(busy);
  checks.that('lag is told', /≤ [0-9.]+ (µs|ms)/.test(await page.locator('#lag').innerText()));
  checks.that('memory is told', /[0-9] (B|KiB|MiB)/.test(await page.locator('#memory').innerText()));
  const drawn = await page.evaluate(() => [...document.querySelectorAll('svg')].map((svg) => /M.*L/.test(svg.innerHTML)));
  checks.equal('charts are drawn', drawn, [true, true, true, true]);
  const metrics = await (await fetch(`http://${http}/metrics`)).text();
  const workers = metrics.match(/^fantail_turns_total/gm).length;
  checks.equal('a row for each worker', await page.locator('#rows tr').count(), workers);
  checks.equal('nothing is complained of', page.complaints, []);
  await page.close();
}

async function everythingIsReachedByKeyboard() {
  const page = await open();
  const reached = async (what, isThere) => {
    for (let presses = 0; presses < 25; presses++) {
      await page.keyboard.press('Tab');
      const found = await page.evaluate(isThere);
      const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
      if (found) return checks.that(`${what} shows its focus`, ring === 'solid', ring);
    }
    checks.that(`${what} is reached by Tab`, false);
  };
  await reached('the transport', () => document.activeElement.name === 'transport');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowDown');
  checks.equal('arrows choose', await page.evaluate(() => document.activeElement.value), 'sse');
  await reached('the channel', () => document.activeElement.closest('#subscribe') && document.activeElement.name === 'channel');
  await page.keyboard.type('page5');
  await page.keyboard.press('Enter');
  await connected(page, 1);
  await reached('Unsubscribe', () => document.activeElement.textContent === 'Unsubscribe');
  await reached('the channel', () => document.activeElement.closest('#publish') && document.activeElement.name === 'channel');
  await page.keyboard.type('page5');
  await reached('the message', () => document.activeElement.name === 'message');
  await page.keyboard.type('typed');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('in two lines');
  await page.keyboard.press('Enter');
  checks.equal('Enter publishes', await shown(page, 'sse', 1), ['typed\nin two lines']);
  checks.that('and says so', /published to page5/.test(await page.locator('#publish-status').innerText()));
  await reached('Clear', () => document.activeElement.textContent === 'Clear');
  await page.keyboard.press('Enter');
  await reached('the messages', () => document.activeElement.id === 'messages');
  checks.equal('they are cleared', await page.locator('#messages li.empty').count(), 1);
  await page.keyboard.press('Shift+Tab');
  await page.locator('#subscriptions button').focus();
  await page.keyboard.press('Enter');
  checks.equal('it is unsubscribed', await page.locator('#subscriptions li').count(), 0);
  checks.equal('focus stays in reach', await page.evaluate(() => document.activeElement.name), 'channel');
  const nameless = await page.evaluate(() =>
    [...document.querySelectorAll('input, select, textarea, button')]
      .filter((control) => !control.labels?.[0]?.textContent.trim() && !control.textContent.trim())
      .map((control) => control.outerHTML));
  checks.equal('every control has a name', nameless, []);
  await page.close();
}

async function refusalsAreSaid() {
  const page = await open();
  for (const transport of TRANSPORTS) {
    await page.locator('#subscribe [name=channel]').fill('nowhere:a');
    await page.locator(`#subscribe [value=${transport}]`).check();
    await page.locator('#subscribe button').click();
  }
  await page.waitForFunction(() => document.querySelectorAll('#subscriptions .bad').length === 4, null, { timeout: 10_000 });
  await page.locator('#publish [name=channel]').fill('fantail:statistics');
  await page.locator('#publish textarea').fill('forged');
  await page.locator('#publish button').click();
  await page.waitForFunction(() => /not published/.test(document.getElementById('publish-status').textContent));
  await page.locator('#publish select').selectOption('json');
  await page.locator('#publish textarea').fill('{');
  await page.locator('#publish button').click();
  await page.waitForFunction(() => /no JSON/.test(document.getElementById('publish-status').textContent));
  await page.close();
}

async function itFitsAPhone() {
  const page = await open();
  await page.setViewportSize({ width: 375, height: 667 });
  await subscribe(page, TRANSPORTS, 'page6');
  await curl('page6', `{"long":"${'x'.repeat(300)}"}`, 'a-type-of-event-that-has-a-rather-long-name-for-a-small-screen');
  for (const transport of TRANSPORTS) await shown(page, transport, 1);
  await page.waitForFunction(() => document.querySelectorAll('#rows tr').length > 0, null, { timeout: 10_000 });
  const [wide, high] = await page.evaluate(() => {
    const controls = [...document.querySelectorAll('button, select, textarea, .choice, input:not([type=radio])')];
    return [document.documentElement.scrollWidth, Math.min(...controls.map((control) => control.offsetHeight))];
  });
  checks.equal('nothing is wider than the screen', wide, 375);
  checks.that('fingers find the controls', high >= 44, high);
  await page.close();
}

async function takePicture(path) {
  const page = await open();
  const publish = (n) => fetch(`http://${http}/publish?channel=prices${n % 2 ? '&event=trade' : ''}`, {
    method: 'POST', body: JSON.stringify({ symbol: ['FNT', 'KEA', 'TUI'][n % 3], price: 40 + Math.round(100 * Math.sin(n / 9)) / 50 }),
  });
  await subscribe(page, TRANSPORTS, 'prices');
  const others = Array.from({ length: 120 }, () => new WebSocket(`ws://${http}/ws?channel=prices`));
  await page.locator('#publish [name=channel]').fill('prices');
  await page.locator('#publish textarea').fill('{"symbol": "FNT", "price": 41.2}');
  for (let n = 0; n < 460; n++) {
    await publish(n);
    if (n === 200) others.splice(0, 40).forEach((socket) => socket.close());
    await new Promise((resolve) => setTimeout(resolve, 60 + 50 * Math.sin(n / 40)));
  }
  await page.screenshot({ path, fullPage: true });
  others.forEach((socket) => socket.close());
  await page.close();
}

if (process.env.PAGE_SCREENSHOT) await takePicture(process.env.PAGE_SCREENSHOT);
for (const check of [
  everyTransportShowsWhatCurlPublishes, aCutConnectionComesBackAndMissesNothing, whatIsNotKeptIsSaid, countersMove,
  everythingIsReachedByKeyboard, refusalsAreSaid, itFitsAPhone,
]) {
  await checks.run(check);
}
await context.close();
network.close();
checks.finish();
