package batchapi

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/httpserver"
)

// openAPIPath is the path of the description of the API. It needs no key: it has nothing of anyone.
const openAPIPath = "/openapi.json"

// describeAPI makes the description of the API, without operations.
func (s *server) describeAPI() {
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:   "promptmill batch API",
				Version: cmp.Or(s.Version, "0"),
				Description: "Files, Uploads, Batches and Models of OpenAI's API, " +
					"for batches on model servers of one's own.",
			},
			Components: &huma.Components{
				Schemas:         huma.NewMapRegistry("#/components/schemas/", nameSchema),
				SecuritySchemes: map[string]*huma.SecurityScheme{"key": {Type: "http", Scheme: "bearer"}},
			},
		},
		Formats:       huma.DefaultFormats,
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{translateHumaError},
	}

	s.api = humago.New(&s.router, config)
	s.api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) { next(badRequestContext{ctx}) })
}

// humaContext is embedded under this name, since a huma.Context has a method Context.
type humaContext huma.Context

// badRequestContext turns the status and the type of huma's errors into OpenAI's.
type badRequestContext struct{ humaContext }

// Unwrap is for humago.Unwrap.
func (c badRequestContext) Unwrap() huma.Context { return c.humaContext }

// SetHeader implements huma.Context.
func (c badRequestContext) SetHeader(name, value string) {
	if value == "application/problem+json" {
		value = "application/json"
	}
	c.humaContext.SetHeader(name, value)
}

// SetStatus implements huma.Context.
func (c badRequestContext) SetStatus(status int) {
	if status == http.StatusUnprocessableEntity {
		status = http.StatusBadRequest
	}
	c.humaContext.SetStatus(status)
}

// translateHumaError turns huma's error of a wrong parameter into OpenAI's.
func translateHumaError(ctx huma.Context, _ string, v any) (any, error) {
	wrong, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}

	for _, detail := range wrong.Errors {
		in, name, _ := strings.Cut(detail.Location, ".")
		for _, p := range ctx.Operation().Parameters {
			if p.In == in && p.Name == name {
				return refuse(name, "The parameter %s is %q, and must be %s.", name, fmt.Sprint(detail.Value),
					describeValues(p.Schema)), nil
			}
		}
	}

	return refuse("", "The request is wrong: %s.", wrong.Detail), nil
}

// describeValues returns the values of a parameter in words.
func describeValues(schema *huma.Schema) string {
	switch {
	case schema.Minimum != nil && schema.Maximum != nil:
		return fmt.Sprintf("a number from %.0f to %.0f", *schema.Minimum, *schema.Maximum)
	case len(schema.Enum) > 0:
		var values []string
		for _, v := range schema.Enum {
			values = append(values, fmt.Sprint(v))
		}
		last := len(values) - 1

		return strings.TrimPrefix(strings.Join(values[:last], ", ")+" or "+values[last], " or ")
	}

	return "of type " + schema.Type
}

// addOperation adds a route and describes it. An error of its handler is turned into the error for
// the client.
func addOperation[I, O any](s *server, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	if s.Run != nil && op.Method != http.MethodGet && op.OperationID != cancelBatch {
		s.router.mux.HandleFunc(op.Method+" "+op.Path, refuseChange)
		return
	}

	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses["default"] = &huma.Response{
		Description: "The error, in OpenAI's shape.",
		Content:     describeJSON[errorResponse](s),
	}
	op.Security = []map[string][]string{{"key": {}}}

	// huma would read a body that it knows into memory.
	body := op.RequestBody
	op.RequestBody = nil

	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, s.logFault(ctx, err)
		}
		return out, nil
	})
	operationOf(s.api.OpenAPI(), op.Method, op.Path).RequestBody = body
}

// refuseChange answers a request that would create or delete something beside the run of a process.
func refuseChange(w http.ResponseWriter, r *http.Request) {
	drainBody(exchangeOf(r.Context()))
	newFailure(http.StatusBadRequest, "", "read_only",
		"This server is promptmill run, which ends with its run: start promptmill serve --api to create batches.").write(w)
}

// operationOf returns an operation of a description, nil if there is none.
func operationOf(api *huma.OpenAPI, method, path string) *huma.Operation {
	item := api.Paths[path]
	if item == nil {
		return nil
	}

	switch method {
	case http.MethodGet:
		return item.Get
	case http.MethodPost:
		return item.Post
	case http.MethodDelete:
		return item.Delete
	}

	return nil
}

// logFault returns the error for the client, and logs one of the server.
func (s *server) logFault(ctx context.Context, err error) *failure {
	f, fault := toFailure(err)
	if fault && ctx.Err() == nil { // otherwise the client has gone
		s.logError(exchangeOf(ctx).request).Err(err).Msg("failed to handle a request")
	}

	return f
}

// logError begins a line of the log about a request.
func (s *server) logError(r *http.Request) *zerolog.Event {
	return s.Log.Error().Str("method", r.Method).Str("path", r.URL.Path).Str("request", httpserver.RequestID(r.Context()))
}

// describeJSON describes a body with the JSON of a type.
func describeJSON[T any](s *server) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: schemaOf[T](s)}}
}

// addOpenAPI adds the route of the description. All others are there.
func (s *server) addOpenAPI() {
	type output struct{ Body func(huma.Context) }

	var description []byte
	addOperation(s, huma.Operation{
		OperationID: "openapi",
		Method:      http.MethodGet,
		Path:        openAPIPath,
		Summary:     "This description",
		Responses: map[string]*huma.Response{"200": {
			Description: "The description, in OpenAPI 3.1.",
			Content:     map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Type: "object"}}},
		}},
	}, func(context.Context, *struct{}) (*output, error) {
		return &output{func(ctx huma.Context) {
			ctx.SetHeader("Content-Type", "application/json")
			ctx.BodyWriter().Write(description)
		}}, nil
	})

	all := s.api.OpenAPI()
	delete(all.Components.Schemas.Map(), "ErrorModel") // huma's own; no answer has it
	all.Paths[openAPIPath].Get.Security = []map[string][]string{}

	description, _ = json.Marshal(all) // its types have no values that JSON lacks
}
