"""Looks at the answers themselves."""
from openai import NotFoundError, OpenAI

import shared

client = OpenAI()
raw = client.files.with_raw_response.create(file=shared.chats(1), purpose="batch")
file = raw.parse()
assert raw.status_code == 200 and raw.headers["Content-Type"].split(";")[0] == "application/json", raw.headers
assert raw.headers["X-Request-Id"] == file._request_id, raw.headers
again = client.files.with_raw_response.retrieve(file.id)
assert again.headers["X-Request-Id"] != raw.headers["X-Request-Id"]
assert again.parse().to_dict() == file.to_dict()

e = shared.raises(NotFoundError, lambda: client.files.retrieve("file-nosuch"))
assert e.request_id and e.response.headers["Content-Type"].split(";")[0] == "application/json"

with client.files.with_streaming_response.content(file.id) as streamed:
    assert b"".join(streamed.iter_bytes()) == shared.chats(1)
    assert streamed.headers["Content-Type"].split(";")[0] in (
        "application/octet-stream", "application/jsonl", "application/x-ndjson", "application/binary"), streamed.headers

models = list(client.models.list())
assert {m.id for m in models} == {"fast", "slow"} and all(m.object == "model" for m in models), models
assert client.models.retrieve("fast").id == "fast"
shared.raises(NotFoundError, lambda: client.models.retrieve("nosuch"))

# A batch of requests that come with it has no file to send before.
batch = client.post("/batches", cast_to=object, body={
    "endpoint": "/v1/chat/completions",
    "model": "fast",
    "completion_window": "24h",
    "requests": [{"custom_id": f"inline-{i}", "body": {"messages": [{"role": "user", "content": "hello"}]}} for i in range(3)],
})
done = shared.await_end(client, batch["id"])
shared.check_answers(shared.read(client, done.output_file_id), [f"inline-{i}" for i in range(3)])
