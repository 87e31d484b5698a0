"""Pages through lists that others write to as well."""
from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI

import shared

client = OpenAI()
name = "paging.jsonl"
with ThreadPoolExecutor(16) as threads:
    created = list(threads.map(
        lambda i: client.files.create(file=(name, shared.chat(f"{i}").encode()), purpose="batch").id, range(300)))


def mine(**query):
    return [f.id for f in client.files.list(**query) if f.filename == name]


for query in ({}, {"limit": 7}, {"limit": 100, "purpose": "batch"}, {"limit": 10000}):
    newest = mine(**query)
    assert len(newest) == 300 and set(newest) == set(created), f"{query}: {len(newest)} files"
    assert mine(order="desc", **query) == newest, query
    assert mine(order="asc", **query) == newest[::-1], query

times = [f.created_at for f in client.files.list(order="asc", limit=50)]
assert times == sorted(times), "not in the order of their creation"
assert mine(purpose="batch_output") == [] and mine(purpose="fine-tune") == []

page = client.files.list(limit=7, after=newest[9], purpose="batch")
assert len(page.data) == 7 and page.has_more and page.data[0].id == newest[10], page

batches = [
    client.batches.create(input_file_id=id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"n": str(i)}).id
    for i, id in enumerate(created[:25])
]
for query in ({}, {"limit": 3}, {"limit": 100}):
    listed = [b.id for b in client.batches.list(**query) if b.id in batches]
    assert listed == batches[::-1], f"{query}: {listed}"

for id in batches:
    assert shared.await_end(client, id).status == "completed"

# A file that was deleted, in the middle of the pages, is gone from all of them.
unused = created[200]
deleted = client.files.delete(unused)
assert deleted.id == unused and deleted.deleted and deleted.object == "file", deleted
assert unused not in mine(limit=20)
