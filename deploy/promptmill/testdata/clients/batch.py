"""Runs whole batches, with each endpoint and each form of a file."""
import io
import json

from openai import OpenAI
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

import shared

client = OpenAI()
requests = 200
ids = [f"request-{i}" for i in range(requests)]
file = client.files.create(file=("requests.jsonl", shared.chats(requests)), purpose="batch")
assert file.id.startswith("file-") and file.object == "file", file
assert file.filename == "requests.jsonl" and file.purpose == "batch", file
assert file.bytes == len(shared.chats(requests)) and file.created_at > 1_700_000_000, file
assert client.files.content(file.id).read() == shared.chats(requests)
assert client.files.wait_for_processing(file.id).status == "processed"

metadata = {"customer": "Zoë", "empty": "", "x" * 64: "y" * 512}
batch = client.batches.create(
    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata=metadata)
assert batch.id.startswith("batch_") and batch.object == "batch", batch
assert batch.input_file_id == file.id and batch.endpoint == "/v1/chat/completions", batch
assert batch.completion_window == "24h" and batch.metadata == metadata, batch
assert batch.status in ("validating", "in_progress", "finalizing", "completed"), batch
assert batch.expires_at - batch.created_at == 24 * 60 * 60, batch

batch = shared.await_end(client, batch.id)
assert batch.status == "completed" and batch.errors is None, batch
assert batch.metadata == metadata and batch.error_file_id is None, batch
assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (requests, requests, 0), batch
assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at <= batch.expires_at, batch
assert batch.failed_at is None and batch.cancelled_at is None and batch.expired_at is None, batch

lines = shared.read(client, batch.output_file_id)
shared.check_answers(lines, ids)
usage = [ChatCompletion.model_validate(line["response"]["body"]).usage for line in lines.values()]
assert batch.usage.input_tokens == sum(u.prompt_tokens for u in usage), batch.usage
assert batch.usage.output_tokens == sum(u.completion_tokens for u in usage), batch.usage
assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens, batch.usage
assert batch.usage.input_tokens_details.cached_tokens >= 0, batch.usage
assert batch.usage.output_tokens_details.reasoning_tokens >= 0, batch.usage

output = client.files.retrieve(batch.output_file_id)
assert output.purpose == "batch_output" and output.filename.endswith(".jsonl"), output
assert output.bytes == len(client.files.content(output.id).read()), output
assert output.id in [f.id for f in client.files.list(purpose="batch_output")]

# Each form of a file: no line feed at the end, a byte-order mark, CRLF and empty lines.
one, two = shared.chat("a").strip(), shared.chat("b").strip()
for text in (
    f"{one}\n{two}",
    f"\ufeff{one}\n{two}\n",
    f"{one}\r\n\r\n{two}\r\n",
    f"\n\n{one}\n  \n{two}\n\n",
):
    file = client.files.create(file=io.BytesIO(text.encode()), purpose="batch")
    assert file.bytes == len(text.encode()), file
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    shared.check_answers(shared.read(client, shared.await_end(client, batch.id).output_file_id), "ab")

# Each endpoint. The short forms of lines are taken, too.
for endpoint, body, decode in (
    ("/v1/embeddings", {"input": "hello"}, CreateEmbeddingResponse.model_validate),
    ("/v1/responses", {"input": "hello"}, lambda body: body["output"][0]["content"][0]["text"]),
    ("/v1/completions", {"prompt": "hello"}, lambda body: body["choices"][0]["text"]),
):
    body["model"] = "fast"
    text = json.dumps({"custom_id": "long", "method": "POST", "url": endpoint, "body": body}) + "\n" + json.dumps(body)
    file = client.files.create(file=text.encode(), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    lines = shared.read(client, shared.await_end(client, batch.id).output_file_id)
    assert set(lines) == {"long", "request-2"}, lines
    for line in lines.values():
        assert decode(line["response"]["body"]), line
