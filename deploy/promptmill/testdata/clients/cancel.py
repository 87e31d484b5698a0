"""Cancels a batch that is running."""
from openai import BadRequestError, OpenAI

import shared

client = OpenAI()
requests = 400
file = client.files.create(file=("slow.jsonl", shared.chats(requests, "slow")), purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
shared.wait(lambda: client.batches.retrieve(batch.id), lambda b: b.request_counts and b.request_counts.completed > 0)

cancelling = client.batches.cancel(batch.id)
assert cancelling.id == batch.id and cancelling.status in ("cancelling", "cancelled"), cancelling
assert cancelling.cancelling_at >= batch.created_at, cancelling
cancelling = client.batches.cancel(batch.id)  # again, as after an answer that was lost
assert cancelling.status in ("cancelling", "cancelled"), cancelling

batch = shared.await_end(client, batch.id)
assert batch.status == "cancelled" and batch.cancelled_at >= batch.cancelling_at, batch
counts = batch.request_counts
assert counts.total == requests and counts.completed > 0 and counts.completed + counts.failed == requests, batch

done, rest = shared.read(client, batch.output_file_id), shared.read(client, batch.error_file_id)
assert len(done) == counts.completed and len(rest) == counts.failed, batch
assert not set(done) & set(rest) and len(done) + len(rest) == requests
shared.check_answers(done, done)
assert {line["error"]["code"] for line in rest.values()} == {"batch_cancelled"}, rest

# A batch that is cancelled at once has no requests, or each of them has a line.
file = client.files.create(file=("slow.jsonl", shared.chats(2000, "slow")), purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
client.batches.cancel(batch.id)
batch = shared.await_end(client, batch.id)
counts = batch.request_counts
assert batch.status == "cancelled" and counts.total in (0, 2000), batch
assert counts.completed + counts.failed == counts.total, batch
assert counts.total == 0 or len(shared.read(client, batch.error_file_id)) == counts.failed, batch

# A batch that has ended stays as it is.
file = client.files.create(file=shared.chats(1), purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
batch = shared.await_end(client, batch.id)
assert "completed" in shared.raises(BadRequestError, lambda: client.batches.cancel(batch.id)).message
assert client.batches.retrieve(batch.id).status == "completed"
