"""Loses the answer of each POST once, so that the SDK repeats the request."""
import httpx2

from openai import BadRequestError, DefaultHttpxClient, OpenAI

import shared


class LossyTransport(httpx2.HTTPTransport):
    lost = 0

    def handle_request(self, request):
        response = super().handle_request(request)
        if request.method == "POST" and request.headers.get("x-stainless-retry-count") == "0":
            response.read()
            response.close()
            self.lost += 1
            raise httpx2.ReadError("the answer is lost")
        return response


transport = LossyTransport()
lossy, client = OpenAI(http_client=DefaultHttpxClient(transport=transport)), OpenAI()
name, text = "retries.jsonl", shared.chats(7)
file = lossy.files.create(file=(name, text), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600})
assert file.expires_at - file.created_at == 3600, file
batch = lossy.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
shared.check_answers(
    shared.read(client, shared.await_end(client, batch.id).output_file_id), [f"request-{i}" for i in range(7)])
assert "completed" in shared.raises(BadRequestError, lambda: lossy.batches.cancel(batch.id)).message

upload = lossy.uploads.create(bytes=6, filename=name, mime_type="application/jsonl", purpose="batch")
parts = [lossy.uploads.parts.create(upload.id, data=data).id for data in (b"abc", b"abc")]
upload = lossy.uploads.complete(upload.id, part_ids=parts)
assert client.files.content(upload.file.id).read() == b"abcabc"
assert transport.lost == 7, transport.lost

assert [f.id for f in client.files.list() if f.filename == name] == [upload.file.id, file.id]
assert [b.id for b in client.batches.list() if b.input_file_id == file.id] == [batch.id]

# A request that is not a repetition is another one, unless its key says so.
request = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
assert client.files.create(file=(name, text), purpose="batch").id != file.id
assert client.batches.create(**request).id != batch.id
key = {"extra_headers": {"Idempotency-Key": f"the key of {file.id}"}}
keyed = client.batches.create(**request, **key)
assert client.batches.create(**request, **key).id == keyed.id != batch.id
shared.raises(BadRequestError, lambda: client.batches.create(**request, metadata={"other": "request"}, **key))
