"""Runs a file of prompts: aiohttp, a semaphore, gather, and the answers at the end."""

import asyncio
import json
import sys

import aiohttp


async def main(server, source, target, concurrency):
    gate = asyncio.Semaphore(concurrency)
    with open(source) as lines:
        requests = [json.loads(line) for line in lines]

    connector = aiohttp.TCPConnector(limit=concurrency)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def ask(request):
            async with gate:
                async with session.post(server + request["url"], json=request["body"]) as response:
                    response.raise_for_status()
                    return {"custom_id": request["custom_id"], "response": await response.json()}

        answers = await asyncio.gather(*(ask(request) for request in requests))

    with open(target, "w") as out:
        for answer in answers:
            out.write(json.dumps(answer) + "\n")


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
