package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
)

const answered = `{"choices":[{"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`

// slowServer is a model server whose answers take a time that the test decides.
type slowServer struct {
	takes func(body []byte, atOnce int) time.Duration

	atOnce atomic.Int64
	mu     sync.Mutex
	posts  map[string]int // by body
}

func (s *slowServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		http.NotFound(w, r)
		return
	}

	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()

	if s.posts == nil {
		s.posts = map[string]int{}
	}

	s.posts[string(body)]++
	s.mu.Unlock()

	defer s.atOnce.Add(-1)

	select {
	case <-time.After(s.takes(body, int(s.atOnce.Add(1)))):
		io.WriteString(w, answered)
	case <-r.Context().Done():
	}
}

// countPosts returns the number of posts, and how often the most frequent request was among them.
func (s *slowServer) countPosts() (all, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.posts {
		all += n
		most = max(most, n)
	}
	return all, most
}

// startCutter starts a proxy that cuts the answers of a server off after a time.
func startCutter(t *testing.T, server http.Handler, after time.Duration, closes bool) string {
	t.Helper()

	return startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), after)
		defer cancel()

		answer := httptest.NewRecorder()
		server.ServeHTTP(answer, r.WithContext(ctx))
		switch {
		case ctx.Err() == nil:
			w.WriteHeader(answer.Code)
			w.Write(answer.Body.Bytes())
		case closes:
			panic(http.ErrAbortHandler)
		default:
			http.Error(w, "<html><head><title>504 Gateway Time-out</title></head></html>", http.StatusGatewayTimeout)
		}
	}))
}

// If every answer is cut off, the run stops before the server has worked for hours, and no
// request fails.
func TestAllCutOff(t *testing.T) {
	t.Parallel()

	for _, closes := range []bool{false, true} {
		for _, requests := range []uint32{1, 200} {
			t.Run(fmt.Sprintf("%d requests, closes %t", requests, closes), func(t *testing.T) {
				t.Parallel()

				s := &slowServer{takes: func([]byte, int) time.Duration { return time.Hour }}
				b := newRunBed(t, startCutter(t, s, 1200*time.Millisecond, closes))
				b.cfg.StopRefused, b.cfg.Attempts = true, 10
				b.publishRange("r", "m", 0, requests, 10)

				w := newWorker(t, b.cfg)
				err := w.Run(t.Context())
				refused, ok := errors.AsType[*RefusedError](err)
				if !ok || refused.CutAfter < 1200*time.Millisecond || refused.CutAfter > 2*time.Second {
					t.Fatalf("Run: %v", err)
				}

				if !strings.Contains(err.Error(), "something in front of the model server cuts answers off after 1.") ||
					!strings.Contains(err.Error(), " s: POST /v1/chat/completions at http://") ||
					!strings.Contains(refused.Fix(), "proxy_read_timeout") {
					t.Errorf("Run: %v; %s", err, refused.Fix())
				}

				if got := b.results(); len(got) != 0 {
					t.Errorf("results %v, want none", got)
				}

				if all, _ := s.countPosts(); all > 60 {
					t.Errorf("the server got %d requests", all)
				}

				b.checkIdle(w)
			})
		}
	}
}

// Requests that take too long fail, each after three attempts, and all others are answered.
func TestSomeCutOff(t *testing.T) {
	t.Parallel()

	isLong := mentions("3", "7", "8", "21", "39")
	s := &slowServer{takes: func(body []byte, _ int) time.Duration {
		if isLong(body) {
			return time.Hour
		}
		return 10 * time.Millisecond
	}}

	b := newRunBed(t, startCutter(t, s, time.Second, false))
	b.cfg.StopRefused, b.cfg.Attempts = true, 10
	b.publishRange("r", "m", 0, 40, 10)
	w, stop := b.startWorker()
	b.awaitRun("r")
	prototest.Poll(t, patience, "the throttle to end", func() bool {
		return w.server.cutoffs.throttle.limit.Load() == 0
	})

	got := b.finishRun(w, stop, 40)
	if open := w.server.cutoffs.open.Load(); open != 0 {
		t.Errorf("%d requests that were cut off have not ended", open)
	}

	for index, lines := range got {
		long := strings.Contains(" 3 7 8 21 39 ", fmt.Sprintf(" %d ", index))
		if long != strings.Contains(lines[0],
			`"code":"cut_off","message":"something in front of the model server cuts answers off after `) {
			t.Errorf("request %d: %s", index, lines[0])
		}
	}

	// Some attempts are made before the limit is known.
	if _, most := s.countPosts(); most > cutOffTries+3 {
		t.Errorf("the server got one request %d times", most)
	}
}

// However many requests take too long, the run continues while others are answered.
func TestManyCutOff(t *testing.T) {
	t.Parallel()

	isLong := func(body []byte) bool {
		return bytes.Contains(body, []byte(`0"`)) || bytes.Contains(body, []byte(`5"`))
	}

	s := &slowServer{takes: func(body []byte, _ int) time.Duration {
		if isLong(body) {
			return time.Hour
		}
		return 10 * time.Millisecond
	}}

	b := newRunBed(t, startCutter(t, s, time.Second, false))
	b.cfg.StopRefused, b.cfg.Limiter = true, limit.Fixed(64)
	b.publishRange("r", "m", 0, 250, 10)

	w, stop := b.startWorker()
	for index, lines := range b.finishRun(w, stop, 250) {
		if long := index%5 == 0; long != strings.Contains(lines[0], `"code":"cut_off"`) {
			t.Errorf("request %d: %s", index, lines[0])
		}
	}
}

// A run that had answers stops when there is a limit that no request gets through.
func TestAllCutOffLater(t *testing.T) {
	t.Parallel()

	var n atomic.Int64
	s := &slowServer{takes: func([]byte, int) time.Duration {
		if n.Add(1) <= 40 {
			return time.Millisecond
		}
		return time.Hour
	}}

	b := newRunBed(t, startCutter(t, s, time.Second, false))
	b.cfg.StopRefused, b.cfg.Limiter = true, limit.Fixed(64)
	b.publishRange("r", "m", 0, 500, 10)
	w := newWorker(t, b.cfg)
	err := w.Run(t.Context())
	if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.CutAfter == 0 {
		t.Fatalf("Run: %v", err)
	}

	if got := b.results(); len(got) != 40 {
		t.Errorf("%d results, want 40", len(got))
	}

	b.checkIdle(w)
}

// Requests that are cut off since there are too many at once are answered with fewer at once.
func TestCutOffByConcurrency(t *testing.T) {
	t.Parallel()

	s := &slowServer{takes: func(_ []byte, atOnce int) time.Duration {
		return time.Duration(atOnce) * 300 * time.Millisecond
	}}

	b := newRunBed(t, startCutter(t, s, 1100*time.Millisecond, false))
	b.cfg.StopRefused, b.cfg.Attempts = true, 10
	b.publishRange("r", "m", 0, 24, 8)
	w, stop := b.startWorker()
	b.finishAnswered(w, stop, 24)
}

// If all are cut off since there are too many at once, one sent alone shows that.
func TestAllCutOffUnlessAlone(t *testing.T) {
	t.Parallel()

	s := &slowServer{takes: func(_ []byte, atOnce int) time.Duration {
		if atOnce > 2 {
			return time.Hour
		}
		return 200 * time.Millisecond
	}}

	// The first eight are all cut off, in whatever order they come.
	var n atomic.Int64
	start := s.takes
	s.takes = func(body []byte, atOnce int) time.Duration {
		if n.Add(1) <= 8 {
			return time.Hour
		}
		return start(body, atOnce)
	}

	b := newRunBed(t, startCutter(t, s, time.Second, true))
	b.cfg.StopRefused, b.cfg.Attempts = true, 10
	b.publishRange("r", "m", 0, 12, 12)
	w, stop := b.startWorker()
	b.finishAnswered(w, stop, 12)
}

// A worker that serves all runs waits, and continues when the limit is raised.
func TestCutOffForAWhile(t *testing.T) {
	t.Parallel()

	var raised atomic.Bool
	s := &slowServer{takes: func([]byte, int) time.Duration {
		if raised.Load() {
			return time.Millisecond
		}
		return time.Hour
	}}

	b := newRunBed(t, startCutter(t, s, time.Second, false))
	b.publishRange("r", "m", 0, 20, 10)
	w, stop := b.startWorker()
	prototest.Poll(t, patience, "the worker to wait", func() bool {
		why, _ := w.Waiting()
		return strings.Contains(why, "cuts answers off after ")
	})

	raised.Store(true)
	b.finishAnswered(w, stop, 20)
}

// A proxy that has taken the server out after it waited in vain sends 502 for each request. That
// is not the death of the server, and costs no attempt.
func TestProxyTakesTheServerOut(t *testing.T) {
	t.Parallel()

	isLong := mentions("1", "5")
	s := &slowServer{takes: func(body []byte, _ int) time.Duration {
		if isLong(body) {
			return time.Hour
		}
		return 20 * time.Millisecond
	}}

	limited, err := url.Parse(startCutter(t, s, time.Second, false))
	if err != nil {
		t.Fatal(err)
	}

	var out atomic.Int64 // until then, in milliseconds
	proxy := httputil.NewSingleHostReverseProxy(limited)
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.StatusCode == http.StatusGatewayTimeout {
			out.Store(time.Now().Add(3 * time.Second).UnixMilli())
		}
		return nil
	}

	b := newRunBed(t, startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if time.Now().UnixMilli() < out.Load() {
			http.Error(w, "no live upstreams", http.StatusBadGateway)
			return
		}
		proxy.ServeHTTP(w, r)
	})))

	b.cfg.Attempts = 5
	b.cfg.Limiter = limit.Fixed(2)
	b.publishRange("r", "m", 0, 20, 10)
	w, stop := b.startWorker()
	prototest.Poll(t, patience, "the worker to wait for the proxy", func() bool {
		why, _ := w.Waiting()
		return strings.Contains(why, "takes it for down")
	})

	for index, lines := range b.finishRun(w, stop, 20) {
		long := index == 1 || index == 5
		if strings.Contains(lines[0], "server_died") || strings.Contains(lines[0], `"502`) ||
			long == strings.Contains(lines[0], `"status_code":200`) {
			t.Errorf("request %d: %s", index, lines[0])
		}

		if !long && !isFirstTry(lines[0]) {
			t.Errorf("request %d: %s", index, lines[0])
		}
	}
}

// Attempts that end without an answer after the same time show a time limit.
func TestCutOffDetection(t *testing.T) {
	t.Parallel()

	const s = time.Second
	for _, tt := range []struct {
		name string
		ends []time.Duration // without an answer; negative: with one
		want time.Duration   // 0: no limit
	}{
		{"three of the same", []time.Duration{60 * s, 61 * s, 60 * s}, 60 * s},
		{"two", []time.Duration{60 * s, 60 * s}, 0},
		{"three that differ", []time.Duration{60 * s, 64 * s, 68 * s}, 0},
		{"three at about a second", []time.Duration{
			1000 * time.Millisecond, 1090 * time.Millisecond, 1030 * time.Millisecond,
		}, s},
		{"too soon", []time.Duration{s / 2, s / 2, s / 2, s / 2}, 0},
		{"among others", []time.Duration{60 * s, 5 * s, 60 * s, 33 * s, 60 * s}, 60 * s},
		{"beside shorter answers", []time.Duration{60 * s, -59 * s, 60 * s, -2 * s, 60 * s}, 60 * s},
		{"answers take as long", []time.Duration{3 * s, -4 * s, 3 * s, 3 * s, -4 * s, 3 * s}, 0},
		{"a longer answer later", []time.Duration{60 * s, 60 * s, 60 * s, -90 * s}, 0},
		{"another limit", []time.Duration{60 * s, 60 * s, 60 * s, 30 * s, 30 * s, 30 * s}, 30 * s},
	} {
		c := cutoffs{changes: &broadcast{}}
		found := 0
		for _, end := range tt.ends {
			if end < 0 {
				c.recordAnswer(time.Now(), -end)
			} else if _, isNew := c.recordLost(time.Now(), end, true); isNew {
				found++
			}
		}

		if got := c.timeLimit(); got != tt.want {
			t.Errorf("%s: a limit of %v, want %v", tt.name, got, tt.want)
		}

		if found > 2 || tt.want > 0 && found == 0 {
			t.Errorf("%s: a limit was found %d times", tt.name, found)
		}
	}
}

// The concurrency goes up while nothing is cut off, and down while most are.
func TestCutOffThrottle(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var throttle cutoffThrottle

		round := func(good, cut int) int64 {
			time.Sleep(time.Second)
			for range good {
				throttle.record(time.Now(), false)
			}

			for range cut {
				throttle.record(time.Now(), true)
			}

			return throttle.limit.Load()
		}

		throttle.setLimit(2, 0)
		if got := round(4, 0); got != 4 {
			t.Errorf("%d at once after a round in which nothing is cut off, want 4", got)
		}

		throttle.setLimit(8, 0)
		for i, tt := range []struct{ good, cut, want int }{
			{2, 6, 4},
			{1, 3, 2},
			{2, 2, 2},
			{4, 0, 3},
			{4, 0, 4},
			{3, 1, 3},
			{4, 0, 3},
		} {
			if got := round(tt.good, tt.cut); got != int64(tt.want) {
				t.Errorf("round %d: %d at once, want %d", i, got, tt.want)
			}
		}
	})
}

// nginx cuts answers off, and takes both servers out for it.
func TestBehindNginx(t *testing.T) {
	t.Parallel()

	nginx := findNginx(t)
	for _, tt := range []struct {
		name string
		long func([]byte) bool
	}{
		{"some", mentions("3", "7")},
		{"all", func([]byte) bool { return true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			s := &slowServer{takes: func(body []byte, _ int) time.Duration {
				if tt.long(body) {
					return time.Hour
				}
				return 20 * time.Millisecond
			}}

			b := newRunBed(t, startNginx(t, nginx, startServer(t, s), startServer(t, s)))
			b.cfg.StopRefused, b.cfg.Attempts = true, 10
			b.publishRange("r", "m", 0, 30, 10)

			if tt.name == "all" {
				_, ok := errors.AsType[*RefusedError](newWorker(t, b.cfg).Run(t.Context()))
				if all, _ := s.countPosts(); !ok || all > 60 || len(b.results()) != 0 {
					t.Errorf("the run stops: %t, after %d requests", ok, all)
				}
				return
			}

			w, stop := b.startWorker()
			for index, lines := range b.finishRun(w, stop, 30) {
				long := index == 3 || index == 7
				if strings.Contains(lines[0], "server_died") || strings.Contains(lines[0], proto.CodePoison) ||
					long == strings.Contains(lines[0], `"status_code":200`) {
					t.Errorf("request %d: %s", index, lines[0])
				}
			}
		})
	}
}

// findNginx returns the path of nginx, and skips the test if there is none.
func findNginx(t *testing.T) string {
	t.Helper()

	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if nginx, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Skip("nginx is not here: apt-get install nginx-light")
		}
	}

	return nginx
}

// startNginx runs nginx in front of servers. It waits a second for an answer.
func startNginx(t *testing.T, nginx string, servers ...string) string {
	t.Helper()

	upstreams := ""
	for _, s := range servers {
		upstreams += fmt.Sprintf("server %s fail_timeout=4s;", strings.TrimPrefix(s, "http://"))
	}

	return startNginxWith(t, nginx, func(address string) string {
		return fmt.Sprintf(`
	upstream models { %s }
	server { listen %s; location / { proxy_pass http://models; proxy_read_timeout 1s; } }
`, upstreams, address)
	})
}

// startNginxWith runs nginx with a block of its configuration for http, given the address to listen
// at. It returns its URL.
func startNginxWith(t *testing.T, nginx string, block func(address string) string) string {
	t.Helper()

	dir := t.TempDir()
	listener := httptest.NewServer(nil) // a port that is free
	address := strings.TrimPrefix(listener.URL, "http://")
	listener.Close()
	config := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	%[2]s
}
`, dir, block(address))

	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(nginx, "-p", dir, "-c", file)
	cmd.SysProcAttr = endWithTest()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})

	prototest.Poll(t, patience, "nginx", func() bool {
		res, err := http.Get("http://" + address + "/")
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	})

	return "http://" + address
}
