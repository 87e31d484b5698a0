"""Runs a batch through LiteLLM's client, and chats with it as with any server of OpenAI's API."""
import io
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it is fetched
import litellm

import shared

litellm.telemetry = False
server = {
    "custom_llm_provider": "openai",
    "api_base": os.environ["OPENAI_BASE_URL"],
    "api_key": os.environ["OPENAI_API_KEY"],
}
file = litellm.create_file(file=("in.jsonl", io.BytesIO(shared.chats(20))), purpose="batch", **server)
batch = litellm.create_batch(
    completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file.id, metadata={"of": "litellm"}, **server)
batch = shared.wait(
    lambda: litellm.retrieve_batch(batch_id=batch.id, **server), lambda b: b.status in shared.ENDED)
assert batch.status == "completed" and batch.metadata == {"of": "litellm"}, batch
text = litellm.file_content(file_id=batch.output_file_id, **server).text
shared.check_answers(shared.parse(text), [f"request-{i}" for i in range(20)])

assert batch.id in [b.id for b in litellm.list_batches(limit=100, **server).data]
assert litellm.file_retrieve(file_id=file.id, **server).bytes == file.bytes

slow = litellm.create_file(file=("slow.jsonl", io.BytesIO(shared.chats(400, "slow"))), purpose="batch", **server)
batch = litellm.create_batch(
    completion_window="24h", endpoint="/v1/chat/completions", input_file_id=slow.id, **server)
assert litellm.cancel_batch(batch_id=batch.id, **server).status in ("cancelling", "cancelled")
batch = shared.wait(
    lambda: litellm.retrieve_batch(batch_id=batch.id, **server), lambda b: b.status in shared.ENDED)
assert batch.status == "cancelled", batch
assert litellm.file_delete(file_id=slow.id, **server).deleted
