// Package httpserver runs an HTTP server that is operated and not watched: it has limits for headers,
// connections and stalled clients, TLS with certificates that are renewed, a log of requests, /healthz
// and /readyz, and a stop that finishes answers. It knows no batches.
//
//	server, err := httpserver.Listen(httpserver.Config{Address: "127.0.0.1:8080"})
//	...
//	defer server.Close()
//	err = server.Run(ctx, handler, checks) // until ctx ends and the last answers are out
//
// The server answers from [Listen] on: with 503 and Retry-After until [Server.Run] has brought the
// handler, so that clients of a program that starts again wait instead of failing. A tour of the files:
//
//   - server.go: the server and its way from the start to the stop.
//   - listen.go: addresses, and why one cannot be had.
//   - answer.go: time limits that are renewed while bytes move.
//   - connections.go: the most connections at once.
//   - health.go: /healthz and /readyz.
//   - accesslog.go: a line for each request, and the ids of requests.
//   - foreign.go: requests that come through a page of the web or a proxy.
//   - certificate.go: certificates that are read again when their files change.
package httpserver
