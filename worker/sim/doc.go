// Package sim is a simulated model server: an http.Handler that answers as vLLM, SGLang,
// llama.cpp, Ollama and others do, with slots, a waiting queue, a cache that fills up, times to
// the first and to each further token, and faults on request. Its answers follow from the
// prompt and the seed, so a test can compute the right one. With a response_format that has a
// simple JSON Schema, they are JSON that matches it.
//
//	POST /v1/... ──▶ Gate ──▶ Faults ──▶ modelPool ──▶ Engine ──▶ plan.encode
//	                  │ too many   │ a fault  │ evicted     │ queue full, died
//	                  ▼            ▼          ▼             ▼
//	                 responder: the refusal in the form of the flavour
//
//	GET /metrics, /v1/models, ... ──▶ statusPages
//
// A [Server] owns all of these. The [Gate] stands for a proxy in front of it. The modelPool
// loads models in the place of others, for flavours that do so. The [Engine] runs the requests:
// its scheduler knows which of them run and how far they are, from event to event, without a
// goroutine for each; a promptCache reports the part of a prompt that need not be computed
// again. Times come from package time, so a test in a synctest bubble simulates hours in
// milliseconds.
//
// The answers of the flavours are compared with recordings of real servers, in testdata/real.
package sim
