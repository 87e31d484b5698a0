package modelserver

import "context"

// tgi is Hugging Face's text-generation-inference.
type tgi struct{}

// tgiSpec recognizes TGI by its gauges: the owner of its model is the model itself
// (router/src/server.rs).
var tgiSpec = flavourSpec{
	newFlavour:  func() flavour { return tgi{} },
	gauges:      &tgiGauges,
	metricsPath: metricsPath,

	countsAtEnd: true,
}

// tgiGauges: backends/v3/src/backend.rs and queue.rs, router/src/infer, 3.3. Tokens are
// counted when a request ends.
var tgiGauges = gaugeNames{fields: map[string]metricField{
	"tgi_batch_current_size":           running,
	"tgi_queue_size":                   waiting,
	"tgi_request_generated_tokens_sum": tokens,
	"tgi_request_input_length_sum":     promptTokens,
}}

func (tgi) name() string { return "TGI" }

func (tgi) describe(ctx context.Context, s *Server, info *Info) error {
	var reply struct {
		Version string
		Most    int `json:"max_total_tokens"`
	}
	if s.getJSON(ctx, "/info", &reply) != nil {
		return nil //nolint:nilerr // fields that the server does not report stay unknown
	}

	info.Version = reply.Version
	for i := range info.Models {
		info.Models[i].ContextLength = max(reply.Most, 0)
	}

	return nil
}

// readLoad: before its first request TGI has no gauges at all.
func (tgi) readLoad(ctx context.Context, s *Server) (Load, error) {
	page, err := s.readPage(ctx, metricsPath, &tgiGauges, "")
	if err == nil && page.found[waiting] == nil && page.found[running] == nil {
		err = errNotNow
	}
	return page.toLoad(), err
}
