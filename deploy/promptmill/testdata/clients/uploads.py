"""Uploads a file in parts."""
import hashlib
import os
import pathlib
import tempfile

from openai import BadRequestError, OpenAI

import shared

client = OpenAI()
text = shared.chats(5000)
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "large.jsonl")
    path.write_bytes(text)
    upload = client.uploads.upload_file_chunked(
        file=path, mime_type="application/jsonl", purpose="batch", part_size=100_000, md5=hashlib.md5(text).hexdigest())
assert upload.status == "completed" and upload.id.startswith("upload_") and upload.object == "upload", upload
assert upload.bytes == len(text) and upload.filename == "large.jsonl" and upload.purpose == "batch", upload
assert upload.file.id.startswith("file-") and upload.file.bytes == len(text), upload
assert upload.file.filename == "large.jsonl" and client.files.retrieve(upload.file.id).bytes == len(text)
assert client.files.content(upload.file.id).read() == text

batch = client.batches.create(input_file_id=upload.file.id, endpoint="/v1/chat/completions", completion_window="24h")
batch = shared.await_end(client, batch.id)
shared.check_answers(shared.read(client, batch.output_file_id), [f"request-{i}" for i in range(5000)])


def begin(size):
    return client.uploads.create(bytes=size, filename="parts.jsonl", mime_type="application/jsonl", purpose="batch")


# Parts in the order of complete, not in that of their upload.
upload = begin(6)
assert upload.status == "pending" and upload.expires_at > upload.created_at and upload.file is None, upload
later = client.uploads.parts.create(upload.id, data=b"def")
first = client.uploads.parts.create(upload.id, data=b"abc")
assert first.object == "upload.part" and first.upload_id == upload.id and first.id != later.id, first
upload = client.uploads.complete(upload.id, part_ids=[first.id, later.id])
assert client.files.content(upload.file.id).read() == b"abcdef"

# Complete again, as after an answer that was lost, answers the same file.
try:
    assert client.uploads.complete(upload.id, part_ids=[first.id, later.id]).file.id == upload.file.id
except BadRequestError as e:
    assert "complete" in e.message, e

# What does not fit is refused, and the upload can still be completed.
upload = begin(3)
part = client.uploads.parts.create(upload.id, data=b"abc")
shared.raises(BadRequestError, lambda: client.uploads.complete(upload.id, part_ids=[part.id, part.id]))
shared.raises(BadRequestError, lambda: client.uploads.complete(upload.id, part_ids=["part_nosuch"]))
shared.raises(BadRequestError, lambda: client.uploads.complete(upload.id, part_ids=[part.id], md5="0" * 32))
assert client.uploads.complete(upload.id, part_ids=[part.id]).file.bytes == 3

upload = begin(3)
part = client.uploads.parts.create(upload.id, data=b"abc")
assert client.uploads.cancel(upload.id).status == "cancelled"
shared.raises(BadRequestError, lambda: client.uploads.parts.create(upload.id, data=b"abc"))
shared.raises(BadRequestError, lambda: client.uploads.complete(upload.id, part_ids=[part.id]))
