package main

import (
	"bufio"
	"encoding/json"
	"fmt"
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

	answer, err := http.Get(v.url + path)
	if err != nil {
		v.t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil || answer.StatusCode != http.StatusOK {
		v.t.Fatalf("%s: %s, %v", path, answer.Status, err)
	}
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
		v.get("page/api/runs/r", &detail)
		return detail.Run.State.Ended() && detail.Source == page.SourceMetadata
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
