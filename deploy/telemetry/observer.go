package telemetry

import (
	"strings"
	"time"

	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// Observer returns an observer of the requests at a model server; nil if t is nil.
func (t *Telemetry) Observer(server *modelserver.Server) worker.Observer {
	if t == nil {
		return nil
	}

	shown, _, _ := strings.Cut(server.URL(), " ") // without the address behind it
	host, port := splitServer(shown)

	return &observer{
		Telemetry: t,
		server:    server,
		url:       shown,
		host:      host,
		port:      port,
	}
}

// observer feeds the metrics and traces from one worker.
type observer struct {
	*Telemetry

	server *modelserver.Server
	url    string
	host   string
	port   int
}

var _ worker.Observer = (*observer)(nil)

// BeginAttempt implements [worker.Observer].
func (o *observer) BeginAttempt(run string, index uint32, _ time.Time) string {
	if o.tracer == nil {
		return ""
	}
	return o.tracer.beginAttempt(run, index)
}

// EndAttempt implements [worker.Observer].
func (o *observer) EndAttempt(r worker.ObservedRequest, a worker.Attempt) {
	if o.metrics != nil {
		o.metrics.record(operation{o.endpointOf(r), a.Error}, a.Took, a.PromptTokens, a.CompletionTokens)
	}
}

// EndRequest implements [worker.Observer].
func (o *observer) EndRequest(r worker.EndedRequest) {
	if o.tracer != nil && o.tracer.wants(r) {
		o.tracer.record(r, o.endpointOf(r.ObservedRequest), o.url+r.Path)
	}
}

// endpointOf returns the endpoint of a request. The flavour of a server shows only once it answers.
func (o *observer) endpointOf(r worker.ObservedRequest) endpoint {
	return endpoint{
		operation: nameOperation(r.Path),
		provider:  nameProvider(o.server.Flavour()),
		model:     r.Model,
		host:      o.host,
		port:      o.port,
	}
}
