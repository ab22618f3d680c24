// The page at / in headless Chromium: by mouse, by keyboard, on a phone, over a network that is cut.
//
// With PAGE_SCREENSHOT=FILE it also takes the screenshot of the README.

import { execFile } from 'node:child_process';
import { createServer, request as httpRequest } from 'node:http';
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

// Opens the page and collects the errors of its console.
async function open(address = `http://${network.address}/`) {
  const page = await context.newPage();
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(error.message));
  page.on('console', (message) => {
    // The browser itself logs cut connections.
    const isNetwork = /ERR_|WebSocket connection/.test(message.text());
    if (message.type() === 'error' && !isNetwork) page.complaints.push(message.text());
  });
  await page.goto(address);
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

// Messages of a transport's subscription, oldest first.
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
  checks.that('position and event type are shown', /position 2/.test(meta) && /type notification/.test(meta), meta);
  checks.equal('the console has no errors', page.complaints, []);
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
  // Twice, so that messages after the first cut count as received.
  for (const _ of [1, 2]) {
    await network.cut(() => publish(4));
    await connected(page, 4);
    await publish(2);
    for (const transport of ['commands', 'sse', 'poll']) {
      checks.equal(`${transport} misses nothing`, await shown(page, transport, expected.length), expected);
    }
  }
  const plain = await shown(page, 'websocket', 3 + 2 + 2 + 2);
  checks.that('a plain WebSocket reconnects', plain.includes(expected.at(-1)), plain);
  checks.equal('and reports that messages may be lost', plain.filter((text) => /plain WebSockets have no positions/.test(text)).length, 2);
  await page.waitForFunction(() => /up for/.test(document.getElementById('server').textContent), null, { timeout: 10_000 });
  checks.equal('the console has no errors', page.complaints, []);
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
    checks.equal(`${transport} continues`, [texts[0], texts.at(-1)], ['first', 'last']);
    checks.that(`${transport} reports the gap`, /not kept any more/.test(texts[1]), texts);
  }
  await page.close();
}

// Payloads are bytes: JSON keeps its numbers, its order and its duplicates (RFC 8259 4 and 6), a string is shown as
// text.
async function payloadsAreShownAsTheyWereSent() {
  const page = await open();
  await subscribe(page, TRANSPORTS, 'page7');
  const payloads = ['12345678901234567890', '1.0', '1e400', '{"b": [1, {"c": "}]\\\\"}], "a":2,"b":3}', '"\\ud800"', '"a \\u00e9"', ''];
  for (const payload of payloads) await curl('page7', payload);
  await fetch(`http://${http}/publish?channel=page7`, {
    method: 'POST', headers: { 'Content-Type': 'application/octet-stream' }, body: new Uint8Array([255, 0]),
  });
  const expected = [...payloads.slice(0, 5), 'a é', '', '/wA='];
  for (const transport of TRANSPORTS) {
    checks.equal(transport, await shown(page, transport, expected.length), expected);
  }
  // Recovered messages use another code path.
  await network.cut(() => curl('page7', '[1.0, 1e400]'));
  await connected(page, 4);
  for (const transport of ['commands', 'sse', 'poll']) {
    checks.equal(`${transport}, recovered`, (await shown(page, transport, expected.length + 1)).at(-1), '[1.0, 1e400]');
  }
  checks.equal('the console has no errors', page.complaints, []);
  await page.close();
}

async function aServerThatStandsStillIsSaid() {
  const page = await open();
  const says = (words) => page.waitForFunction(
    (words) => document.getElementById('server').textContent.includes(words), words, { timeout: 15_000 },
  );
  const isDimmed = () => page.evaluate(() => document.getElementById('tiles').classList.contains('old'));
  await says('up for');
  checks.equal('current numbers are bright', await isDimmed(), false);
  await network.hold(async () => {
    await says('no statistics received from the server for');
    checks.equal('old numbers are dim', await isDimmed(), true);
  });
  await says('up for');
  checks.equal('new numbers are bright again', await isDimmed(), false);
  await page.close();
}

// A proxy that serves everything below a path.
async function belowAPath(path) {
  const [host, port] = http.split(':');
  const target = (request) => ({ host, port, path: request.url.slice(path.length), method: request.method, headers: request.headers });
  const proxy = createServer((request, response) => {
    const forwarded = httpRequest(target(request), (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
      answer.on('error', () => response.destroy());
    });
    forwarded.on('error', () => response.destroy());
    response.on('close', () => forwarded.destroy());
    request.pipe(forwarded);
  });
  proxy.on('upgrade', (request, near) => {
    const forwarded = httpRequest(target(request));
    forwarded.on('upgrade', (answer, far) => {
      const lines = Object.entries(answer.headers).map(([name, value]) => `${name}: ${value}\r\n`);
      near.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('')}\r\n`);
      near.pipe(far).pipe(near);
      for (const socket of [near, far]) socket.on('error', () => {});
    });
    forwarded.on('error', () => near.destroy());
    forwarded.end();
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return { address: `127.0.0.1:${proxy.address().port}${path}`, close: () => proxy.closeAllConnections() ?? proxy.close() };
}

async function itWorksBelowAPath() {
  const proxy = await belowAPath('/some/where');
  const page = await open(`http://${proxy.address}/`);
  await subscribe(page, TRANSPORTS, 'page8');
  await page.locator('#publish [name=channel]').fill('page8');
  await page.locator('#publish textarea').fill('from below');
  await page.locator('#publish button').click();
  for (const transport of TRANSPORTS) checks.equal(transport, await shown(page, transport, 1), ['from below']);
  await page.waitForFunction(() => /up for/.test(document.getElementById('server').textContent), null, { timeout: 10_000 });
  checks.equal('the console has no errors', page.complaints, []);
  await page.close();
  proxy.close();
}

// WCAG 2.2, 1.4.3: a contrast of text to its background of 4.5 to 1.
async function textStandsOut() {
  for (const colorScheme of ['light', 'dark']) {
    const page = await open();
    await page.emulateMedia({ colorScheme });
    await subscribe(page, TRANSPORTS, 'page9');
    await curl('page9', 'text');
    for (const transport of TRANSPORTS) await shown(page, transport, 1);
    await page.waitForFunction(() => /up for/.test(document.getElementById('server').textContent), null, { timeout: 10_000 });
    const faint = await page.evaluate(() => {
      const parts = (color) => color.match(/[0-9.]+/g).map(Number);
      const luminance = (color) => {
        const [r, g, b] = parts(color).map((part) => (part /= 255) <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const behind = (element) => {
        const color = getComputedStyle(element).backgroundColor;
        return parts(color)[3] === 0 ? behind(element.parentElement) : color;
      };
      return [...document.querySelectorAll('body *')]
        .filter((element) => element.checkVisibility() && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
        .filter((element) => !element.closest('script, svg'))
        .map((element) => {
          const [dark, light] = [getComputedStyle(element).color, behind(element)].map(luminance).sort((a, b) => a - b);
          return [((light + 0.05) / (dark + 0.05)).toFixed(2), element.textContent.trim().slice(0, 30)];
        })
        .filter(([contrast]) => contrast < 4.5);
    });
    checks.equal(`text has enough contrast, ${colorScheme}`, faint, []);
    await page.close();
  }
}

async function rolesAndNamesTellThingsApart() {
  const page = await open();
  const found = await page.evaluate(() => ({
    log: document.querySelector('[role=log]').tagName,
    items: document.querySelector('#messages').getAttribute('role'),
    names: [...document.querySelectorAll('section, [role=region], [role=log], [role=group]')].map((region) =>
      region.getAttribute('aria-label') ?? document.getElementById(region.getAttribute('aria-labelledby')).textContent),
  }));
  checks.equal('a list in a log', [found.log, found.items], ['DIV', null]);
  checks.equal('each region has a unique name', new Set(found.names).size, found.names.length);
  await page.close();
}

async function aLagIsANumberOfFewDigits() {
  const page = await open();
  const lags = await page.evaluate(() => [16, 1024, 65_536, 131_072, 262_144, 1_048_576, 8_388_608, Infinity, undefined].map(micros));
  checks.equal('lags', lags, ['≤ 16 µs', '≤ 1.0 ms', '≤ 66 ms', '≤ 131 ms', '≤ 262 ms', '≤ 1.0 s', '≤ 8.4 s', '> 8 s', '–']);
  await page.close();
}

async function countersMove() {
  const page = await open();
  await subscribe(page, ['commands', 'websocket'], 'page4');
  // Connections of the previous page may still be counted.
  await page.waitForFunction(() => {
    const kinds = document.getElementById('kinds').textContent;
    const all = Number(document.getElementById('connections').textContent.replaceAll(',', ''));
    return all >= 3 && /commands websocket 1/.test(kinds) && /^(?:(?!commands).)*websocket 1/.test(kinds);
  }, null, { timeout: 10_000 });
  const busy = setInterval(() => fetch(`http://${http}/publish?channel=page4`, { method: 'POST', body: 'x' }), 20);
  await page.waitForFunction(
    () => Number(document.getElementById('deliveries').textContent.replaceAll(',', '')) >= 40, null, { timeout: 10_000 },
  );
  clearInterval(busy);
  checks.that('lag is shown', /≤ [0-9.]+ (µs|ms)/.test(await page.locator('#lag').innerText()));
  checks.that('memory is shown', /[0-9] (B|KiB|MiB)/.test(await page.locator('#memory').innerText()));
  const drawn = await page.evaluate(() => [...document.querySelectorAll('svg')].map((svg) => /M.*L/.test(svg.innerHTML)));
  checks.equal('charts are drawn', drawn, [true, true, true, true]);
  const metrics = await (await fetch(`http://${http}/metrics`)).text();
  const workers = metrics.match(/^fantail_turns_total/gm).length;
  checks.equal('a row for each worker', await page.locator('#rows tr').count(), workers);
  checks.equal('the console has no errors', page.complaints, []);
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
  checks.equal('arrow keys select', await page.evaluate(() => document.activeElement.value), 'sse');
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
  checks.that('and shows a confirmation', /published to page5/.test(await page.locator('#publish-status').innerText()));
  checks.equal('the field is empty', await page.locator('#publish textarea').inputValue(), '');
  await page.keyboard.press('Enter');
  await page.keyboard.type('again');
  await page.keyboard.press('Enter');
  checks.equal('another Enter publishes nothing', await shown(page, 'sse', 2), ['typed\nin two lines', 'again']);
  await reached('Clear', () => document.activeElement.textContent === 'Clear');
  await page.keyboard.press('Enter');
  await reached('the messages', () => document.activeElement.id === 'log');
  checks.equal('they are cleared', await page.locator('#messages li.empty').count(), 1);
  await page.keyboard.press('Shift+Tab');
  await page.locator('#subscriptions button').focus();
  await page.keyboard.press('Enter');
  checks.equal('the subscription is removed', await page.locator('#subscriptions li').count(), 0);
  checks.equal('focus moves to a nearby control', await page.evaluate(() => document.activeElement.name), 'channel');
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
  const refused = await page.locator('#subscriptions .bad').allInnerTexts();
  checks.that('the error is shown', refused.every((text) => /^refused: [a-z' ]*(channel|namespace)/.test(text)), refused.join('; '));
  await page.locator('#publish [name=channel]').fill('fantail:statistics');
  await page.locator('#publish textarea').fill('forged');
  await page.locator('#publish button').click();
  await page.waitForFunction(() => /not published/.test(document.getElementById('publish-status').textContent));
  await page.locator('#publish select').selectOption('json');
  await page.locator('#publish textarea').fill('{');
  await page.locator('#publish button').click();
  await page.waitForFunction(() => /invalid JSON/.test(document.getElementById('publish-status').textContent));
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
  checks.that('controls are large enough for touch', high >= 44, high);
  const below = await page.evaluate(() => {
    const [field, first] = ['#publish textarea', '#messages li'].map((name) => document.querySelector(name).getBoundingClientRect());
    return Math.round(first.top - field.top);
  });
  checks.that('the newest message is visible with its field', below < 667 / 2, below);
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
  everythingIsReachedByKeyboard, refusalsAreSaid, itFitsAPhone, payloadsAreShownAsTheyWereSent, aServerThatStandsStillIsSaid,
  itWorksBelowAPath, textStandsOut, rolesAndNamesTellThingsApart, aLagIsANumberOfFewDigits,
]) {
  await checks.run(check);
}
await context.close();
network.close();
checks.finish();
