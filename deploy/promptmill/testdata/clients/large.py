"""Sends a large file and reads a large output: large.py MB."""
import hashlib
import os
import sys
import tempfile

from openai import OpenAI

import shared

client = OpenAI()
size, filler = int(sys.argv[1]) << 20, "some words of a prompt, " * 4000
with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
    sent, requests = hashlib.sha256(), 0
    while file.tell() < size:
        line = shared.chat(f"request-{requests}", text=filler).encode()
        sent.update(line)
        file.write(line)
        requests += 1
    file.flush()
    file.seek(0)
    uploaded = client.files.create(file=file.file, purpose="batch")
    assert uploaded.bytes == os.stat(file.name).st_size, uploaded

read = hashlib.sha256()
with client.files.with_streaming_response.content(uploaded.id) as content:
    for part in content.iter_bytes(1 << 20):
        read.update(part)
assert read.digest() == sent.digest(), "another file comes back"

batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
batch = shared.await_end(client, batch.id, seconds=600)
assert batch.status == "completed" and batch.request_counts.completed == requests, batch
shared.check_answers(shared.read(client, batch.output_file_id), [f"request-{i}" for i in range(requests)])
