// Package http1 posts JSON to a model server over HTTP/1.1, on its own connections.
//
// The goroutine that posts writes the request and reads the answer itself. net/http has two
// goroutines for each connection; they, and the hand-overs between them, cost more than
// everything else that it does. A run with this client takes 0.83 of the CPU of one with
// net/http.
//
// # Contract
//
// The caller keeps a fallback to net/http, and uses it for features that this client lacks: [New]
// returns nil for a server whose host or path needs escaping, and [Client.CanPost] reports
// false for such a path and for bodies over 64 KiB. The caller also leaves servers behind an
// HTTP proxy to net/http. For everything else the two agree: the tests and a fuzz test compare
// their answers to the same bytes.
//
//   - Post sends the body byte for byte, and reads the answer to its end, at most Config.MaxBody bytes of it. It
//     decodes no content coding and follows no redirect: both are the caller's.
//   - It sends a request once. It checks that an idle connection is still open before it writes, and never sends again
//     a request that a server may have begun to work on. The one exception is an answer that may belong to another
//     request.
//   - The context ends a request at any moment, by closing its connection.
//   - [Client.Close] closes all connections that have no request.
//
// # Answers of other requests
//
// HTTP/1.1 has no request numbers: an answer belongs to a request because it comes next on the
// same connection. A server that answers a request twice, or sends something unasked, moves all
// answers of that connection to their neighbours. So the client checks a connection before it
// writes on it, and doubts an answer that came too soon:
//
//	Post ──▶ getConn ── idle and quiet, or new ──▶ roundTrip ──▶ judgeAnswer
//	  ▲         │ stray bytes                                      │  │  │
//	  │         ▼                                                  │  │  └─ accept: the connection is idle again
//	  │    markOutOfStep: one request a connection from now on ◀───┘  └─ refuse, refuseAndWatch
//	  │                                                                        │
//	  └──────────────────── once more, on a connection of its own ◀────────────┘
//
// Each request carries an X-Request-Id, see [RequestID]. Many servers return it, and an answer
// with the id of another request fails with [ErrOtherRequest].
package http1
