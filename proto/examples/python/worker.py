"""Answers the requests of a run for one model: python worker.py bus.json RUN MODEL http://127.0.0.1:8000

bus.json is what `promptmill join worker --json` prints, and the run has --shard-encoding zstd or none.
Needs the packages nats-py, xxhash and zstandard."""
import asyncio, base64, concurrent.futures, hashlib, json, os, re, socket, ssl, sys, urllib.error, urllib.request
import nats, xxhash, zstandard

unpack = {"none": bytes, "zstd": zstandard.ZstdDecompressor().decompress}
me = f"{socket.gethostname()}-python-{os.getpid()}"

def indexes(text):  # "0-2,7" has 0, 1, 2 and 7
    ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
    return [index for end in ends for index in range(end[0], end[-1] + 1)]

def answer(server, run, index, line, limit):  # the output line of a request's line; OSError: the server is away or busy
    request, hashed, response, error = json.loads(line), line, None, None
    if "promptmill_refused" in request:
        hashed = line[len(b'{"custom_id":'):line.index(b',"promptmill_refused":')]
        error = {"code": "invalid_request", "message": request["promptmill_refused"]}
    else:
        body = line[line.index(b',"body":') + len(b',"body":'):-1]  # byte for byte
        try:
            http = urllib.request.urlopen(urllib.request.Request(
                server + request["url"], body, {"Content-Type": "application/json"}))
        except urllib.error.HTTPError as refusal:
            if refusal.status in (429, 503):
                raise
            http = refusal
        try:
            response = {"status_code": http.status, "request_id": f"req_{run}_{index}", "body": json.load(http)}
        except ValueError:
            error = {"code": "invalid_response", "message": f"HTTP {http.status} without JSON"}

    def output(response, error):
        extras = {"index": index, "worker": me, "attempts": 1, "request_hash": xxhash.xxh64_hexdigest(hashed)}
        return json.dumps({"id": f"batch_req_{run}_{index}", "custom_id": request["custom_id"], "response": response,
                           "error": error, "promptmill": extras}, separators=(",", ":")).encode() + b"\n"

    text = output(response, error)
    return text if len(text) < limit else output(None, {"code": "answer_too_large", "message": f"{len(text)} bytes"})

async def main(file, run, model, server):
    bus = json.load(open(file))
    tls = ssl.create_default_context(cadata=bus["certificate"])
    tls.check_hostname = False  # that certificate, and no other, is accepted
    nc = await nats.connect(bus["url"].split(","), user=bus["user"], password=bus["password"],
                            inbox_prefix=bus["inbox_prefix"], tls=tls)
    js, held = nc.jetstream(), []
    asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(64))  # requests at once

    async def keep():  # announces the worker, and extends the ack wait of its shards
        while True:
            info = {"id": me, "name": me, "models": [model], "ready": True, "shards": len(held)}
            await nc.publish(f"$KV.promptmill_presence.worker.{me}", json.dumps(info).encode())
            for shard in filter(lambda shard: not shard.is_acked, held):
                await shard.in_progress()
            await asyncio.sleep(3)

    async def read(shard):  # the lines of a shard; an object has those that do not fit into a message
        data = shard.data
        if name := shard.headers.get("Pm-Object"):
            stream, subject, sequence = f"OBJ_pm_{run}_objects", f"$O.pm_{run}_objects.", 0
            key = base64.urlsafe_b64encode(name.encode()).decode()
            info = json.loads((await js.get_last_msg(stream, f"{subject}M.{key}")).data)
            while len(data) < info["size"]:
                part = await js.get_msg(stream, sequence + 1, f"{subject}C.{info['nuid']}", next=True)
                data, sequence = data + part.data, part.seq
        return unpack[shard.headers["Pm-Encoding"]](data).split(b"\n")

    async def store(shard, headers, data=b""):
        headers = {"Pm-Version": "2", "Pm-Shard": shard.headers["Pm-Shard"], **headers}
        while True:
            try:
                return await js.publish(f"pm.{run}.results.{headers['Pm-Shard']}", data, headers=headers)
            except nats.errors.Error:  # the stream is full, or the bus is away
                await asyncio.sleep(1)

    async def run_one(shard, index, line):
        result = await asyncio.to_thread(answer, server, run, index, line, nc.max_payload - 1000)
        await store(shard, {"Pm-Indexes": str(index)}, result)

    async def work(shard):
        try:
            requests = zip(indexes(shard.headers["Pm-Indexes"]), await read(shard))
            await asyncio.gather(*(run_one(shard, index, line) for index, line in requests))
            await shard.ack_sync()
        except OSError as problem:  # another worker may have the shard
            print(f"{server}: {problem}", file=sys.stderr)
            await store(shard, {"Pm-Delivery": "returned"})
            await shard.nak()
            await asyncio.sleep(5)

    keeper = asyncio.create_task(keep())
    token = re.sub("[^A-Za-z0-9_-]", "-", model)[:40] + "-" + hashlib.sha256(model.encode()).hexdigest()[:10]
    shards = await js.pull_subscribe_bind(token, f"pm_{run}_work")
    while True:
        entry = await js.get_last_msg("KV_promptmill_runs", f"$KV.promptmill_runs.{run}", direct=True)
        manifest = json.loads(entry.data)
        encoding, state = manifest["settings"].get("shard_encoding", "snappy"), manifest["state"]
        if encoding not in unpack:
            sys.exit(f"the shards of run {run} are {encoding}: submit it with --shard-encoding zstd or none")
        if state in ("validating", "paused"):
            await asyncio.sleep(2)
            continue
        if state != "in_progress":
            break
        try:
            held += await shards.fetch(8, timeout=2)
        except nats.errors.TimeoutError:
            continue
        await asyncio.gather(*map(work, held))
        held.clear()
    keeper.cancel()
    await nc.close()

asyncio.run(main(*sys.argv[1:]))
