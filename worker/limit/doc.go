// Package limit finds how many requests a model server should have in flight: as many as it
// needs to produce the most tokens per second, and no more.
//
// A worker calls [Limiter.Acquire] before each request and [Limiter.Release] after it, and
// passes the server's gauges to [Limiter.Observe] where the server has them. The limiter knows
// nothing of HTTP and starts no goroutine: each call moves it on.
//
// # The search
//
// Three controllers move one limit. Where the server has gauges, its queue decides:
//
//	New ──▶ growing ──── requests wait in the server ────▶ queue-bound
//	           ▲                                               │
//	           └────── the queue stays empty for a doubling ───┘
//
// Where it has none, or their counters bring no decision, the rate of single answers decides:
//
//	New ──▶ growing ──── a doubling brings nothing ──────▶ holding ◀──┐
//	           ▲                                              │       │ no gain
//	           └────── a probe up brings more ◀── probing ◀───┴───────┘
//
// Refusals (429, 503, 529) interrupt both:
//
//	accepting ──── too many refusals ────▶ pacing ──── some remain ────▶ trialing
//	    ▲                                    │ ▲                           │ │
//	    ├──── the pace holds nothing back ───┘ └───────── no gain ─────────┘ │
//	    └──────────── a gain: the limit stays under a ceiling ───────────────┘
//
// In these phases, the controllers do this:
//
//   - growing doubles the limit while that brings more tokens per second. With gauges, the limit grows at once up to
//     64, and beyond that by the server's counter of tokens; without, by the tokens of single answers.
//   - queue-bound keeps a short queue at the server: the limit falls when requests wait there, and rises when the
//     queue runs empty. From time to time a trial shows whether no queue at all is better.
//   - holding stays at a limit that is known to be good, the base; probing tries a little less or a little more.
//   - pacing spaces requests, for a server that limits their rate. trialing drops the pace and lowers the limit, to
//     see whether the server limits requests in flight instead.
//
// All controllers change the limit through one window, which also counts the requests in
// flight and owns the meter of the current round of measuring. None of them knows the
// Limiter, which owns them all and its lock.
//
// # Alternatives not taken
//
// Limiters for RPC servers steer by latency: TCP Vegas, and Netflix's gradient2
// (github.com/Netflix/concurrency-limits), lower the limit when round trips take longer than
// the shortest one seen. A model server batches: each further request makes all of them slower
// and still raises the throughput, up to thousands in flight, so latency would stop the search
// far too early. AIMD needs losses, and most model servers queue without a bound instead of
// refusing. So this package steers by throughput and by the server's own queue.
package limit
