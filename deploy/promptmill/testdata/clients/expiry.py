"""Runs a batch out of its time."""
from openai import OpenAI

import shared

client = OpenAI()
requests = 2000
file = client.files.create(file=("slow.jsonl", shared.chats(requests, "slow")), purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="2s")
assert batch.completion_window == "2s" and batch.expires_at - batch.created_at in (2, 3), batch

batch = shared.await_end(client, batch.id)
assert batch.status == "expired" and batch.expired_at >= batch.expires_at, batch
assert batch.completed_at is None, batch
counts = batch.request_counts
assert counts.total == requests and counts.completed + counts.failed == requests and counts.failed > 0, batch

rest = shared.read(client, batch.error_file_id)
done = shared.read(client, batch.output_file_id) if batch.output_file_id else {}
assert len(done) == counts.completed and len(rest) == counts.failed and not set(done) & set(rest), batch
assert {line["error"]["code"] for line in rest.values()} == {"batch_expired"}
