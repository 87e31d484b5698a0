package telemetry

import (
	"cmp"
	"net/url"
	"path"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
)

// endpoint is a model at an endpoint of a model server.
type endpoint struct {
	operation string
	provider  string
	model     string
	host      string
	port      int
}

// attributes returns the attributes that spans and metrics of the endpoint have in common.
func (e endpoint) attributes() []attribute.KeyValue {
	list := []attribute.KeyValue{
		semconv.GenAIOperationNameKey.String(e.operation),
		semconv.GenAIProviderNameKey.String(e.provider),
	}

	if e.model != "" {
		list = append(list, semconv.GenAIRequestModel(e.model))
	}
	if e.host != "" {
		list = append(list, semconv.ServerAddress(e.host), semconv.ServerPort(e.port))
	}

	return list
}

// nameOperation returns the operation that the conventions have for an endpoint's path. They have
// none for scores and the like: these have the last part of the path.
func nameOperation(endpoint string) string {
	switch endpoint {
	case "/v1/chat/completions", "/v1/responses":
		return "chat"
	case "/v1/completions":
		return "text_completion"
	case "/v1/embeddings":
		return "embeddings"
	}

	return path.Base(endpoint)
}

// nameProvider returns the provider for a flavour of model servers: "vllm" for vLLM. The list of the
// conventions has companies alone, and allows others.
func nameProvider(flavour string) string {
	return strings.ReplaceAll(strings.ToLower(cmp.Or(flavour, "OpenAI-compatible")), " ", "-")
}

// splitServer returns host and port of a model server's URL.
func splitServer(server string) (host string, port int) {
	u, err := url.Parse(server)
	if err != nil {
		return "", 0
	}

	port, err = strconv.Atoi(u.Port())
	switch {
	case err == nil:
	case u.Scheme == "https":
		port = 443
	default:
		port = 80
	}

	return u.Hostname(), port
}
