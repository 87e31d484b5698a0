package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/modelserver"
)

func TestCheckThatHangs(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		defer close(stuck)

		begin := time.Now()
		c := check{"disk", 15 * time.Second, func(context.Context) []Finding { <-stuck; return nil }}
		found := <-c.start(t.Context())
		if len(found) != 1 || found[0].Status != StatusFail || found[0].Detail != "it hangs: no answer within 15s" {
			t.Errorf("got %+v", found)
		}

		if took := time.Since(begin); took != 16*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestCheckTimeout(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		c := check{"bus", time.Second, func(ctx context.Context) []Finding {
			<-ctx.Done()
			return []Finding{{Name: "bus", Status: StatusWarn, Detail: "half of it"}}
		}}
		if found := <-c.start(t.Context()); len(found) != 1 || found[0].Detail != "half of it" {
			t.Errorf("got %+v", found)
		}
	})
}

// Findings are reported in the order of the checks, not in that of their ends.
func TestFindingsInOrder(t *testing.T) {
	t.Parallel()

	last := make(chan struct{})
	var out bytes.Buffer
	d, err := runChecks(t.Context(), []check{
		{"a", time.Minute, func(context.Context) []Finding {
			<-last
			return []Finding{{Name: "a", Status: StatusWarn, Detail: "one", Fix: "do this\nor that"}}
		}},
		{"b", time.Minute, func(context.Context) []Finding {
			defer close(last)
			return []Finding{
				{Name: "b", Status: StatusOK, Detail: "two"},
				{Name: "c", Status: StatusFail, Detail: "three"},
			}
		}},
	}, func(f Finding) { f.Print(&out, false) })
	if err != nil || exit.Code(d.Err()) != exit.CodeError {
		t.Errorf("exit code %d (%v)", exit.Code(d.Err()), err)
	}

	fmt.Fprintln(&out, d.Summary())

	const want = "warn  a               one\n" +
		"                      do this\n" +
		"                      or that\n" +
		"ok    b               two\n" +
		"fail  c               three\n" +
		"1 ok, 1 to look at, 1 failed\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

// The end of the context ends the checks, with any findings by then.
func TestChecksEnd(t *testing.T) {
	t.Parallel()

	ended := errors.New("ended")
	ctx, end := context.WithCancelCause(t.Context())
	defer end(nil)

	_, err := runChecks(ctx, []check{
		{"a", time.Minute, func(ctx context.Context) []Finding {
			end(ended)
			<-ctx.Done()
			return []Finding{{Name: "a", Status: StatusOK}}
		}},
	}, func(Finding) { t.Error("a finding after the end") })
	if !errors.Is(err, ended) {
		t.Errorf("ended with %v", err)
	}
}

func TestDiagnosisErr(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		list []Finding
		want int
	}{
		{"nothing wrong", []Finding{{Status: StatusOK}}, exit.CodeOK},
		{"a warning is no failure", []Finding{{Status: StatusWarn}}, exit.CodeOK},
		{"a failure", []Finding{{Status: StatusFail}, {Status: StatusOK}}, exit.CodeError},
		{"what a flag names is away", []Finding{
			{Status: StatusFail},
			{Status: StatusFail, unreachable: true},
		}, exit.CodeUnreachable},
	} {
		d := Diagnosis{Checks: tt.list}
		d.OK = d.Count(StatusFail) == 0
		if got := exit.Code(d.Err()); got != tt.want {
			t.Errorf("%s: exit code %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestThresholds(t *testing.T) {
	t.Parallel()

	account := func(most int64, stored, reserved uint64) jetstream.AccountInfo {
		a := jetstream.AccountInfo{}
		a.Limits.MaxStore, a.Store, a.ReservedStore = most, stored, reserved
		return a
	}

	limits := bus.Limits{WorkBytes: 100, ResultsBytes: 100}
	strict, floor := place{what: "output", need: 1000, strict: true}, place{what: "state", need: 1000}
	for _, tt := range []struct {
		name string
		got  Finding
		want Status
	}{
		{"clocks agree", judgeClock(10*time.Microsecond, time.Millisecond), StatusOK},
		{"clock one second ahead", judgeClock(time.Second, 0), StatusOK},
		{"clock more than a second ahead", judgeClock(1001*time.Millisecond, 0), StatusWarn},
		{"clock more than a second behind", judgeClock(-1001*time.Millisecond, 0), StatusWarn},
		{"clock unsure by the round trip", judgeClock(1500*time.Millisecond, time.Second), StatusOK},
		{"no limit of the store", judgeStore(account(-1, 1<<40, 1<<40), limits), StatusOK},
		{"room for one more run", judgeStore(account(1000, 0, 800), limits), StatusOK},
		{"no room: set aside", judgeStore(account(1000, 0, 801), limits), StatusWarn},
		{"no room: stored", judgeStore(account(1000, 801, 0), limits), StatusWarn},
		{"no room for three copies", judgeStore(account(1000, 0, 800), bus.Limits{
			WorkBytes:    100,
			ResultsBytes: 100,
			Replicas:     3,
		}), StatusWarn},
		{"files for all requests", judgeOpenFiles(2048+otherFiles, 2048), StatusOK},
		{"files for one fewer", judgeOpenFiles(2048+otherFiles-1, 2048), StatusWarn},
		{"space as estimated", strict.judge(1000, 0), StatusOK},
		{"less space than the output needs", strict.judge(999, 0), StatusFail},
		{"less space than a bus would like", floor.judge(999, 0), StatusWarn},
		{"sync as fast as it must be", floor.judge(1000, slowSync), StatusOK},
		{"slow sync", floor.judge(1000, slowSync+1), StatusWarn},
	} {
		if tt.got.Status != tt.want {
			t.Errorf("%s: %s, want %s: %s", tt.name, tt.got.Status, tt.want, tt.got.Detail)
		}
		if (tt.got.Fix != "") != (tt.want != StatusOK) {
			t.Errorf("%s: fix %q", tt.name, tt.got.Fix)
		}
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()

	for n, want := range map[int64]string{
		0:              "0 B",
		999:            "999 B",
		1000:           "1.0 kB",
		9949:           "9.9 kB",
		9950:           "10 kB",
		999_499:        "999 kB",
		999_500:        "1.0 MB",
		82_000_000_000: "82 GB",
		1 << 62:        "4.6 EB",
	} {
		if got := formatBytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}

	for d, want := range map[time.Duration]string{
		0:                       "0.0 ms",
		340 * time.Microsecond:  "0.3 ms",
		62 * time.Millisecond:   "62 ms",
		2500 * time.Millisecond: "2.5 s",
	} {
		if got := formatTime(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

func TestDrift(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	if err := bus.CreateBuckets(t.Context(), js, bus.Limits{}); err != nil {
		t.Fatal(err)
	}

	m := proto.Manifest{
		Schema: proto.ManifestSchema,
		Run:    "r",
		State:  proto.StateInProgress,
		Input:  proto.Input{Requests: 3, Models: map[string]int{"a": 1, "b": 2}},
	}
	if err := bus.EnsureStreams(t.Context(), js, m, bus.Limits{WorkBytes: 1 << 20, ResultsBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}

	opened, err := bus.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}

	runs := opened.Runs
	if err := runs.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}

	look := func() map[Status][]string {
		found := map[Status][]string{}
		for _, f := range checkBus(t.Context(), &busconn.Connection{Conn: js.Conn(), JS: js, Name: "bus"}, "", 0) {
			found[f.Status] = append(found[f.Status], f.Name+": "+f.Detail)
		}
		return found
	}

	found := look()
	if len(found[StatusWarn])+len(found[StatusFail]) > 0 {
		t.Fatalf("as made: %q", found)
	}

	// Each of these is one warning.
	work := bus.WorkStreamConfig("r", bus.Limits{})
	work.MaxMsgs = 10
	if _, err := js.UpdateStream(t.Context(), work); err != nil {
		t.Fatal(err)
	}

	consumer := bus.ConsumerConfig("r", "a")
	consumer.MaxDeliver, consumer.AckWait = 5, time.Hour
	if _, err := js.UpdateConsumer(t.Context(), work.Name, consumer); err != nil {
		t.Fatal(err)
	}

	if err := js.DeleteConsumer(t.Context(), work.Name, proto.ConsumerName("b")); err != nil {
		t.Fatal(err)
	}

	if err := js.DeleteStream(t.Context(), proto.ResultsStream("r")); err != nil {
		t.Fatal(err)
	}

	presence, err := js.Stream(t.Context(), "KV_"+proto.PresenceBucket)
	if err != nil {
		t.Fatal(err)
	}

	cfg := presence.CachedInfo().Config
	cfg.MaxAge = time.Hour
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}

	found = look()
	want := []string{
		"buckets: promptmill_presence differs from promptmill's settings: max_age is 1h0m0s instead of 15s",
		"run r: stream pm_r_results is missing",
		"run r: stream pm_r_work: max_msgs is 10 instead of -1, max_bytes is not set, so nothing holds the producer back",
		"run r: consumer " + proto.ConsumerName("a") +
			` of model "a": ack_wait is 1h0m0s instead of 30s, max_deliver is 5 instead of -1`,
		"run r: consumer " + proto.ConsumerName("b") + ` of model "b" is missing`,
	}
	if diff := cmp.Diff(want, found[StatusWarn]); diff != "" || len(found[StatusFail]) > 0 {
		t.Error(diff, found[StatusFail])
	}
}

func TestCheckReplicas(t *testing.T) {
	t.Parallel()

	info := func(copies int, c jetstream.ClusterInfo) jetstream.StreamInfo {
		return jetstream.StreamInfo{Config: jetstream.StreamConfig{Replicas: copies}, Cluster: &c}
	}
	for _, tt := range []struct {
		name string
		info jetstream.StreamInfo
		want string // in the detail of the one finding
	}{
		{"a single server", info(1, jetstream.ClusterInfo{Leader: "a"}), ""},
		{"three copies", info(3, jetstream.ClusterInfo{
			Name:     "c",
			Leader:   "a",
			Replicas: []*jetstream.PeerInfo{{Name: "b", Current: true}},
		}), ""},
		{"one copy", info(1, jetstream.ClusterInfo{Name: "c", Leader: "a"}), "one copy"},
		{"no leader", info(3, jetstream.ClusterInfo{Name: "c"}), "no leader"},
		{"a copy behind", info(3, jetstream.ClusterInfo{
			Name:     "c",
			Leader:   "a",
			Replicas: []*jetstream.PeerInfo{{Name: "b"}},
		}), "server b is away or behind"},
		{"a copy away", info(3, jetstream.ClusterInfo{
			Name:     "c",
			Leader:   "a",
			Replicas: []*jetstream.PeerInfo{{Name: "b", Current: true, Offline: true}},
		}), "server b is away or behind"},
	} {
		list := checkReplicas("x", "s", tt.info)
		if (tt.want == "") != (len(list) == 0) || len(list) > 0 && !strings.Contains(list[0].Detail, tt.want) {
			t.Errorf("%s: %+v", tt.name, list)
		}
	}
}

func TestProbeModel(t *testing.T) {
	t.Parallel()

	// answers maps a path to the status that the server answers; it answers 404 to other paths.
	type answers map[string]int
	for _, tt := range []struct {
		name    string
		answers answers
		want    Status
		words   string
	}{
		{"a chat model", answers{"/v1/chat/completions": 200}, StatusOK, "m answered /v1/chat/completions in "},
		{"a base model without a chat template", answers{"/v1/chat/completions": 400, "/v1/completions": 200}, StatusOK,
			"answered /v1/completions"},
		{"a model of embeddings", answers{"/v1/embeddings": 200}, StatusOK, "answered /v1/embeddings"},
		{"a model that ranks", answers{"/v1/rerank": 200}, StatusOK, "answered /v1/rerank"},
		{"a model that scores", answers{"/v1/score": 200}, StatusOK, "answered /v1/score"},
		{"a key is missing", answers{"/v1/chat/completions": 401}, StatusFail, "refuses the key: status 401"},
		{"busy", answers{"/v1/chat/completions": 503}, StatusWarn, "is busy: status 503, it says {}"},
		{"nothing works", answers{"/v1/chat/completions": 500}, StatusFail,
			"m of URL answers nothing that was tried; /v1/chat/completions: status 500, it says {}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				status, ok := tt.answers[r.URL.Path]
				if !ok {
					status = 404
				}

				w.WriteHeader(status)
				if status == 200 {
					fmt.Fprint(w, `{"choices":[{"text":"yes"}],"data":[{"embedding":[1],"score":1}]}`)
					return
				}

				fmt.Fprint(w, "it\nsays {}")
			}))
			defer s.Close()

			server, err := modelserver.New(s.URL, "")
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()

			f := probeModel(t.Context(), server, modelserver.Info{}, "m")
			if f.Status != tt.want || !strings.Contains(strings.ReplaceAll(f.Detail, s.URL, "URL"), tt.words) {
				t.Errorf("got %+v", f)
			}
		})
	}
}

func TestProbeModelWithoutAnswer(t *testing.T) {
	t.Parallel()

	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"detail":"no"}`)
	}))
	defer s.Close()

	server, err := modelserver.New(s.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	f := probeModel(t.Context(), server, modelserver.Info{}, "m")
	if f.Status != StatusFail || !strings.Contains(f.Detail, `/v1/chat/completions: status 200, {"detail":"no"}`) {
		t.Errorf("got %+v", f)
	}
}

func TestProbeModelThatHangs(t *testing.T) {
	t.Parallel()

	asked := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // only then is it seen that the client has gone
		close(asked)
		<-r.Context().Done()
	}))
	defer s.Close()

	server, err := modelserver.New(s.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if f := probeModel(ctx, server, modelserver.Info{}, "m"); f.Status != StatusFail ||
		!strings.Contains(f.Detail, "did not answer /v1/chat/completions in time") {
		t.Errorf("got %+v", f)
	}
}

func TestPickModel(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		models []modelserver.Model
		want   string
	}{
		{"no list", nil, "default"},
		{"the first", []modelserver.Model{{ID: "a"}, {ID: "b"}}, "a"},
		{"the one with a context", []modelserver.Model{{ID: "a"}, {ID: "b", ContextLength: 4096}}, "b"},
	} {
		if got := pickModel(modelserver.Info{Models: tt.models}); got != tt.want {
			t.Errorf("%s: %s", tt.name, got)
		}
	}
}

func TestEstimateSpace(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	line := `{"prompt":"` + strings.Repeat("x", 1000-14) + "\"}\n" // 1,000 bytes
	write := func(name string, lines int, packed bool) string {
		text := []byte(strings.Repeat(line, lines))
		if packed {
			e, err := zstd.NewWriter(nil)
			if err != nil {
				t.Fatal(err)
			}
			text = e.EncodeAll(text, nil)
			e.Close()
		}

		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}

		return path
	}

	small, large, packed := write("small", 10, false), write("large", 10_000, false), write("packed", 100, true)
	for _, tt := range []struct {
		name   string
		inputs []string
		want   space
	}{
		{"a small file is read whole", []string{small}, space{requests: 10, text: 10_000, exact: true}},
		{"and so is a packed one", []string{packed}, space{requests: 100, text: 100_000, exact: true}},
		{"a large one is extrapolated", []string{large}, space{requests: 10_000, text: 10_000_000, exact: false}},
		{"several", []string{small, packed}, space{requests: 110, text: 110_000, exact: true}},
	} {
		got, err := estimateSpace(t.Context(), inputfile.Local{}, tt.inputs, proto.Settings{})
		if off := got.requests - tt.want.requests; err != nil || off < -10 || off > 10 || got.text != tt.want.text ||
			got.exact != tt.want.exact {
			t.Errorf("%s: %+v, %v, want %+v", tt.name, got, err, tt.want)
		}
	}

	if _, err := estimateSpace(t.Context(), inputfile.Local{}, []string{"-"}, proto.Settings{}); exit.Code(err) != exit.CodeUsage {
		t.Errorf("standard input: %v", err)
	}

	if got := (space{requests: 1_500_000}).outputBytes(); got != 4_000_000_000 {
		t.Errorf("1.5 million requests: %d bytes", got)
	}
}

// The first rows of a table stand for all.
func TestEstimateRows(t *testing.T) {
	t.Parallel()

	write := func(name string, rows int, cell string) string {
		path := filepath.Join(t.TempDir(), name)
		text := "id,text\n" + strings.Repeat("1,"+cell+"\n", rows)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}

	small, large, empty := write("small.csv", 3, "abc"), write("large.csv", 20_000, strings.Repeat("x", 1000)),
		write("empty.csv", 2, "")

	s := proto.Settings{Rows: &proto.Rows{Prompt: "{{.text}}"}}
	for path, want := range map[string]space{
		small: {requests: 3, exact: true},
		large: {requests: 20_000},
	} {
		got, err := estimateSpace(t.Context(), inputfile.Local{}, []string{path}, s)
		off := got.requests - want.requests
		if err != nil || off < -50 || off > 50 || got.exact != want.exact || !got.rows || got.text < got.requests*3 {
			t.Errorf("%s: %+v, %v, want %+v", path, got, err, want)
		}
	}

	_, err := estimateSpace(t.Context(), inputfile.Local{}, []string{empty}, s)
	if want := "2 of the first 2 rows cannot be sent: " + files.Short(empty) + ", row 1 (line 2): the row has nothing in the column text"; err == nil ||
		err.Error() != want {
		t.Errorf("rows without prompts: %v, want %s", err, want)
	}
}

func TestStatusColour(t *testing.T) {
	t.Parallel()
	if got := StatusOK.format(false); got != "ok  " {
		t.Errorf("without colours %q", got)
	}
	if got := StatusFail.format(true); got != "\x1b[31mfail\x1b[0m" {
		t.Errorf("with colours %q", got)
	}
}

func TestFailedFinding(t *testing.T) {
	t.Parallel()
	f := failedFinding("bus", exit.Unreachable(errors.New("away"), "start it"))
	if diff := cmp.Diff(
		Finding{"bus", StatusFail, "away", "start it", true}, f, cmp.AllowUnexported(Finding{}),
	); diff != "" {
		t.Error(diff)
	}
}

// A load balancer with two servers is found at the first check.
func TestCheckGaugesOfSeveralServers(t *testing.T) {
	t.Parallel()

	for _, started := range [][]int{{50, 80}, {50, 50}} {
		var asked atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/models":
				fmt.Fprint(w, `{"object":"list","data":[{"id":"m","owned_by":"vllm"}]}`)
			case "/metrics":
				n := int(asked.Add(1)) % 2
				fmt.Fprintf(w,
					"vllm:num_requests_running 1\nvllm:num_requests_waiting 0\nprocess_start_time_seconds %d\n",
					started[n])
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		}))

		t.Cleanup(server.Close)

		var details []string
		for _, f := range checkNamedServer(t.Context(), modelservers.Config{}, server.URL, "m") {
			details = append(details, string(f.Status)+" "+f.Detail)
		}

		text := strings.Join(details, "\n")
		want := "warn " + server.URL +
			" leads to more than one server (the start time went back), so concurrency is found more slowly"
		if strings.Contains(text, want) != (started[0] != started[1]) {
			t.Errorf("with start times %v:\n%s", started, text)
		}
	}
}
