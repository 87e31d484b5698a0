// Package webhook reports the ends of runs: by HTTP, in the shapes of OpenAI's events and
// signed as Standard Webhooks (https://www.standardwebhooks.com), so that
// client.webhooks.unwrap of OpenAI's SDKs verifies them.
//
// An [Event] is the end of a run, or of a batch that has no run. Its id follows from what it is
// about, so an event that is made twice is one event. An [Endpoint] gets events: a URL
// ([NewURLEndpoint]), or a command of the user. A [Delivery] is one event for one endpoint.
// Each is an entry of the bus's bucket promptmill_webhooks:
//
//	Sender.Add ──▶ pending ── 2xx ──▶ delivered
//	                │   ▲  ── 410 Gone, or 3 days are over ──▶ failed
//	                └───┘                                        │
//	       other answers, and none: after 5 s, 30 s, 2 min,      │
//	       10 min, 30 min, 2 h and then every 6 h                │
//	                ▲                                            │
//	                └──────── Store.Redeliver ───────────────────┘
//
// A [Sender] claims a delivery by compare-and-set before it sends it, so two processes do not
// send one at the same time. A process that is killed leaves its claim behind, which ends by
// itself, and the event is sent again: each event arrives at least once, always under the same
// id and with the same body. Entries end a week after their last change.
//
// The bus holds neither the addresses of endpoints, which may have secrets in them, nor the
// secret that signs: any role may read its buckets. It has a hash of the address, and a name
// for people ([NameOf]). [Store] lists deliveries, and starts them again.
package webhook
