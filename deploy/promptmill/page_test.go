package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/page"
	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/proto"
)

// pageOf finds the URL of the page in the output of a command.
var pageOf = regexp.MustCompile(`page: (http://\S+/)`)

// pageViewer looks at the page of a process.
type pageViewer struct {
	t   *testing.T
	url string
}

// get reads JSON.
func (v pageViewer) get(path string, into any) {
	v.t.Helper()

	if !v.tryGet(path, into) {
		v.t.Fatalf("%s: the page is not ready", path)
	}
}

// tryGet reads JSON of the page. It returns false while a head that has just started does not know its bus.
func (v pageViewer) tryGet(path string, into any) bool {
	v.t.Helper()

	answer, err := http.Get(v.url + path)
	if err != nil {
		v.t.Fatal(err)
	}
	defer answer.Body.Close()

	if answer.StatusCode == http.StatusServiceUnavailable {
		return false
	}

	if err := json.NewDecoder(answer.Body).Decode(into); err != nil || answer.StatusCode != http.StatusOK {
		v.t.Fatalf("%s: %s, %v", path, answer.Status, err)
	}

	return true
}

// find returns the last result of a search.
func (v pageViewer) find(run, id string) (last page.FindResult) {
	v.t.Helper()

	answer, err := http.Get(v.url + "page/api/runs/" + run + "/find?custom_id=" + url.QueryEscape(id))
	if err != nil {
		v.t.Fatal(err)
	}
	defer answer.Body.Close()

	for d := json.NewDecoder(answer.Body); d.More(); {
		last = page.FindResult{}
		if err := d.Decode(&last); err != nil {
			v.t.Fatal(err)
		}
	}
	if !last.Done {
		v.t.Errorf("the search for %q ends with %+v", id, last)
	}

	return last
}

// The page shows a run while it works, through a kill of the head, and at its end as status does. A search finds what
// was answered, what failed and what is to come.
func TestPage(t *testing.T) {
	t.Parallel()

	const markup = `<img src=x onerror="alert(1)">`
	c := newCommand(t)
	var in strings.Builder
	for i := range 200 {
		id, body := fmt.Sprintf("r-%d", i), `{"model":"m","messages":[{"role":"user","content":"hello"}]}`
		switch i {
		case 0:
			id = markup
		case 1:
			body = "[]" // is refused
		}

		quoted, _ := json.Marshal(id) // of a text
		fmt.Fprintf(&in, `{"custom_id":%s,"method":"POST","url":"/v1/chat/completions","body":%s}`+"\n", quoted, body)
	}
	c.write("in.jsonl", in.String())

	// The head that starts again has the same addresses.
	address, listen := freeAddress(t), freeAddress(t)
	serve := []string{"serve", "--listen", listen, "--dir", "out", "--flush", "200ms", "--page", address}
	head, out := c.start(serve...)
	awaitText(t, out, "page: http://"+address+"/\n")
	v := pageViewer{t, "http://" + address + "/"}

	c.must("submit", "in.jsonl", "--run", "r", "--label", "nightly", "--skip-invalid")
	if r := v.find("r", "r-5"); r.State != page.FindOpen && r.State != page.FindNone {
		t.Errorf("before there is a worker: %+v", r)
	}

	worker, _ := c.start("worker", "--sim", "--sim-tpot", "1ms", "--max-concurrency", "4")
	defer worker.Process.Kill()
	poll(t, patience, "the page has some answers", func() bool {
		var seen page.Overview
		v.get("page/api/overview", &seen)
		return len(seen.Runs) == 1 && seen.Runs[0].Progress.Done >= 50
	})

	head.Process.Kill()
	head.Wait()
	head, out = c.start(serve...)
	defer head.Process.Kill()
	awaitText(t, out, "page: http://"+address+"/\n")

	var detail page.RunDetail
	poll(t, patience, "the run ends", func() bool {
		return v.tryGet("page/api/runs/r", &detail) && detail.Run.State.Ended() && detail.Source == page.SourceMetadata
	})

	var stated []status.Run
	if err := json.Unmarshal([]byte(c.must("list", "--json")), &stated); err != nil || len(stated) != 1 {
		t.Fatal(stated, err)
	}
	was, is := stated[0], detail.Run
	if is.ID != was.Run || is.Label != was.Label || is.State != was.State || is.Progress.Done != was.Progress.Done ||
		is.Progress.Failed != was.Progress.Failed || is.InputName != was.InputName {
		t.Errorf("the page has %+v, list has %+v", is, was)
	}
	if detail.Results.Interruptions != 1 || detail.Results.SuccessCount+detail.Results.FailureCount != 200 {
		t.Errorf("%d interruptions, %d answered and %d failed", detail.Results.Interruptions,
			detail.Results.SuccessCount, detail.Results.FailureCount)
	}

	for id, want := range map[string]string{
		markup:  page.FindAnswered,
		"r-199": page.FindAnswered,
		"r-200": page.FindUnknown,
	} {
		r := v.find("r", id)
		if r.State != want || want == page.FindAnswered && (len(r.Lines) != 1 || !json.Valid(r.Lines[0].Line)) {
			t.Errorf("%q is %+v, want %s", id, r, want)
		}
	}

	failures := detail.LastFailures
	if len(failures) != 1 || failures[0].CustomID != "r-1" || failures[0].Message == "" ||
		v.find("r", "r-1").State != page.FindFailed {
		t.Errorf("the last failures are %+v", failures)
	}
}

// openEvents opens the stream of a page, and returns it once it has the state of a run.
func (v pageViewer) openEvents(header http.Header, run string) *bufio.Reader {
	v.t.Helper()

	r, err := http.NewRequestWithContext(v.t.Context(), http.MethodGet, v.url+"page/events?run="+run, nil)
	must(v.t, err)
	r.Header = header

	var answer *http.Response
	poll(v.t, pollTime, "the head to have its bus", func() bool {
		answer, err = http.DefaultClient.Do(r)
		must(v.t, err)
		v.t.Cleanup(func() { answer.Body.Close() })
		return answer.StatusCode != http.StatusServiceUnavailable // it asks viewers to come again
	})

	if answer.StatusCode != http.StatusOK {
		v.t.Fatalf("the stream is refused: %s", answer.Status)
	}

	lines := bufio.NewReader(answer.Body)
	for event := ""; ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			v.t.Fatalf("the stream ends before it has the run: %v", err)
		}

		if name, ok := strings.CutPrefix(line, "event: "); ok {
			event = strings.TrimSpace(name)
		}

		var detail page.RunDetail
		if data, ok := strings.CutPrefix(line, "data: "); ok && event == page.EventRun {
			must(v.t, json.Unmarshal([]byte(data), &detail))
			if detail.Run.ID == run {
				return lines
			}
		}
	}
}

// A stream breaks with a head that is killed. The cookie and the key of a viewer are good for the head that comes after
// it: the secret of the sessions and the keys are in the state folder.
func TestSessionsOutliveAKilledHead(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	key := strings.TrimSpace(c.must("key", "create", "--read-only"))
	address := lastingAddress(t)
	serve := []string{"serve", "--listen", lastingAddress(t), "--dir", "out", "--page", address}
	head, out := c.start(serve...)
	awaitText(t, out, "page: http://"+address+"/\n")
	v := pageViewer{t, "http://" + address + "/"}
	c.must("submit", c.input("in.jsonl", 3), "--run", "watched", "--model", "sim")

	answer, err := http.Post(v.url+"page/login", "application/json", strings.NewReader(`{"key":"`+key+`"}`))
	must(t, err)
	answer.Body.Close()
	if len(answer.Cookies()) != 1 {
		t.Fatalf("signing in: %s, %v", answer.Status, answer.Cookies())
	}

	session := answer.Cookies()[0]
	viewers := map[string]http.Header{
		"cookie": {"Cookie": {session.Name + "=" + session.Value}},
		"key":    {"Authorization": {"Bearer " + key}},
	}
	streams := map[string]*bufio.Reader{}
	for name, header := range viewers {
		streams[name] = v.openEvents(header, "watched")
	}

	must(t, head.Process.Kill())
	head.Wait()
	for name, stream := range streams {
		if rest, err := io.ReadAll(stream); err == nil || strings.Contains(string(rest), "event: "+page.EventStopping) {
			t.Errorf("the stream with a %s ends in order when its head is killed: %v, %s", name, err, rest)
		}
	}

	_, out = c.start(serve...)
	awaitText(t, out, "page: http://"+address+"/\n")
	for _, header := range viewers {
		v.openEvents(header, "watched")
	}
}

// A stream of run --page ends with the run, which it does not delay.
func TestPageOfARun(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	in := c.input("in.jsonl", 200)
	cmd, out := c.start("run", in, "--sim", "--sim-tpot", "1ms", "--max-concurrency", "8", "--page", "127.0.0.1:0")

	var at string
	poll(t, patience, "the page is there", func() bool {
		if found := pageOf.FindStringSubmatch(out.String()); found != nil {
			at = found[1]
		}
		return at != ""
	})

	answer, err := http.Get(at + "page/events")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()

	stopped, shown := false, proto.State("")
	for lines := bufio.NewReader(answer.Body); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		stopped = stopped || line == "event: stopping\n"

		var seen page.Overview
		if data, ok := strings.CutPrefix(line, "data: "); ok && json.Unmarshal([]byte(data), &seen) == nil &&
			len(seen.Runs) == 1 {
			shown = seen.Runs[0].State
		}
	}
	if !stopped || shown == "" {
		t.Errorf("the stream ends with the run %q, and says so: %t", shown, stopped)
	}

	begun := time.Now()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if took := time.Since(begun); took > 20*time.Second { // a stop waits 30 s for answers
		t.Errorf("the run ended %s after its stream", took)
	}
	if _, err := os.Stat(c.dir + "/in.results.jsonl.zst"); err != nil {
		t.Error(err)
	}
}
