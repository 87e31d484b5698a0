"""Needs a key, and sees what the key may see."""
import os

from openai import AuthenticationError, NotFoundError, OpenAI

import shared

every, own, other = (OpenAI(api_key=key) for key in os.environ["KEYS"].split())
for wrong in ("unknown-key", "sk-" + "x" * 48, own.api_key[:-1], own.api_key + "x"):
    client = OpenAI(api_key=wrong)
    for call in (
        client.files.list,
        client.models.list,
        lambda: client.files.retrieve("file-nosuch"),
        lambda: client.files.create(file=shared.chats(1), purpose="batch"),
        lambda: client.batches.create(input_file_id="x", endpoint="/v1/embeddings", completion_window="24h"),
    ):
        e = shared.raises(AuthenticationError, call)
        assert e.body["message"] and wrong not in str(e.body), e.body

file = own.files.create(file=shared.chats(2), purpose="batch")
batch = own.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
batch = shared.await_end(own, batch.id)
assert [b.id for b in own.batches.list()] == [batch.id]
assert {f.id for f in own.files.list()} == {file.id, batch.output_file_id}
assert [b.id for b in every.batches.list()] == [batch.id]
shared.check_answers(shared.read(every, batch.output_file_id), ["request-0", "request-1"])

assert list(other.files.list()) == [] and list(other.batches.list()) == []
for call in (
    lambda: other.files.retrieve(file.id),
    lambda: other.files.content(file.id),
    lambda: other.files.content(batch.output_file_id),
    lambda: other.files.delete(file.id),
    lambda: other.batches.retrieve(batch.id),
    lambda: other.batches.cancel(batch.id),
):
    shared.raises(NotFoundError, call)
