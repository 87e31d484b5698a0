// Runs batches through OpenAI's SDK for Node.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import OpenAI, { toFile } from 'openai';

const client = new OpenAI();
const ended = ['completed', 'failed', 'expired', 'cancelled'];

function chats(count, model = 'fast') {
  return Array.from({ length: count }, (_, i) => JSON.stringify({
    custom_id: `request-${i}`,
    method: 'POST',
    url: '/v1/chat/completions',
    body: { model, messages: [{ role: 'user', content: 'hello' }] },
  }) + '\n').join('');
}

async function awaitEnd(id) {
  for (const deadline = Date.now() + 60_000; ;) {
    const batch = await client.batches.retrieve(id);
    if (ended.includes(batch.status)) return batch;
    assert(Date.now() < deadline, `not within 60 s: ${JSON.stringify(batch)}`);
    await pause(50);
  }
}

function parse(text) {
  const lines = new Map();
  for (const line of text.trimEnd().split('\n').map((l) => JSON.parse(l))) {
    assert(!lines.has(line.custom_id), `${line.custom_id} has two lines`);
    lines.set(line.custom_id, line);
  }
  return lines;
}

async function create(text, endpoint = '/v1/chat/completions') {
  const file = await client.files.create({ file: await toFile(Buffer.from(text), 'in.jsonl'), purpose: 'batch' });
  assert.equal(file.bytes, Buffer.byteLength(text));
  return [file, await client.batches.create({
    input_file_id: file.id, endpoint, completion_window: '24h', metadata: { of: 'node' },
  })];
}

// A whole batch.
const [file, started] = await create(chats(50));
const batch = await awaitEnd(started.id);
assert.equal(batch.status, 'completed');
assert.deepEqual(batch.metadata, { of: 'node' });
assert.deepEqual(batch.request_counts, { total: 50, completed: 50, failed: 0 });
const lines = parse(await (await client.files.content(batch.output_file_id)).text());
assert.equal(lines.size, 50);
for (const line of lines.values()) {
  assert.equal(line.error, null);
  assert.equal(line.response.status_code, 200);
  assert(line.response.body.choices[0].message.content);
}

// Pages.
const name = 'node-page.jsonl';
const created = await Promise.all(Array.from({ length: 40 }, async (_, i) =>
  (await client.files.create({ file: await toFile(Buffer.from(`${i}`), name), purpose: 'batch' })).id));
const listed = [];
for await (const f of client.files.list({ limit: 7, purpose: 'batch' })) {
  if (f.filename === name) listed.push(f.id);
}
assert.deepEqual(listed.toSorted(), created.toSorted());
let found = 0;
for await (const b of client.batches.list({ limit: 2 })) found += b.id === batch.id;
assert.equal(found, 1);

// Cancel.
const [, slow] = await create(chats(400, 'slow'));
while ((await client.batches.retrieve(slow.id)).status === 'validating') await pause(20);
assert(['cancelling', 'cancelled'].includes((await client.batches.cancel(slow.id)).status));
const cancelled = await awaitEnd(slow.id);
assert.equal(cancelled.status, 'cancelled');
assert.equal(cancelled.request_counts.completed + cancelled.request_counts.failed, 400);

// Lines that are wrong.
const [, bad] = await create(chats(1) + 'nonsense');
const failed = await awaitEnd(bad.id);
assert.equal(failed.status, 'failed');
assert.deepEqual(failed.errors.data.map((e) => [e.line, e.code]), [[2, 'invalid_json_line']]);

// Errors are of the right class.
await assert.rejects(client.files.retrieve('file-nosuch'), OpenAI.NotFoundError);
await assert.rejects(client.batches.retrieve('batch_nosuch'), OpenAI.NotFoundError);
await assert.rejects(client.batches.create({
  input_file_id: file.id, endpoint: '/v1/nosuch', completion_window: '24h',
}), (e) => e instanceof OpenAI.BadRequestError && e.param === 'endpoint' && e.type === 'invalid_request_error');

// Uploads in parts.
const upload = await client.uploads.create({ bytes: 6, filename: 'parts.jsonl', mime_type: 'application/jsonl', purpose: 'batch' });
const parts = [];
for (const text of ['abc', 'def']) {
  parts.push((await client.uploads.parts.create(upload.id, { data: await toFile(Buffer.from(text), 'part') })).id);
}
const whole = await client.uploads.complete(upload.id, { part_ids: parts });
assert.equal(await (await client.files.content(whole.file.id)).text(), 'abcdef');
assert.equal((await client.files.delete(whole.file.id)).deleted, true);
await assert.rejects(client.files.retrieve(whole.file.id), OpenAI.NotFoundError);
