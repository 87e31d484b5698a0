"""Prints the answers of a run as they are stored, each once: python reader.py bus.json RUN

bus.json is what `promptmill join reader --json` prints. Needs the package nats-py."""
import asyncio, json, ssl, sys
import nats

async def main(file, run):
    bus = json.load(open(file))
    tls = ssl.create_default_context(cadata=bus["certificate"])
    tls.check_hostname = False  # that certificate, and no other, is accepted
    nc = await nats.connect(bus["url"].split(","), user=bus["user"], password=bus["password"],
                            inbox_prefix=bus["inbox_prefix"], tls=tls)
    js, sequence, seen = nc.jetstream(), 0, set()

    async def read(msg):  # the lines of a message; another stream has those that do not fit into it
        data, part = msg.data or b"", 0
        while len(data) < int(msg.headers.get("Pm-Size", 0)):
            subject = f"pm.{run}.answers.{msg.headers['Pm-Object']}"
            more = await js.get_msg(f"pm_{run}_answers", part + 1, subject, direct=True, next=True)
            data, part = data + more.data, more.seq
        return map(json.loads, data.split(b"\n")[:-1])

    ended = False
    while True:
        try:
            msg = await js.get_msg(f"pm_{run}_results", sequence + 1, f"pm.{run}.results.*", direct=True, next=True)
        except nats.js.errors.NotFoundError:
            if ended:  # and nothing has come since
                return await nc.close()
            manifest = await js.get_last_msg("KV_promptmill_runs", f"$KV.promptmill_runs.{run}", direct=True)
            ended = json.loads(manifest.data)["state"] in ("completed", "cancelled", "expired", "failed")
            await asyncio.sleep(0.2)
            continue
        sequence = msg.seq
        for line in await read(msg):
            if line["promptmill"]["index"] not in seen:
                seen.add(line["promptmill"]["index"])
                print(line["custom_id"], json.dumps(line["response"] or line["error"]), flush=True)

asyncio.run(main(*sys.argv[1:]))
