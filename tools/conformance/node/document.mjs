// Runs a page of the documents in headless Chromium: document.mjs FILE COUNT prints its first COUNT log lines.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { launch } from './chromium.mjs';

const [file, count] = process.argv.slice(2);
const http = process.env.FANTAIL_HTTP;
const context = await launch();
// Serves the page's remote scripts from the installed packages.
await context.route('https://unpkg.com/**', (route) => {
  const path = new URL(route.request().url()).pathname.replace(/@[\d.]+/, '');
  const body = readFileSync(join(import.meta.dirname, 'node_modules', path));
  return route.fulfill({ body, contentType: 'text/javascript' });
});
const page = await context.newPage();
const logged = [];
page.on('console', async (message) => {
  if (message.type() !== 'log') return console.error(message.text());
  const value = await message.args()[0].jsonValue();
  logged.push(typeof value === 'string' ? value : JSON.stringify(value));
});
page.on('pageerror', (error) => console.error(error));
await page.goto(pathToFileURL(file).href);

async function until(what, holds) {
  for (const end = Date.now() + 10_000; !(await holds()); await new Promise((resolve) => setTimeout(resolve, 20))) {
    if (Date.now() > end) throw new Error(`waited for: ${what}; logged ${logged}`);
  }
}

await until('subscriptions', async () => {
  const metrics = await (await fetch(`http://${http}/metrics`)).text();
  const samples = metrics.matchAll(/^fantail_subscriptions\{.*\} (\d+)$/gm);
  return [...samples].reduce((sum, [, value]) => sum + Number(value), 0) >= Number(count);
});
await fetch(`http://${http}/publish?channel=news`, { method: 'POST', body: '{"n":1}' });
await until('messages', () => logged.length >= Number(count));
console.log(logged.join('\n'));
await context.close();
