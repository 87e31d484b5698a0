package page_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/apikey"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/httpserver"
	"github.com/promptmill/promptmill/deploy/page"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

// startedPage is a page on a real bus with the runs mine, which key "own" has made, and other.
type startedPage struct {
	t     *testing.T
	url   string
	keys  *apikey.File
	runs  *bus.RunStore
	ended chan error
	stop  context.CancelFunc
}

// startPage starts a page.
func startPage(t *testing.T) *startedPage {
	t.Helper()

	_, js := prototest.Server(t)
	if err := bus.CreateBuckets(t.Context(), js, bus.Limits{}); err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	p := &startedPage{
		t:     t,
		keys:  apikey.Open(filepath.Join(dir, apikey.FileName)),
		runs:  bus.New(js).Runs,
		ended: make(chan error, 1),
	}
	for _, run := range []string{"mine", "other"} {
		m := proto.Manifest{
			Schema:    proto.ManifestSchema,
			Run:       run,
			State:     proto.StateInProgress,
			CreatedAt: time.Now(),
			Input:     proto.Input{Requests: 10, Models: map[string]int{"<b>m</b>": 10}},
		}
		if err := p.runs.Create(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}

	server, err := page.Open(page.Config{
		Listen: httpserver.Config{Address: "127.0.0.1:0"},
		Keys:   p.keys,
		State:  dir,
		Dir:    dir,
		Owner: func(run string) string {
			keys, _ := p.keys.Keys()
			for _, k := range keys {
				if run == "mine" && k.Name == "own" {
					return k.ID
				}
			}
			return ""
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.url = strings.TrimSuffix(server.URL(), "/")

	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	p.stop = stop
	go func() { p.ended <- server.Serve(ctx, &busconn.Connection{Conn: js.Conn(), JS: js}) }()
	t.Cleanup(func() {
		stop()
		server.Close()
	})

	for deadline := time.Now().Add(time.Minute); ; {
		if status, _ := p.send(http.MethodGet, "/page/api/session", nil); status == http.StatusOK {
			return p
		}
		if time.Now().After(deadline) {
			t.Fatal("the page does not begin")
		}
	}
}

// send sends a request and returns the status and the body of the answer.
func (p *startedPage) send(method, path string, header http.Header) (int, string) {
	p.t.Helper()

	r, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if header != nil {
		r.Header = header
	}

	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()

	if answer.Header.Get("Content-Type") == "text/event-stream; charset=utf-8" {
		line, _ := bufio.NewReader(answer.Body).ReadString('\n')
		return answer.StatusCode, line
	}

	body, err := io.ReadAll(answer.Body)
	if err != nil {
		p.t.Fatal(err)
	}

	return answer.StatusCode, string(body)
}

// create makes a key and returns its header.
func (p *startedPage) create(name string, rights apikey.Rights) http.Header {
	p.t.Helper()

	secret, _, err := p.keys.Create(name, rights)
	if err != nil {
		p.t.Fatal(err)
	}

	return http.Header{"Authorization": {"Bearer " + secret}}
}

// Each key gets what it may see and change, and nothing else.
func TestKeysOfThePage(t *testing.T) {
	t.Parallel()

	p := startPage(t)
	full := p.create("full", apikey.Rights{})
	look := p.create("look", apikey.Rights{ReadOnly: true})
	own := p.create("own", apikey.Rights{OwnOnly: true})
	wrong := http.Header{"Authorization": {"Bearer pm-wrong"}}

	for _, c := range []struct {
		method, path                 string
		none, wrong, look, own, full int
	}{
		{"GET", "/", 200, 200, 200, 200, 200},
		{"GET", "/assets/page.css", 200, 200, 200, 200, 200},
		{"GET", "/assets/nothing.js", 404, 404, 404, 404, 404},
		{"GET", "/page/api/session", 200, 200, 200, 200, 200},
		{"GET", "/page/api/overview", 401, 401, 200, 200, 200},
		{"GET", "/page/events", 401, 401, 200, 200, 200},
		{"GET", "/page/events?run=mine", 401, 401, 200, 200, 200},
		{"GET", "/page/events?run=other", 401, 401, 200, 200, 200},
		{"GET", "/page/api/runs/mine", 401, 401, 200, 200, 200},
		{"GET", "/page/api/runs/other", 401, 401, 200, 404, 200},
		{"GET", "/page/api/runs/nosuch", 401, 401, 404, 404, 404},
		{"GET", "/page/api/runs/mine/find", 401, 401, 400, 400, 400},
		{"GET", "/page/api/runs/other/find?custom_id=a", 401, 401, 409, 404, 409},
		{"POST", "/page/api/runs/mine/pause", 401, 401, 403, 200, 200},
		{"POST", "/page/api/runs/other/pause", 401, 401, 403, 404, 200},
		{"POST", "/page/api/runs/mine/retry", 401, 401, 403, 409, 409},
		{"POST", "/page/api/runs/mine/explode", 401, 401, 404, 404, 404},
		{"DELETE", "/page/api/runs/mine", 405, 405, 405, 405, 405},
	} {
		for _, as := range []struct {
			name   string
			header http.Header
			want   int
		}{
			{"no key", nil, c.none},
			{"a wrong key", wrong, c.wrong},
			{"a key that looks", look, c.look},
			{"a key of its own runs", own, c.own},
			{"a full key", full, c.full},
		} {
			status, body := p.send(c.method, c.path, as.header.Clone())
			if status != as.want {
				t.Errorf("%s %s with %s: %d, want %d: %s", c.method, c.path, as.name, status, as.want, body)
			}
			if strings.HasPrefix(c.path, "/page/api/") && status >= 400 && status != 405 {
				var refused page.Error
				err := json.Unmarshal([]byte(body), &refused)
				if err != nil || refused.Message == "" || refused.Code == "" {
					t.Errorf("%s %s with %s: %s, %v", c.method, c.path, as.name, body, err)
				}
			}
		}
	}

	// A key of its own runs sees neither the others nor the bus.
	var seen page.Overview
	_, body := p.send(http.MethodGet, "/page/api/overview", own)
	if err := json.Unmarshal([]byte(body), &seen); err != nil || len(seen.Runs) != 1 || seen.Runs[0].ID != "mine" ||
		seen.Bus != nil || len(seen.Workers) > 0 {
		t.Errorf("%s, %v", body, err)
	}
}

// A browser signs in with a key and has a cookie without it, which ends with the key.
func TestSessionOfABrowser(t *testing.T) {
	t.Parallel()

	p := startPage(t)
	secret, key, err := p.keys.Create("lead", apikey.Rights{})
	if err != nil {
		t.Fatal(err)
	}

	answer, err := http.PostForm(p.url+"/page/login", url.Values{"key": {"pm-wrong"}})
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusUnauthorized || len(answer.Cookies()) > 0 {
		t.Errorf("a wrong key: %s, %v", answer.Status, answer.Cookies())
	}

	answer, err = http.Post(p.url+"/page/login", "application/json", strings.NewReader(`{"key":"`+secret+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK || len(answer.Cookies()) != 1 {
		t.Fatalf("%s, %v", answer.Status, answer.Cookies())
	}

	c := answer.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Secure || strings.Contains(c.Value, secret) ||
		strings.Contains(c.Value, key.Hash) {
		t.Errorf("the cookie is %+v", c)
	}

	cookie := http.Header{"Cookie": {c.Name + "=" + c.Value}}
	for _, site := range []struct {
		value string
		want  int
	}{{"same-origin", 200}, {"cross-site", 403}} {
		header := cookie.Clone()
		header.Set("Sec-Fetch-Site", site.value)
		if status, body := p.send(http.MethodPost, "/page/api/runs/mine/pause", header); status != site.want {
			t.Errorf("a change from a page that is %s: %d %s", site.value, status, body)
		}
	}

	forged := http.Header{"Cookie": {c.Name + "=" + strings.Replace(c.Value, ".", ".9", 1)}}
	if status, _ := p.send(http.MethodGet, "/page/api/overview", forged); status != http.StatusUnauthorized {
		t.Errorf("a cookie that was made longer: %d", status)
	}

	if _, err := p.keys.Revoke(key.ID); err != nil {
		t.Fatal(err)
	}
	if status, _ := p.send(http.MethodGet, "/page/api/overview", cookie); status != http.StatusUnauthorized {
		t.Errorf("a cookie of a revoked key: %d", status)
	}
}

// While the file of the keys cannot be read, nobody signs in, and the page says why it refuses everything.
func TestUnreadableKeys(t *testing.T) {
	t.Parallel()

	p := startPage(t)
	header := p.create("lead", apikey.Rights{})
	if err := os.WriteFile(p.keys.Path(), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct{ method, path string }{
		{"GET", "/page/api/session"},
		{"GET", "/page/api/overview"},
		{"GET", "/page/events"},
		{"POST", "/page/login"},
		{"POST", "/page/api/runs/mine/pause"},
	} {
		if status, body := p.send(c.method, c.path, header); status != http.StatusServiceUnavailable {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
}

// A custom_id of 16 KiB can be searched for, also where each byte of it takes three in the URL.
func TestLongestSearch(t *testing.T) {
	t.Parallel()

	p := startPage(t)
	for n, want := range map[int]int{16 << 10: http.StatusConflict, 16<<10 + 1: http.StatusBadRequest} {
		path := "/page/api/runs/mine/find?custom_id=" + strings.Repeat("%41", n)
		if status, body := p.send(http.MethodGet, path, nil); status != want {
			t.Errorf("%d bytes: %d %s", n, status, body)
		}
	}
}

// Without keys, only programs of this machine get an answer.
func TestForeignRequestsWithoutKeys(t *testing.T) {
	t.Parallel()

	p := startPage(t)
	for _, c := range []struct {
		method, name, value string
		want                int
	}{
		{"GET", "X-None", "", 200},
		{"GET", "X-Forwarded-For", "10.0.0.1", 403},
		{"POST", "Origin", "https://example.com", 403},
		{"POST", "Sec-Fetch-Site", "cross-site", 403},
		{"POST", "Sec-Fetch-Site", "same-origin", 200},
	} {
		path := "/page/api/overview"
		if c.method == http.MethodPost {
			path = "/page/api/runs/mine/pause"
		}
		if status, body := p.send(c.method, path, http.Header{c.name: {c.value}}); status != c.want {
			t.Errorf("%s with %s %s: %d %s", c.method, c.name, c.value, status, body)
		}
	}
}

// A stream has the state at once and after each change, and ends with the head.
func TestEvents(t *testing.T) {
	t.Parallel()

	p := startPage(t)
	answer, err := http.Get(p.url + "/page/events?run=mine")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()

	events := bufio.NewScanner(answer.Body)
	events.Buffer(nil, 1<<20)
	awaitEvent(t, events, "state", `"id":"mine"`)
	awaitEvent(t, events, "run", `"source":"bus"`)

	if err := p.runs.Pause(t.Context(), "mine"); err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, events, "run", `"state":"paused"`)

	if err := p.runs.Delete(t.Context(), "mine"); err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, events, "gone", `"code":"no_run"`)

	p.stop()
	awaitEvent(t, events, "stopping", "{}")
	select {
	case err := <-p.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second): // shorter than the time for which a stop waits for answers
		t.Error("a stream holds the head up")
	}
}

// An address with a run that the viewer does not see, or that no run can have, is that of a run that is gone: all else
// goes on.
func TestEventsOfAHiddenRun(t *testing.T) {
	t.Parallel()

	p := startPage(t)
	own := p.create("own", apikey.Rights{OwnOnly: true})

	for _, run := range []string{"other", "no such", "<b>"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/page/events?run="+url.QueryEscape(run), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = own

		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()

		events := bufio.NewScanner(answer.Body)
		events.Buffer(nil, 1<<20)
		awaitEvent(t, events, "gone", `"code":"no_run"`)
		awaitEvent(t, events, "state", `"id":"mine"`)
	}
}

// awaitEvent reads until an event whose data has a text.
func awaitEvent(t *testing.T, lines *bufio.Scanner, event, text string) {
	t.Helper()

	last := ""
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			last = name
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && last == event && strings.Contains(data, text) {
			return
		}
	}
	t.Fatalf("no event %s with %s: %v", event, text, lines.Err())
}

// While the bus starts, people see that, and scripts are told to ask again.
func TestStarting(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	server, err := page.Open(page.Config{
		Listen: httpserver.Config{Address: "127.0.0.1:0"},
		Keys:   apikey.Open(filepath.Join(dir, apikey.FileName)),
		State:  dir,
		Dir:    dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)

	for path, want := range map[string]string{
		"":                  `http-equiv="refresh"`,
		"page/api/overview": `"code":"unavailable"`,
	} {
		answer, err := http.Get(server.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != 503 || answer.Header.Get("Retry-After") != "2" ||
			!strings.Contains(string(body), want) {
			t.Errorf("%q: %s %s, %v", path, answer.Status, body, err)
		}
	}

	if info, err := os.Stat(filepath.Join(dir, page.SecretFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(fmt.Sprint(info, err))
	}
}
