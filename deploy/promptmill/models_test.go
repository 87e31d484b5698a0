package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
)

// lister is a model server that lists given models, answers for all, and records
// which were asked for.
type lister struct {
	url string

	mu    sync.Mutex
	asked []string
}

func newLister(t *testing.T, status int, list string) *lister {
	t.Helper()

	l := &lister{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/models":
			w.WriteHeader(status)
			io.WriteString(w, list)
		case "/v1/chat/completions":
			var body struct{ Model string }
			json.NewDecoder(r.Body).Decode(&body)
			l.mu.Lock()
			defer l.mu.Unlock()

			l.asked = append(l.asked, body.Model)
			fmt.Fprintf(w,
				`{"id":"chatcmpl-%d","object":"chat.completion","model":%q,"choices":[{"index":0,"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}]}`,
				len(l.asked), body.Model)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))

	t.Cleanup(s.Close)
	l.url = s.URL

	return l
}

// models returns the requested models, each once.
func (l *lister) models() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	// that is no request
	names := slices.DeleteFunc(slices.Clone(l.asked), func(name string) bool { return name == "" })
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " ")
}

// naming writes an input whose lines name models, or none where a name is empty.
func (c command) naming(name string, models ...string) string {
	c.t.Helper()

	var text strings.Builder
	for i, model := range models {
		member := ""
		if model != "" {
			member = fmt.Sprintf(`,"model":%q`, model)
		}
		fmt.Fprintf(&text,
			"{\"custom_id\":\"q-%d\",\"messages\":[{\"role\":\"user\",\"content\":\"question %d\"}]%s}\n", i, i, member)
	}

	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text.String()), 0o600); err != nil {
		c.t.Fatal(err)
	}

	return name
}

const (
	ollamaList   = `{"object":"list","data":[{"id":"llama3:latest","object":"model","owned_by":"library"}]}`
	namesList    = `{"object":"list","data":[{"id":"a","root":"/m","owned_by":"vllm"},{"id":"b","root":"/m","owned_by":"vllm"}]}`
	twoList      = `{"object":"list","data":[{"id":"Qwen/Qwen3-8B"},{"id":"y"}]}`
	patternsList = `{"object":"list","data":[{"id":"openai/*"},{"id":"y"}]}`
)

// Models are taken as servers list them: under several names, by patterns, or not at all.
func TestModelsAsServersListThem(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		status int
		list   string
		models []string // that the lines name
		args   []string
		code   int
		said   string
		asked  string
	}{
		"Ollama's only model":      {200, ollamaList, []string{""}, nil, exit.CodeOK, "1 answered", "llama3:latest"},
		"Ollama's without its tag": {200, ollamaList, []string{"llama3"}, nil, exit.CodeOK, "1 answered", "llama3"},
		"several names of one":     {200, namesList, []string{"", "b"}, nil, exit.CodeOK, "2 answered", "a b"},
		"two": {200, twoList, []string{""}, nil, exit.CodeUsage,
			"hint: name one with --model NAME: there are Qwen/Qwen3-8B, y", ""},
		"one that is not there": {200, twoList, []string{"z"}, nil, exit.CodeUsage,
			"hint: send all requests to another with --override-model NAME, or start a server with that model", ""},
		"another case": {200, twoList, []string{"qwen/qwen3-8b"}, nil, exit.CodeUsage,
			"hint: did you mean Qwen/Qwen3-8B? Else send all requests", ""},
		"without its maker": {200, twoList, []string{"Qwen3-8B"}, nil, exit.CodeUsage,
			"hint: did you mean Qwen/Qwen3-8B? Else send all requests", ""},
		"a pattern": {200, patternsList, []string{"openai/m", "y"}, nil, exit.CodeOK,
			"2 answered", "openai/m y"},
		"no pattern's": {200, patternsList, []string{"azure/m"}, nil, exit.CodeUsage,
			`the server has openai/*, y`, ""},
		"all sent to one": {200, twoList, []string{"z", "", "y"}, []string{"--override-model", "y"}, exit.CodeOK,
			"3 answered", "y"},
		"all sent to none": {200, twoList, []string{"y"}, []string{"--override-model", "z"}, exit.CodeUsage,
			`1 requests name the model "z"`, ""},
		"a model and all": {200, twoList, []string{"y"}, []string{"--override-model", "y", "--model", "y"},
			exit.CodeUsage, "hint: leave out one of them", ""},
		"an empty list": {200, `{"object":"list","data":[]}`, []string{"z"}, nil, exit.CodeOK, "1 answered", "z"},
		"null":          {200, `{"object":"list","data":null}`, []string{"z"}, nil, exit.CodeOK, "1 answered", "z"},
		"no list":       {404, `{}`, []string{"z"}, nil, exit.CodeOK, "does not list its models", "z"},
		"a list for a key": {401, `{}`, []string{""}, nil, exit.CodeUnreachable,
			"hint: set PROMPTMILL_API_KEY to a key that the server takes, or name a model with --model", ""},
		"a list for a key only": {403, `{}`, []string{"z"}, nil, exit.CodeOK, "1 answered", "z"},
		"a list that fails":     {500, `oops`, []string{"z"}, nil, exit.CodeOK, "does not list its models", "z"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, c := newLister(t, tt.status, tt.list), newCommand(t)
			said, code := c.run(append([]string{"run", c.naming("in.jsonl", tt.models...), "--url", l.url},
				tt.args...)...)
			if code != tt.code || !strings.Contains(said, tt.said) || l.models() != tt.asked {
				t.Errorf("exit code %d, asked for %q\n%s", code, l.models(), said)
			}
		})
	}
}

// A server that can list no models, and fails an empty request, may serve a model that is named.
func TestServerWithoutListIsTried(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		refused string // the answer to whole requests; empty: they are answered
		args    []string
		code    int
		said    string
	}{
		"the model is named":  {"", []string{"--model", "m"}, exit.CodeOK, "does not list its models"},
		"all are sent to one": {"", []string{"--override-model", "m"}, exit.CodeOK, "1 answered"},
		"none is named": {"", nil, exit.CodeUnreachable,
			"500 Internal Server Error: no cache; and a request fails: status 500 Internal Server Error: KeyError 'model'"},
		"its requests fail, too": {"CB worker died", []string{"--model", "m"}, exit.CodeUnreachable,
			"and a request fails: status 503 Service Unavailable: CB worker died\n" +
				"promptmill: hint: look at the log of your model server, or name another one with --url"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var body struct{ Model string }
				switch json.NewDecoder(r.Body).Decode(&body); {
				case r.URL.Path == "/v1/models":
					w.WriteHeader(http.StatusInternalServerError)
					io.WriteString(w, `{"detail":"no cache"}`)
				case r.Method == http.MethodGet:
					http.NotFound(w, r)
				case body.Model == "":
					w.WriteHeader(http.StatusInternalServerError)
					io.WriteString(w, "KeyError 'model'")
				case tt.refused != "":
					w.WriteHeader(http.StatusServiceUnavailable)
					io.WriteString(w, `{"error":"`+tt.refused+`"}`)
				default:
					io.WriteString(w,
						`{"choices":[{"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}]}`)
				}
			}))
			t.Cleanup(server.Close)

			c := newCommand(t)
			said, code := c.run(append([]string{"run", c.naming("in.jsonl", ""), "--url", server.URL}, tt.args...)...)
			if code != tt.code || !strings.Contains(said, tt.said) {
				t.Errorf("exit code %d\n%s", code, said)
			}
		})
	}
}

// Which model all requests go to is a setting of the run.
func TestOverrideModelIsKept(t *testing.T) {
	t.Parallel()

	l, c := newLister(t, 200, twoList), newCommand(t)
	in := c.naming("in.jsonl", "y")
	c.must("run", in, "--url", l.url, "--override-model", "Qwen/Qwen3-8B")
	if said, code := c.run("run", in, "--url", l.url); code != exit.CodeError ||
		!strings.Contains(said, "--override-model was Qwen/Qwen3-8B and is none now") {
		t.Errorf("exit code %d\n%s", code, said)
	}

	c.must("run", in, "--url", l.url, "--override-model", "Qwen/Qwen3-8B")
	if l.models() != "Qwen/Qwen3-8B" {
		t.Errorf("asked for %q", l.models())
	}
}

// On a bus, patterns and names count as they do at a server, and submit takes the model
// that all workers have.
func TestModelsOnABus(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.serve()
	l := newLister(t, 200, ollamaList)
	c.start("worker", "--url", l.url, "--name", "one")
	poll(t, pollTime, "the worker", func() bool { return strings.Contains(c.must("workers"), "llama3") })

	if said, code := c.run("submit", c.naming("default.jsonl", ""), "--run", "default"); code != exit.CodeOK ||
		!strings.Contains(said, "model llama3:latest, the only one that workers on this bus serve\n") {
		t.Errorf("exit code %d\n%s", code, said)
	}
	c.ended("default", pollTime)
	c.must("submit", c.naming("named.jsonl", "llama3", "llama3:latest"), "--run", "named")
	c.ended("named", pollTime)

	if l.models() != "llama3 llama3:latest" {
		t.Errorf("asked for %q", l.models())
	}

	if said, code := c.run("submit", c.naming("foreign.jsonl", "gpt-4o"), "--run", "foreign"); code != exit.CodeOK ||
		!strings.Contains(said, "requests for gpt-4o wait for a worker that serves it; "+
			"workers on this bus serve llama3, llama3:latest, and --override-model NAME sends all requests to one model\n") {
		t.Errorf("exit code %d\n%s", code, said)
	}

	gateway := newLister(t, 200, patternsList)
	c.start("worker", "--url", gateway.url, "--name", "two")
	poll(t, pollTime, "the other worker", func() bool { return strings.Contains(c.must("workers"), "openai/*") })
	c.must("submit", c.naming("pattern.jsonl", "openai/m"), "--run", "pattern")
	c.ended("pattern", pollTime)
	c.must("submit", c.naming("all.jsonl", "z", ""), "--run", "all", "--override-model", "openai/n")
	c.ended("all", pollTime)
	if gateway.models() != "openai/m openai/n" {
		t.Errorf("asked for %q", gateway.models())
	}

	if said, code := c.run("submit", c.naming("none.jsonl", ""), "--run", "none"); code != exit.CodeUsage ||
		!strings.Contains(said, "hint: name one with --model NAME: workers on this bus serve llama3, llama3:latest, openai/*, y") {
		t.Errorf("exit code %d\n%s", code, said)
	}
}
