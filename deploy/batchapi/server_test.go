package batchapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/promptmill/promptmill/deploy/apikey"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/proto"
)

// fixture is a server with files on disk and batches of a test.
type fixture struct {
	t       *testing.T
	dir     string
	files   *filestore.Store
	batches *fakeBatches
	keys    fakeKeys
	workers []proto.WorkerInfo
	busErr  error
	keysErr error
	log     bytes.Buffer

	handler *server
	server  *httptest.Server
	// compiler has the description, see checkDescribed.
	compiler *jsonschema.Compiler
	url      string
}

// fakeKeys has keys by their secrets. Nil: none are needed.
type fakeKeys map[string]apikey.Key

func (k fakeKeys) Authenticate(secret string) (apikey.Key, bool, error) {
	key, ok := k[secret]
	return key, ok, nil
}

// brokenKeys are keys that cannot be read.
type brokenKeys struct{ err error }

func (k brokenKeys) Authenticate(string) (apikey.Key, bool, error) { return apikey.Key{}, false, k.err }

// start starts a server. Options change it first.
func start(t *testing.T, options ...func(*fixture)) *fixture {
	t.Helper()

	f := &fixture{t: t, dir: t.TempDir()}

	var err error
	if f.files, err = filestore.Open(f.dir, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.files.Close() })

	f.batches = &fakeBatches{files: f.files, outputs: map[string]*fakeOutput{}}
	for _, o := range options {
		o(f)
	}

	cfg := Config{
		Files:   f.files,
		Batches: f.batches,
		Models:  func(context.Context) ([]proto.WorkerInfo, error) { return f.workers, f.busErr },
		Version: "1.2.3",
		Log:     zerolog.New(&f.log),
	}
	if f.keys != nil {
		cfg.Keys = f.keys
	}
	if f.keysErr != nil {
		cfg.Keys = brokenKeys{f.keysErr}
	}

	handler, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.handler = handler.(*server)

	f.server = httptest.NewServer(handler)
	t.Cleanup(f.server.Close)
	f.url = f.server.URL

	return f
}

// answer is an answer with its whole body.
type answer struct {
	status int
	header http.Header
	body   string
}

// send sends a request and checks its answer against the description of the API.
func (f *fixture) send(method, path string, header http.Header, body io.Reader) answer {
	f.t.Helper()

	req, err := http.NewRequestWithContext(f.t.Context(), method, f.url+path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}

	resp, err := (&http.Transport{DisableCompression: true}).RoundTrip(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()

	text, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}

	a := answer{resp.StatusCode, resp.Header, string(text)}
	f.checkDescribed(req, a)

	return a
}

// get sends a GET.
func (f *fixture) get(path string) answer {
	f.t.Helper()
	return f.send(http.MethodGet, path, nil, nil)
}

// post sends a JSON body.
func (f *fixture) post(path, body string) answer {
	f.t.Helper()
	return f.send(http.MethodPost, path, http.Header{"Content-Type": {"application/json"}}, strings.NewReader(body))
}

// formPart is a part of a form; with a file name, it is a file.
type formPart struct{ name, filename, value string }

// formOf returns a form and its header.
func formOf(parts ...formPart) (http.Header, string) {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for _, p := range parts {
		var part io.Writer
		if p.filename != "" {
			part, _ = w.CreateFormFile(p.name, p.filename)
		} else {
			part, _ = w.CreateFormField(p.name)
		}
		io.WriteString(part, p.value)
	}
	w.Close()

	return http.Header{"Content-Type": {w.FormDataContentType()}}, body.String()
}

// upload uploads a file.
func (f *fixture) upload(text string) fileObject {
	f.t.Helper()

	header, body := formOf(formPart{name: "purpose", value: "batch"}, formPart{"file", "input.jsonl", text})

	return decode[fileObject](f.t, f.send(http.MethodPost, "/v1/files", header, strings.NewReader(body)))
}

// decode reads the body of an answer with the status 200.
func decode[T any](t *testing.T, a answer) (v T) {
	t.Helper()

	if a.status != http.StatusOK {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatal(err)
	}

	return v
}

// checkError checks an error to the letter.
func (a answer) checkError(t *testing.T, status int, param, code, message string) {
	t.Helper()

	want := newFailure(status, param, code, "%s", message)
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}

	if a.status != status || strings.TrimSpace(a.body) != string(text) {
		t.Errorf("answer %d\n%s, want %d\n%s", a.status, a.body, status, text)
	}
}

// countStored returns the number of files on the disk of the store.
func (f *fixture) countStored() int {
	f.t.Helper()

	found := 0
	err := filepath.WalkDir(f.dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != "lock" {
			found++
		}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}

	return found
}

// workerOf returns the announcement of a worker.
func workerOf(flavour string, at int64, models ...string) proto.WorkerInfo {
	return proto.WorkerInfo{Ready: true, Flavour: flavour, Models: models, Since: time.Unix(at, 0)}
}
