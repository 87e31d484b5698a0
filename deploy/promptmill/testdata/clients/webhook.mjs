// Verifies events: webhook.mjs SECRET, with a list of their headers and bodies as JSON on standard input.
import assert from 'node:assert/strict';
import { text } from 'node:stream/consumers';
import OpenAI from 'openai';

const client = new OpenAI({ webhookSecret: process.argv[2] });
for (const event of JSON.parse(await text(process.stdin))) {
  const unwrapped = await client.webhooks.unwrap(event.body, event.headers);
  assert.equal(unwrapped.object, 'event');
  assert(unwrapped.id && unwrapped.created_at);
  console.log(unwrapped.type, unwrapped.data.id);
  await assert.rejects(client.webhooks.unwrap(event.body + ' ', event.headers), OpenAI.InvalidWebhookSignatureError);
}
