"""What the programs beside it share."""
import json
import time

ENDED = ("completed", "failed", "expired", "cancelled")


def chat(custom_id, model="fast", text="hello"):
    """A line of a batch file."""
    return json.dumps({
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": model, "messages": [{"role": "user", "content": text}]},
    }) + "\n"


def chats(count, model="fast"):
    """The text of a batch file."""
    return "".join(chat(f"request-{i}", model) for i in range(count)).encode()


def wait(look, until, seconds=60):
    """Looks until a condition holds, and returns what it saw."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if until(seen):
            return seen
        assert time.monotonic() < deadline, f"not within {seconds} s: {seen}"
        time.sleep(0.05)


def await_end(client, batch_id, seconds=60):
    return wait(lambda: client.batches.retrieve(batch_id), lambda b: b.status in ENDED, seconds)


def parse(text):
    """The lines of an output by custom_id, of which none may be there twice."""
    lines = {}
    for line in text.splitlines():
        line = json.loads(line)
        assert line["custom_id"] not in lines, f"{line['custom_id']} has two lines"
        lines[line["custom_id"]] = line
    return lines


def read(client, file_id):
    return parse(client.files.content(file_id).text)


def check_answers(lines, ids):
    assert set(lines) == set(ids), f"{len(lines)} lines for {len(ids)} requests"
    for custom_id, line in lines.items():
        assert line["error"] is None, line
        assert line["response"]["status_code"] == 200, line
        assert line["response"]["body"]["choices"][0]["message"]["content"], line


def raises(error, call):
    """The error of a call, which has to be of one class."""
    try:
        result = call()
    except error as e:
        return e
    raise AssertionError(f"no {error.__name__}, but {result}")
