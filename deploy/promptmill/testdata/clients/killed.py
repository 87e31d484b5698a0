"""Polls a batch whose server is killed, each time that a line comes on standard input, with the SDK's own retries."""
import sys
import threading

from openai import OpenAI

import shared

client = OpenAI(max_retries=10)
requests = 400
text = shared.chats(requests, "slow")
file = client.files.create(file=text, purpose="batch")
batch = client.batches.create(
    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"kept": "yes"})
print(batch.id, flush=True)  # the test kills the server now, and some times more

seen, output = 0, None
while True:
    now = client.batches.retrieve(batch.id)
    assert (now.id, now.input_file_id, now.created_at) == (batch.id, file.id, batch.created_at), now
    assert (now.expires_at, now.metadata) == (batch.expires_at, {"kept": "yes"}), now
    assert output in (None, now.output_file_id), f"{output} became {now.output_file_id}"
    output = now.output_file_id
    counts = now.request_counts
    if counts:
        assert counts.completed >= seen, f"{seen} were completed, and now {counts.completed}"
        seen = counts.completed
    if now.status in shared.ENDED:
        break

assert now.status == "completed" and seen == requests, now
shared.check_answers(shared.read(client, output), [f"request-{i}" for i in range(requests)])
assert client.files.content(file.id).read() == text
assert [b.id for b in client.batches.list() if b.input_file_id == file.id] == [batch.id]
