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
    while True:
        try:
            msg = await js.get_msg(f"pm_{run}_results", sequence + 1, f"pm.{run}.results.*", direct=True, next=True)
        except nats.js.errors.NotFoundError:
            manifest = await js.get_last_msg("KV_promptmill_runs", f"$KV.promptmill_runs.{run}", direct=True)
            if json.loads(manifest.data)["state"] in ("completed", "cancelled", "expired", "failed"):
                return await nc.close()
            await asyncio.sleep(0.2)  # nothing new yet
            continue
        sequence = msg.seq
        for line in map(json.loads, (msg.data or b"").split(b"\n")[:-1]):
            if line["promptmill"]["index"] not in seen:
                seen.add(line["promptmill"]["index"])
                print(line["custom_id"], json.dumps(line["response"] or line["error"]), flush=True)

asyncio.run(main(*sys.argv[1:]))
