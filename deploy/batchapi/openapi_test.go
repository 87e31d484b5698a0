package batchapi

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// checkDescribed checks that the answer to a request is one that /openapi.json describes.
func (f *fixture) checkDescribed(r *http.Request, a answer) {
	f.t.Helper()

	if r.Method == http.MethodHead {
		return // it is that of GET without a body
	}

	_, pattern := f.handler.router.mux.Handler(r)
	status := strconv.Itoa(a.status)

	path, method := openAPIPath, http.MethodGet // of an unknown route, errors have one shape
	if pattern != "" {
		method, path, _ = strings.Cut(pattern, " ")
		path = strings.Replace(path, "{model...}", "{model}", 1)
	}

	op := operationOf(f.handler.api.OpenAPI(), method, path)
	if op == nil {
		f.t.Fatalf("%s %s is not described", method, path)
	}

	response := "default"
	if op.Responses[status] != nil {
		response = status
	}

	content := op.Responses[response].Content
	kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	if content[kind] == nil {
		f.t.Errorf("%s %s: status %d has the type %q, which is not described", method, path, a.status, kind)
		return
	}

	if kind != "application/json" {
		return
	}

	place := []string{"paths", path, strings.ToLower(method), "responses", response, "content", kind, "schema"}
	for i, p := range place {
		place[i] = strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(p)
	}
	schema, err := f.description().Compile("api.json#/" + strings.Join(place, "/"))
	if err != nil {
		f.t.Fatal(err)
	}

	value, err := jsonschema.UnmarshalJSON(strings.NewReader(a.body))
	if err != nil {
		f.t.Fatalf("%s %s: %v in %s", method, path, err, a.body)
	}

	if err := schema.Validate(value); err != nil {
		f.t.Errorf("%s %s answers %s\n%v", method, path, a.body, err)
	}
}

// description returns a compiler that has the description.
func (f *fixture) description() *jsonschema.Compiler {
	f.t.Helper()

	if f.compiler != nil {
		return f.compiler
	}

	text, err := f.handler.api.OpenAPI().MarshalJSON()
	if err != nil {
		f.t.Fatal(err)
	}

	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		f.t.Fatal(err)
	}

	f.compiler = jsonschema.NewCompiler()
	if err := f.compiler.AddResource("api.json", value); err != nil {
		f.t.Fatal(err)
	}

	return f.compiler
}

// TestDescriptionIsComplete compares the routes with the description, both ways.
func TestDescriptionIsComplete(t *testing.T) {
	f := start(t)

	var described []string
	api := f.handler.api.OpenAPI()
	for path := range api.Paths {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			if operationOf(api, method, path) != nil {
				described = append(described, method+" "+path)
			}
		}
	}

	routes := slices.Clone(f.handler.router.patterns)
	slices.Sort(routes)
	slices.Sort(described)
	if !slices.Equal(routes, described) {
		t.Errorf("routes\n%s\ndescribed\n%s", strings.Join(routes, "\n"), strings.Join(described, "\n"))
	}

	want := []string{
		"DELETE /v1/files/{file_id}",
		"GET /openapi.json",
		"GET /v1/batches",
		"GET /v1/batches/{batch_id}",
		"GET /v1/batches/{batch_id}/results",
		"GET /v1/files",
		"GET /v1/files/{file_id}",
		"GET /v1/files/{file_id}/content",
		"GET /v1/models",
		"GET /v1/models/{model}",
		"POST /v1/batches",
		"POST /v1/batches/{batch_id}/cancel",
		"POST /v1/files",
		"POST /v1/uploads",
		"POST /v1/uploads/{upload_id}/cancel",
		"POST /v1/uploads/{upload_id}/complete",
		"POST /v1/uploads/{upload_id}/parts",
	}
	if !slices.Equal(routes, want) {
		t.Errorf("routes\n%s", strings.Join(routes, "\n"))
	}
}

// TestDescriptionIsValid checks what clients get with the schema of OpenAPI 3.1, of
// https://spec.openapis.org/oas/3.1/schema (Apache License 2.0), and each schema in it with JSON Schema 2020-12.
func TestDescriptionIsValid(t *testing.T) {
	f := start(t)

	a := f.get(openAPIPath)
	description, err := jsonschema.UnmarshalJSON(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}

	schema, err := jsonschema.NewCompiler().Compile("testdata/openapi-3.1.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(description); err != nil {
		t.Error(err)
	}

	// All references lead somewhere, too.
	compiler := f.description()
	for name := range f.handler.api.OpenAPI().Components.Schemas.Map() {
		if _, err := compiler.Compile("api.json#/components/schemas/" + name); err != nil {
			t.Error(err)
		}
	}

	info := description.(map[string]any)["info"].(map[string]any)
	if info["version"] != "1.2.3" {
		t.Errorf("%v", info)
	}
}
