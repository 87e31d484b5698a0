"""Meets the errors of the API, each as the class that the SDK has for it."""
import json

from openai import BadRequestError, NotFoundError, OpenAI

import shared

client = OpenAI(max_retries=0)
good = client.files.create(file=("good.jsonl", shared.chats(1)), purpose="batch")


def check(error, call, param=None, says=""):
    e = shared.raises(error, call)
    assert set(e.body) >= {"message", "type", "param", "code"}, e.body
    assert e.type == "invalid_request_error" and e.message and says in e.body["message"], e.body
    assert param is None or e.param == param, e.body
    assert e.request_id, e.response.headers
    for word in ("strconv", "unexpected EOF", "context ", "no such file", "/tmp"):
        assert word not in str(e.body), e.body


def create(**changed):
    request = {"input_file_id": good.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"} | changed
    return lambda: client.batches.create(**request)


for call in (
    lambda: client.files.retrieve("file-nosuch"),
    lambda: client.files.content("file-nosuch"),
    lambda: client.files.delete("file-nosuch"),
    lambda: client.batches.retrieve("batch_nosuch"),
    lambda: client.batches.cancel("batch_nosuch"),
    lambda: client.batches.retrieve("file-nosuch"),
    lambda: client.files.retrieve(" ../keys.json"),
    lambda: client.uploads.cancel("upload_nosuch"),
    lambda: client.uploads.parts.create("upload_nosuch", data=b"x"),
    lambda: client.post("/nosuch", cast_to=object, body={}),
):
    check(NotFoundError, call)

check(BadRequestError, create(endpoint="/v1/images"), "endpoint", "/v1/chat/completions")
check(BadRequestError, create(completion_window="soon"), "completion_window")
check(BadRequestError, create(completion_window="-1h"), "completion_window")
check((BadRequestError, NotFoundError), create(input_file_id="file-nosuch"), "input_file_id", "file-nosuch")
check(BadRequestError, create(metadata={f"{i}": "x" for i in range(17)}), "metadata")
check(BadRequestError, create(metadata={"x" * 65: "y"}))
check(BadRequestError, create(metadata={"x": "y" * 513}))
check(BadRequestError, create(extra_body={"metadata": {"x": 7}}))
check(BadRequestError, create(extra_body={"input_file_id": None}), "input_file_id")
check(BadRequestError, create(extra_body={"output_expires_after": {"anchor": "created_at", "seconds": 5}}))
check(BadRequestError, lambda: client.files.create(file=b"x", purpose="nosuch"), "purpose")
check(BadRequestError, lambda: client.files.list(limit=0), "limit")
check(BadRequestError, lambda: client.files.list(extra_query={"limit": "many"}), "limit")
check(BadRequestError, lambda: client.files.list(extra_query={"order": "random"}), "order")
check(BadRequestError, lambda: client.batches.list(after="batch_nosuch"), "after")
check(BadRequestError, lambda: client.post("/batches", cast_to=object, content=b"{", options={"headers": {"Content-Type": "application/json"}}))

# A file in which lines are wrong makes a batch that fails, with each of the lines.
lines = [
    shared.chat("a").strip(),
    "nonsense",
    shared.chat("a").strip(),
    "",
    json.dumps({"custom_id": "c", "method": "POST", "url": "/v1/embeddings", "body": {"model": "fast", "input": "x"}}),
    json.dumps({"custom_id": "d", "method": "GET", "url": "/v1/chat/completions", "body": {"model": "fast", "messages": []}}),
    json.dumps({"custom_id": "e", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "fast"}}),
    json.dumps({"custom_id": "f", "method": "POST", "url": "/v1/chat/completions"}),
    json.dumps({"custom_id": "g", "url": "/v1/chat/completions", "body": {"model": "fast", "messages": [], "stream": True}}),
]
file = client.files.create(file=("bad.jsonl", ("\ufeff" + "\r\n".join(lines)).encode()), purpose="batch")
batch = shared.await_end(client, create(input_file_id=file.id)().id)
assert batch.status == "failed" and batch.failed_at >= batch.created_at, batch
assert batch.output_file_id is None and batch.error_file_id is None, batch
assert batch.errors.object == "list" and all(e.message for e in batch.errors.data), batch
found = [(e.line, e.code, e.param) for e in batch.errors.data]
assert found == [
    (2, "invalid_json_line", None),
    (3, "duplicate_custom_id", "custom_id"),
    (5, "mismatched_endpoint", "url"),
    (6, "invalid_method", "method"),
    (7, "missing_required_parameter", "body.messages"),
    (8, "missing_required_parameter", "body"),
    (9, "unsupported_parameter", "body.stream"),
], batch.errors.data
assert file.id not in str([e.message for e in batch.errors.data]), batch.errors.data

# So does a file that is something else altogether.
for text in (b"id,prompt\n1,hello\n", b"\n \n", b"[" + shared.chat("a").encode() + b"]", b"\x1f\x8b broken"):
    file = client.files.create(file=("else.jsonl", text), purpose="batch")
    batch = shared.await_end(client, create(input_file_id=file.id)().id)
    assert batch.status == "failed" and batch.errors.data[0].message, batch
    assert "/" not in batch.errors.data[0].message.replace("/v1/", ""), batch.errors.data

# A file that a batch needs is not deleted, and a batch needs it no more when it has ended.
file = client.files.create(file=("slow.jsonl", shared.chats(400, "slow")), purpose="batch")
batch = create(input_file_id=file.id)()
check(BadRequestError, lambda: client.files.delete(file.id), says=batch.id)
assert client.files.retrieve(file.id).id == file.id
shared.wait(lambda: client.batches.retrieve(batch.id), lambda b: b.status == "in_progress")
client.batches.cancel(batch.id)
batch = shared.await_end(client, batch.id)
assert client.files.delete(file.id).deleted
check(NotFoundError, lambda: client.files.content(file.id))
assert client.batches.retrieve(batch.id).input_file_id == file.id

# The output is the client's to delete.
assert client.files.delete(batch.error_file_id).deleted
check(NotFoundError, lambda: client.files.content(batch.error_file_id))
assert client.batches.retrieve(batch.id).status == "cancelled"
