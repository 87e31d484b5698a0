"""Reads the answers of a batch while it runs."""
from openai import APIStatusError, OpenAI

import shared

client = OpenAI()
requests = 300
file = client.files.create(file=shared.chats(requests, "slow"), purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
batch = shared.wait(lambda: client.batches.retrieve(batch.id), lambda b: b.output_file_id or b.status in shared.ENDED)
assert batch.status == "in_progress", batch
output = batch.output_file_id


def content(offset=None):
    headers = {} if offset is None else {"Range": f"bytes={offset}-"}
    return client.files.with_raw_response.content(output, extra_headers=headers)


first = content()
assert first.headers.get("X-Incomplete") == "true", dict(first.headers)
text = first.content
assert text.endswith(b"\n") and int(first.headers["X-Last-Line"]) == text.count(b"\n"), dict(first.headers)
shared.parse(text)

# A reader continues behind the last byte that it has, until all is there.
while True:
    ended = client.batches.retrieve(batch.id).status in shared.ENDED
    try:
        more = content(len(text))
        assert more.status_code == 206, more.status_code
        assert more.headers["Content-Range"].startswith(f"bytes {len(text)}-"), dict(more.headers)
        assert more.content.endswith(b"\n"), "a part of a line"
        text += more.content
    except APIStatusError as e:
        assert e.status_code == 416, e  # nothing new
    if ended:
        break

batch = client.batches.retrieve(batch.id)
assert batch.status == "completed" and batch.output_file_id == output, batch
shared.check_answers(shared.parse(text), [f"request-{i}" for i in range(requests)])

last = content()
assert "X-Incomplete" not in last.headers, dict(last.headers)
assert last.content == text, "the file has other bytes than the parts"
for start, end in ((0, 0), (17, 4711), (len(text) - 5, len(text) - 1)):
    part = client.files.with_raw_response.content(output, extra_headers={"Range": f"bytes={start}-{end}"})
    assert part.status_code == 206 and part.content == text[start:end + 1], (start, end, part.status_code)
