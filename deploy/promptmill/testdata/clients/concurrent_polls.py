"""Polls one batch a hundred times at once."""
import asyncio

from openai import AsyncOpenAI

import shared


async def poll(client, batch):
    looks = 0
    while True:
        looks += 1
        now = await client.batches.retrieve(batch)
        if now.status in shared.ENDED:
            return now, looks


async def main():
    async with AsyncOpenAI() as client:
        file = await client.files.create(file=shared.chats(100, "slow"), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        ends = await asyncio.wait_for(asyncio.gather(*(poll(client, batch.id) for _ in range(100))), 60)
        assert {end.status for end, _ in ends} == {"completed"}, ends
        assert len({end.output_file_id for end, _ in ends}) == 1
        texts = await asyncio.gather(*(client.files.content(ends[0][0].output_file_id) for _ in range(20)))
        assert len({text.content for text in texts}) == 1
        shared.check_answers(shared.parse(texts[0].content), [f"request-{i}" for i in range(100)])

        listed = [b.id async for b in client.batches.list(limit=2)]
        assert listed.count(batch.id) == 1


asyncio.run(main())
