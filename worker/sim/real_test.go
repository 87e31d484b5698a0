package sim

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/worker/modelserver"
)

var record = flag.Bool("record", false, "record the answers of the real servers")

// recording holds the answers of a real server, from testdata/real.
type recording struct {
	Server  string     `json:"server"` // and its version
	Started string     `json:"started"`
	Answers []exchange `json:"answers"`
}

// exchange is a request and its answer.
type exchange struct {
	Name   string          `json:"name"`
	Path   string          `json:"path"`
	Body   json.RawMessage `json:"body,omitempty"` // a text is sent as it is; none: a GET
	Status int             `json:"status"`
	Type   string          `json:"type,omitempty"`  // of the content
	Close  bool            `json:"close,omitempty"` // the connection, after it
	Answer json.RawMessage `json:"answer"`          // a text is no JSON
}

var wordCount = regexp.MustCompile(`\((\d+) words\)`)

// repeatAt sends the request to a server, and returns its answer.
func (e exchange) repeatAt(t *testing.T, url string) exchange {
	t.Helper()

	method, body := http.MethodGet, []byte(nil)
	if e.Body != nil {
		method, body = http.MethodPost, e.Body
		var text string
		if json.Unmarshal(e.Body, &text) == nil {
			body = []byte(text)
		}

		body = wordCount.ReplaceAllFunc(body, func(m []byte) []byte {
			n, _ := strconv.Atoi(string(wordCount.FindSubmatch(m)[1]))
			list := make([]string, n)
			for i := range list {
				list[i] = fmt.Sprintf("w%d", i%900)
			}
			return []byte(strings.Join(list, " "))
		})
	}

	req, err := http.NewRequestWithContext(t.Context(), method, url+e.Path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}

	req.Header.Set("Content-Type", "application/json")

	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	defer res.Body.Close()

	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}

	if !json.Valid(answer) {
		answer, _ = json.Marshal(string(answer))
	}

	e.Status, e.Type, e.Close, e.Answer = res.StatusCode, res.Header.Get("Content-Type"), res.Close, answer

	return e
}

func readRecording(t *testing.T, name string) recording {
	t.Helper()

	text, err := os.ReadFile(filepath.Join("testdata", "real", name))
	if err != nil {
		t.Fatal(err)
	}

	var r recording
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}

	return r
}

// The simulated servers answer as the real ones in testdata/real did.
func TestAnswersMatchRealServers(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		cfg   Config
		other []string // fields that the real one does not answer
	}{
		// A real vLLM either generates or embeds and ranks, by its model. The simulated one
		// does all.
		{"vllm.json", Config{Flavour: VLLM}, []string{"embeddings", "rerank", "score"}},
		{"llamacpp.json", Config{Flavour: LlamaCPP, Metrics: true}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			tt.cfg.Models, tt.cfg.Slots, tt.cfg.KV, tt.cfg.Prefix, tt.cfg.Tokens = []string{"tiny"}, 4, 1024, 1<<
				16, 2000
			server := httptest.NewServer(New(tt.cfg))
			defer server.Close()

			for _, want := range readRecording(t, tt.name).Answers {
				if slices.Contains(tt.other, want.Name) {
					continue
				}
				for _, difference := range compareAnswers(want, want.repeatAt(t, server.URL), false) {
					t.Errorf("%s: %s", want.Name, difference)
				}
			}
		})
	}
}

// compareAnswers returns the differences of an answer from the real one that is wanted. A
// simulated answer may lack fields that promptmill does not read; one of the same server in another
// version may not.
func compareAnswers(want, got exchange, same bool) (differences []string) {
	differ := func(what string, want, got any) {
		differences = append(differences, fmt.Sprintf("%s: want %v, got %v", what, want, got))
	}
	if got.Status != want.Status {
		differ("status", want.Status, fmt.Sprint(got.Status, " ", string(got.Answer)))
		return differences
	}

	if got.Type != want.Type {
		differ("content type", want.Type, got.Type)
	}

	if got.Close != want.Close {
		differ("close", want.Close, got.Close)
	}

	var a, b any
	if json.Unmarshal(want.Answer, &a) != nil || json.Unmarshal(got.Answer, &b) != nil {
		differ("answer", string(want.Answer), string(got.Answer))
		return differences
	}

	if page, ok := a.(string); ok && page != "" {
		text, _ := b.(string)
		return append(differences, compareMetrics(page, text)...)
	}

	good, members, has := want.Status == http.StatusOK, map[string]string{}, map[string]string{}
	flattenMembers(members, "", a)
	flattenMembers(has, "", b)

	for path, got := range has {
		if got == "null" {
			continue // as good as absent
		}
		if want, ok := members[path]; !ok || !areAlike(path, want, got, good) {
			differ(path, want, got)
		}
	}

	for path, want := range members {
		if _, ok := has[path]; !ok && want != "null" && (same || !good || slices.Contains(membersRead, path)) {
			differ(path, want, "nothing")
		}
	}

	return differences
}

// membersRead are the members of good answers that promptmill reads.
var membersRead = []string{
	".choices[].message.content", ".choices[].text", ".choices[].finish_reason", ".choices[].index", ".model",
	".object", ".id",
	".usage.prompt_tokens", ".usage.completion_tokens", ".usage.total_tokens",
	".usage.prompt_tokens_details.cached_tokens",
	".usage.input_tokens", ".usage.output_tokens", ".usage.input_tokens_details.cached_tokens",
	".status", ".incomplete_details.reason", ".output[].content[].text", ".output[].content[].type",
	".data[].id", ".data[].owned_by", ".data[].max_model_len", ".data[].meta.n_ctx", ".data[].meta.n_ctx_train",
	".data[].meta.n_params", ".data[].meta.size",
	".version", ".total_slots", ".build_info", ".model_path", ".default_generation_settings.n_ctx", "[].is_processing",
	"[].id", "[].n_ctx",
}

// flattenMembers lists the members of a value with their kinds, or with their values if a
// client may depend on these.
func flattenMembers(into map[string]string, path string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			flattenMembers(into, path+"."+name, member)
		}
	case []any:
		for _, element := range v {
			flattenMembers(into, path+"[]", element)
		}
	case string:
		into[path] = "text " + regexp.MustCompile(`\d+`).ReplaceAllString(v, "N")
	case bool:
		into[path] = "bool"
	case float64:
		into[path] = "number"
	case nil:
		into[path] = "null"
	}
}

// areAlike reports whether two members of good answers are of one kind, and equal if they are
// words of the protocol. Those of refusals are equal everywhere, except for the parser's words.
func areAlike(path, want, got string, good bool) bool {
	wantText, isText := strings.CutPrefix(want, "text ")
	gotText, alsoText := strings.CutPrefix(got, "text ")
	switch {
	case isText != alsoText:
		return want == "null"
	case !isText:
		return want == got || want == "null"
	case good && !slices.Contains([]string{
		".object", ".choices[].finish_reason", ".status", ".incomplete_details.reason", ".data[].owned_by",
		".data[].object",
	}, path):
		return true
	case strings.Contains(wantText, "validation error") || strings.Contains(wantText, "parse_error") ||
		wantText == "body.N":
		return gotText != ""
	}

	return wantText == gotText
}

// compareMetrics returns the metrics of a page that the real one lacks, or has as another
// type.
func compareMetrics(page, other string) (differences []string) {
	want, has := parseMetrics(page), parseMetrics(other)
	if len(has) == 0 {
		return []string{"no metrics: " + other}
	}

	for name, labels := range has {
		all, ok := want[name]
		for _, label := range labels {
			ok = ok && slices.Contains(all, label)
		}

		if !ok {
			differences = append(differences, fmt.Sprintf("metric %s: want of %v, got %v", name, all, labels))
		}
	}

	return differences
}

// parseMetrics lists the labels and, first, the type of each metric of a page.
func parseMetrics(page string) map[string][]string {
	metrics := map[string][]string{}
	for line := range strings.Lines(page) {
		var name, kind string
		if n, _ := fmt.Sscanf(line, "# TYPE %s %s", &name, &kind); n == 2 && !strings.HasSuffix(name, "_created") {
			metrics[name] = []string{kind}
			continue
		}

		name, rest, ok := strings.Cut(strings.TrimSpace(line), "{")
		if !ok || metrics[name] == nil {
			continue
		}

		for _, m := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(rest, -1) {
			if !slices.Contains(metrics[name], m[1]) {
				metrics[name] = append(metrics[name], m[1])
			}
		}
	}

	return metrics
}

// Real servers, which the environment names, still answer as in testdata/real. With -record
// their answers are recorded.
func TestRealServersAnswerAsRecorded(t *testing.T) {
	for _, tt := range []struct {
		name, flavour string
		start         func(*testing.T) (url string)
	}{
		{"llamacpp.json", "llama.cpp", startLlamaServer},
		{"vllm.json", "vLLM", func(t *testing.T) string {
			url := os.Getenv("PROMPTMILL_TEST_VLLM")
			if url == "" {
				t.Skip("PROMPTMILL_TEST_VLLM does not name the URL of a vLLM that serves a model as \"tiny\", with --max-model-len 1024 --enable-prompt-tokens-details")
			}
			return url
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := tt.start(t)
			client, err := modelserver.New(url, "")
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()

			info, err := client.Probe(t.Context())
			if err != nil || info.Flavour != tt.flavour || len(info.Models) != 1 || info.Models[0].ID != "tiny" ||
				info.Models[0].ContextLength != 1024 {
				t.Errorf("it is taken for %+v, %v", info, err)
			}

			if load, err := client.Load(t.Context()); err != nil || load.Running != 0 || load.Waiting != 0 {
				t.Errorf("its load is %+v, %v", load, err)
			}

			recorded := readRecording(t, tt.name)
			for i, want := range recorded.Answers {
				got := want.repeatAt(t, url)
				if *record {
					recorded.Answers[i] = shortenAnswer(got)
					continue
				}

				for _, difference := range compareAnswers(want, got, true) {
					t.Errorf("%s, which is %s: %s: %s", info.Flavour, info.Version, want.Name, difference)
				}
			}

			if !*record {
				return
			}

			recorded.Server = tt.flavour + " " + info.Version
			text, err := json.MarshalIndent(recorded, "", "\t")
			if err != nil {
				t.Fatal(err)
			}

			if err := os.WriteFile(filepath.Join("testdata", "real", tt.name), append(text, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// startLlamaServer starts the llama.cpp server that the environment names.
func startLlamaServer(t *testing.T) string {
	t.Helper()

	binary, model := os.Getenv("PROMPTMILL_TEST_LLAMA_SERVER"), os.Getenv("PROMPTMILL_TEST_LLAMA_MODEL")
	if binary == "" || model == "" {
		t.Skip(
			"PROMPTMILL_TEST_LLAMA_SERVER and PROMPTMILL_TEST_LLAMA_MODEL do not name a llama-server and a small GGUF file",
		)
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	cmd := exec.CommandContext(t.Context(), binary, "-m", filepath.Base(model), "--alias", "tiny", "-c", "1024",
		"--metrics", "-t", "1",
		"--host", "127.0.0.1", "--port", strconv.Itoa(port))

	cmd.Dir = filepath.Dir(model)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said

	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()

	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})

	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if res, err := http.Get(url + "/health"); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return url
			}
		}

		select {
		case <-ended:
			t.Fatalf("llama-server has ended:\n%s", &said)
		default:
		}

		if time.Now().After(deadline) {
			t.Fatal("llama-server does not answer")
		}
	}
}

// shortenAnswer leaves out the parts that no test reads: most of a long text, and the buckets
// of histograms.
func shortenAnswer(e exchange) exchange {
	var value any
	if json.Unmarshal(e.Answer, &value) != nil {
		return e
	}

	var cut func(any) any
	cut = func(value any) any {
		switch v := value.(type) {
		case map[string]any:
			for name := range v {
				v[name] = cut(v[name])
			}
		case []any:
			for i := range v {
				v[i] = cut(v[i])
			}
		case string:
			if len(v) > 1000 {
				return strings.ToValidUTF8(v[:100], "")
			}
		}

		return value
	}
	if page, ok := value.(string); ok {
		var kept strings.Builder
		for line := range strings.Lines(page) {
			if !strings.Contains(line, "_bucket{") && !strings.Contains(line, "_created") &&
				!strings.HasPrefix(line, "# HELP") {
				kept.WriteString(line)
			}
		}

		value = kept.String()
	} else {
		value = cut(value)
	}

	e.Answer, _ = json.Marshal(value)

	return e
}
