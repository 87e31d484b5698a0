// Package telemetry sends metrics and traces of a process to an OpenTelemetry receiver, with OTLP over
// HTTP.
//
//	Telemetry      what is sent where: opened with Start, flushed and ended by Close
//	  metrics      gen_ai.client.* of each attempt, and the process's own metrics in Prometheus's registry
//	  tracer       a trace of each sampled and of some failed requests
//	Observer       of the worker at one model server; it feeds both
//
// The names are those of the semantic conventions for generative AI, 1.41.0, the last version of
// the general conventions that has them and the newest in the SDK for Go. All of them are in
// development there: a later version of promptmill may rename them.
//
// Nothing that is sent has a prompt or an answer, nor the message of an error, which may quote one.
//
// A receiver that is away, slow or wrong costs a run nothing: spans wait in a queue that drops
// what does not fit, metrics are counted on, the log says so once a minute, and the end of the process
// waits for the receiver at most for a few seconds.
package telemetry
