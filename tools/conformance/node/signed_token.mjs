// Makes tokens of clients, signed with a secret.

import { createHmac } from 'node:crypto';

export const now = () => Math.floor(Date.now() / 1000);
export const base64 = (object) => Buffer.from(JSON.stringify(object)).toString('base64url');

export function signedToken(claims, secret) {
  const signed = `${base64({ alg: 'HS256', typ: 'JWT' })}.${base64(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}
