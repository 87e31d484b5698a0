// Runs a batch through Vercel's AI SDK, which sends batches of /v1/responses.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { createOpenAI } from '@ai-sdk/openai';
import {
  experimental_cancelBatch as cancelBatch,
  experimental_getBatchResults as getBatchResults,
  experimental_getBatchStatus as getBatchStatus,
  experimental_listBatches as listBatches,
  experimental_startBatch as startBatch,
} from 'ai';

globalThis.AI_SDK_LOG_WARNINGS = false;
const provider = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY });

function start(count, model) {
  return startBatch({
    provider,
    requests: Array.from({ length: count }, (_, i) => ({ id: `request-${i}`, type: 'text', model, prompt: `hello ${i}` })),
  });
}

async function awaitEnd(batch) {
  for (const deadline = Date.now() + 60_000; ;) {
    const now = await getBatchStatus({ provider, batch });
    if (now.status !== 'pending') return now;
    assert(Date.now() < deadline, `not within 60 s: ${JSON.stringify(now)}`);
    await pause(50);
  }
}

async function results(batch) {
  const found = new Map();
  for await (const result of getBatchResults({ provider, batch })) {
    assert(!found.has(result.id), `${result.id} has two results`);
    found.set(result.id, result);
  }
  return found;
}

const batch = await start(30, 'fast');
assert.deepEqual(batch.warnings, []);
assert(batch.providerMetadata.openai.inputFileId.startsWith('file-'));
assert(batch.providerMetadata.openai.inputFileExpiresAt, 'the input file has no end'); // it asked for one
const ended = await awaitEnd(batch);
assert.equal(ended.status, 'completed');
assert.deepEqual(ended.requestCounts, { total: 30, pending: 0, completed: 30, failed: 0 });
const answers = await results(batch);
assert.equal(answers.size, 30);
for (const answer of answers.values()) {
  assert.equal(answer.status, 'succeeded', JSON.stringify(answer));
  assert(answer.text, JSON.stringify(answer));
}

const slow = await start(400, 'slow');
while ((await getBatchStatus({ provider, batch: slow })).rawStatus === 'validating') await pause(20);
await cancelBatch({ provider, batch: slow });
const cancelled = await awaitEnd(slow);
assert.equal(cancelled.rawStatus, 'cancelled');
const rest = await results(slow);
assert.equal(rest.size, 400);
assert(new Set([...rest.values()].map((r) => r.status)).has('cancelled'));

const ids = [];
for (let cursor; ;) {
  const page = await listBatches({ provider, limit: 2, cursor });
  ids.push(...page.batches.map((b) => b.id));
  if ((cursor = page.nextCursor) == null) break;
}
assert(ids.includes(batch.id) && ids.includes(slow.id), 'a batch is not listed');
assert.equal(new Set(ids).size, ids.length, 'a batch is listed twice');
