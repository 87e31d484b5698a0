"""Verifies events: webhook.py SECRET, with a list of their headers and bodies as JSON on standard input."""
import json
import sys

from openai import InvalidWebhookSignatureError, OpenAI

import shared

client = OpenAI(webhook_secret=sys.argv[1])
for event in json.load(sys.stdin):
    unwrapped = client.webhooks.unwrap(event["body"], event["headers"])
    assert unwrapped.object == "event" and unwrapped.id and unwrapped.created_at, unwrapped
    print(unwrapped.type, unwrapped.data.id)
    shared.raises(InvalidWebhookSignatureError, lambda: client.webhooks.unwrap(event["body"] + " ", event["headers"]))
