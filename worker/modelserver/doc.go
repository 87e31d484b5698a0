// Package modelserver talks to an OpenAI-compatible model server, and knows the reports that the
// servers of each flavour (vLLM, SGLang, llama.cpp, Ollama and others) add to the common interface:
// above all how busy they are.
//
// A worker makes a [Server] of a URL, or [Find] looks for servers on this machine. Then it calls
//
//	Probe ──▶ Info     its flavour and models; every few seconds, since servers change
//	Post  ──▶ Answer   one request, as it is; at any time, from many goroutines
//	Load  ──▶ Load     the gauges; as often as the limiter asks for them
//
// Post goes over package http1 where that can, and over net/http otherwise. Everything else
// goes over net/http.
//
// # Flavours
//
// The table flavours has a row for each flavour: the signs by which Probe recognizes a server,
// and the type that describes it and reads its load. Each type has a file, which cites the
// server's source for each field:
//
//	Probe ── listModels ── recognizeFlavour ── flavour.describe
//	Load ──────────────────────────────────── flavour.readLoad ── readGauges ── parsePage
//
// # One URL, several servers
//
// Behind a load balancer each reading may come from another replica. The replicaDetector
// compares readings with each other and with the answers, and Load reports the evidence; then a
// server's own figures are no longer used. A name with several private addresses is several
// servers: see [LookupAddresses].
package modelserver
