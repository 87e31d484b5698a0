package httpserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
)

// patience bounds waits for events that happen at once.
const patience = 30 * time.Second

// start starts a server with a handler. The end of the test stops it, as the returned function does.
func start(t *testing.T, cfg Config, handler http.Handler, checks ...Check) (s *Server, stop func() error) {
	t.Helper()

	cfg.Address = "127.0.0.1:0"
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, handler, checks...) }()
	awaitRunning(t, s)

	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { stop() })

	return s, stop
}

// awaitRunning waits until a server has its handler.
func awaitRunning(t *testing.T, s *Server) {
	t.Helper()

	for end := time.Now().Add(patience); s.work.Load() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the server does not run")
		}
	}
}

// get requests a path and returns the answer with its text.
func get(t *testing.T, s *Server, path string) (*http.Response, string) {
	t.Helper()

	answer, err := http.Get("http://" + s.Addr() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()

	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}

	return answer, string(text)
}

// dial opens a connection to a server and sends a text.
func dial(t *testing.T, s *Server, text string) net.Conn {
	t.Helper()

	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })

	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}

	return conn
}

// A server that starts or cannot work asks clients to come again, and its process is well.
func TestHealth(t *testing.T) {
	t.Parallel()

	s, err := Listen(Config{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	answer, text := get(t, s, "/v1/files")
	var body struct {
		Error struct{ Message, Type string }
	}
	if err := json.Unmarshal([]byte(text), &body); err != nil || answer.StatusCode != 503 ||
		answer.Header.Get("Retry-After") != "2" || body.Error.Message != "The server is starting: try again in 2 seconds." {
		t.Errorf("while it starts: %d, Retry-After %q, %v: %s", answer.StatusCode, answer.Header.Get("Retry-After"), err, text)
	}
	if answer, text := get(t, s, "/readyz"); answer.StatusCode != 503 ||
		text != `{"ready":false,"reasons":["the server is starting"]}`+"\n" {
		t.Errorf("/readyz while it starts: %d %s", answer.StatusCode, text)
	}
	if answer, text := get(t, s, "/healthz"); answer.StatusCode != 200 || text != "ok\n" {
		t.Errorf("/healthz while it starts: %d %s", answer.StatusCode, text)
	}

	good := func(context.Context) error { return nil }
	bad := func(context.Context) error { return errors.New("the disk is full") }
	ready, _ := start(t, Config{}, http.NotFoundHandler(), good)
	if answer, text := get(t, ready, "/readyz"); answer.StatusCode != 200 || text != `{"ready":true}`+"\n" {
		t.Errorf("/readyz: %d %s", answer.StatusCode, text)
	}

	broken, _ := start(t, Config{}, http.NotFoundHandler(), good, bad)
	if answer, text := get(t, broken, "/readyz"); answer.StatusCode != 503 ||
		text != `{"ready":false,"reasons":["the disk is full"]}`+"\n" {
		t.Errorf("/readyz with a full disk: %d %s", answer.StatusCode, text)
	}
	if answer, _ := get(t, broken, "/healthz"); answer.StatusCode != 200 {
		t.Errorf("/healthz with a full disk: %d", answer.StatusCode)
	}
}

// The checks of /readyz run once a second at most, whoever asks, and not on behalf of one client.
func TestChecksAreShared(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var runs int
		var cause error
		w := &work{checks: []Check{func(ctx context.Context) error {
			runs++
			return errors.Join(cause, ctx.Err())
		}}}

		gone, cancel := context.WithCancel(t.Context())
		cancel()
		var clients sync.WaitGroup
		for range 100 {
			clients.Go(func() {
				if reasons := w.checkAll(gone); len(reasons) > 0 {
					t.Error(reasons)
				}
			})
		}
		clients.Wait()
		if runs != 1 {
			t.Errorf("100 clients ran the check %d times", runs)
		}

		cause = errors.New("the disk is full")
		time.Sleep(checkLife - time.Millisecond)
		if reasons := w.checkAll(t.Context()); len(reasons) > 0 {
			t.Errorf("a moment later: %v", reasons)
		}
		time.Sleep(time.Millisecond)
		if reasons := w.checkAll(t.Context()); runs != 2 || len(reasons) != 1 || reasons[0] != cause.Error() {
			t.Errorf("a second later, after %d runs: %v", runs, reasons)
		}
	})
}

// A stop refuses new connections at once, and finishes an answer and an upload that have begun.
func TestStopFinishesAnswers(t *testing.T) {
	t.Parallel()

	begun, release := make(chan string, 2), make(chan struct{})
	s, stop := start(t, Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/download" {
			io.WriteString(w, "first ")
			w.(http.Flusher).Flush()
		}

		begun <- r.URL.Path
		<-release
		data, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s, %v", data, err)
	}))

	texts := make(chan string, 1)
	go func() {
		_, text := get(t, s, "/download")
		texts <- text
	}()
	<-begun

	upload := dial(t, s, "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nha")
	<-begun

	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()

	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			break // refused
		}
		conn.Close()
		if time.Now().After(end) {
			t.Fatal("a stopping server takes connections")
		}
	}
	if reasons := s.findReasons(t.Context()); len(reasons) != 1 || reasons[0] != "the server is stopping" {
		t.Errorf("not ready because of %q", reasons)
	}

	close(release)
	io.WriteString(upload, "lf")
	if text := <-texts; text != "first , <nil>" {
		t.Errorf("the download ends as %q", text)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}

	answer, err := http.ReadResponse(bufio.NewReader(upload), nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(answer.Body); string(text) != "half, <nil>" {
		t.Errorf("the upload ends as %q", text)
	}
}

// A stop does not wait for ever.
func TestStopLimit(t *testing.T) {
	t.Parallel()

	begun := make(chan struct{})
	s, stop := start(t, Config{StopTimeout: 50 * time.Millisecond}, http.HandlerFunc(
		func(_ http.ResponseWriter, r *http.Request) {
			close(begun)
			<-r.Context().Done() // the stop cuts the connection
		}))
	dial(t, s, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-begun

	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A client whose upload stands still is dropped, and one that is slow is not.
func TestStalledUpload(t *testing.T) {
	t.Parallel()

	const stall = time.Second // a busy machine stands still for parts of it
	results := make(chan string, 1)
	s, _ := start(t, Config{StallTimeout: stall}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		failed := "whole"
		if err != nil {
			failed = "failed"
		}
		results <- fmt.Sprint(failed, " ", len(data))
	}))

	slow := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	for range 10 { // longer than the limit in all
		time.Sleep(stall / 8)
		io.WriteString(slow, "x")
	}
	if got := <-results; got != "whole 10" {
		t.Errorf("a slow upload: %s", got)
	}

	stuck := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nxx")
	if got := <-results; got != "failed 2" {
		t.Errorf("a stalled upload: %s", got)
	}
	if _, err := io.Copy(io.Discard, stuck); err != nil { // until the server closes it
		t.Errorf("the connection of a stalled upload: %v", err)
	}
}

// A client that reads nothing is dropped, and one that reads slowly is not: nor is one whose answer
// takes longer than the limit to begin.
func TestStalledDownload(t *testing.T) {
	t.Parallel()

	const stall = time.Second // a busy machine stands still for parts of it
	results := make(chan error, 1)
	s, _ := start(t, Config{StallTimeout: stall}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			io.ReadAll(r.Body)
			time.Sleep(2 * stall)
			_, err := io.WriteString(w, "late")
			results <- errors.Join(err, r.Context().Err())
			return
		}

		_, err := w.Write(make([]byte, 64<<20)) // more than the buffers of the system
		results <- err
	}))

	late := dial(t, s, "POST /late HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx")
	text, err := io.ReadAll(late)
	if err != nil || !strings.HasSuffix(string(text), "late") {
		t.Errorf("an answer after twice the limit: %v %q", err, text)
	}
	if err := <-results; err != nil {
		t.Errorf("an answer after twice the limit: %v", err)
	}

	dial(t, s, "GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := <-results; err == nil {
		t.Error("the whole answer went to a client that reads nothing")
	}

	slow := dial(t, s, "GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	began, read := time.Now(), int64(0)
	for {
		n, err := io.CopyN(io.Discard, slow, 8<<20)
		read += n
		if err != nil {
			break
		}
		time.Sleep(stall / 7)
	}
	if err := <-results; err != nil || read < 64<<20 || time.Since(began) < stall {
		t.Errorf("a slow reader got %d bytes in %s: %v", read, time.Since(began), err)
	}
}

// Connections are used again after a pause that is longer than the limit of a stalled one.
func TestKeptConnection(t *testing.T) {
	t.Parallel()

	const stall = 100 * time.Millisecond
	s, _ := start(t, Config{StallTimeout: stall}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v", data, err)
	}))

	conn := dial(t, s, "")
	reader := bufio.NewReader(conn)
	for range 3 {
		io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(answer.Body); err != nil || string(text) != "hi <nil>" {
			t.Errorf("%v %q", err, text)
		}
		time.Sleep(2 * stall)
	}
}

// Files go out whole, with and without the copy in the kernel.
func TestFileAnswers(t *testing.T) {
	t.Parallel()

	content := bytes.Repeat([]byte("0123456789abcdef"), 3*movedBytes/16+1)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}

	var log bytes.Buffer
	s, stop := start(t, Config{AccessLog: NewAccessLog(&log)}, http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/write" {
				w.Write(content)
				return
			}
			http.ServeFile(w, r, path)
		}))

	for _, name := range []string{"/write", "/serve"} {
		if _, text := get(t, s, name); text != string(content) {
			t.Errorf("%s: %d bytes, want %d", name, len(text), len(content))
		}
	}

	stop()
	for line := range strings.Lines(log.String()) {
		if want := fmt.Sprintf(`"status":200,"bytes":%d,`, len(content)); !strings.Contains(line, want) {
			t.Errorf("log line %s, want %s", line, want)
		}
	}
}

// A client that is refused before it has sent its body, and then sends nothing, is dropped.
func TestStalledRefusal(t *testing.T) {
	t.Parallel()

	s, _ := start(t, Config{StallTimeout: 100 * time.Millisecond}, http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, strings.Repeat("no key ", 1000), http.StatusUnauthorized)
		}))

	conn := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
	if text, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 401") {
		t.Errorf("%v: %s", err, text)
	}
}

// The log has a line for each request, the id that the client sees, and no secret.
func TestAccessLog(t *testing.T) {
	t.Parallel()

	var log bytes.Buffer
	var seen Exchange
	s, stop := start(t, Config{
		AccessLog: NewAccessLog(&log),
		Observe:   func(x Exchange) { seen = x },
	}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		SetKeyID(r.Context(), "key_a")
		SetRoute(r.Context(), "POST /v1/x")
		io.ReadAll(r.Body)
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, RequestID(r.Context()))
	}))

	request, err := http.NewRequest("POST", "http://"+s.Addr()+"/v1/x?secret=pm-query", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer pm-header")
	request.Header.Set("X-Forwarded-For", "203.0.113.9")
	request.Header.Set("X-Request-Id", "pm-forged\n")

	request.Header.Set("X-Request-Id", "pm-forged")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	stop()

	id := answer.Header.Get("X-Request-Id")
	if id != string(text) || !strings.HasPrefix(id, "req_") {
		t.Errorf("the id is %q in the header and %q in the handler", id, text)
	}
	if strings.Contains(log.String(), "pm-") || strings.Contains(log.String(), "203.0.113.9") {
		t.Errorf("the log has what a client may forge or keep secret: %s", log.String())
	}

	var line accessLine
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatalf("%v: %s", err, log.String())
	}
	took := line.Seconds
	line.Seconds, line.Time = 0, time.Time{}
	want := accessLine{
		Method:  "POST",
		Path:    "/v1/x",
		Status:  http.StatusTeapot,
		Bytes:   int64(len(text)),
		Key:     "key_a",
		Remote:  "127.0.0.1",
		Request: id,
	}
	if line != want || took <= 0 {
		t.Errorf("line %+v, want %+v", line, want)
	}

	seen.Took = 0
	if seen != (Exchange{Route: "POST /v1/x", Status: http.StatusTeapot, Received: 5, Sent: int64(len(text))}) {
		t.Errorf("observed %+v", seen)
	}
}

// A log whose file is moved or removed begins another one, and follows no faster than once a second.
func TestAccessLogRotation(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "log")
	log, err := OpenAccessLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()

	now := time.Now()
	reopen := func() {
		log.mu.Lock()
		defer log.mu.Unlock()
		now = now.Add(2 * reopenPause)
		log.reopen(now)
		log.lookedAt = time.Now() // the writes below look at nothing
	}
	check := func(path string, want ...string) {
		t.Helper()

		data, err := os.ReadFile(path)
		var got []string
		for line := range strings.Lines(string(data)) {
			var l accessLine
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Error(err)
			}
			got = append(got, l.Path)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s has %q, %v; want %q", path, got, err, want)
		}
	}

	log.write(accessLine{Path: "1"})
	reopen()
	log.write(accessLine{Path: "2"})
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	log.write(accessLine{Path: "3"})
	check(path+".1", "1", "2", "3")

	reopen()
	log.write(accessLine{Path: "4"})
	check(path, "4")
	check(path+".1", "1", "2", "3")

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	reopen()
	log.write(accessLine{Path: "5"})
	check(path, "5")
}

// A header that is too large or too slow ends its connection.
func TestHeaderLimit(t *testing.T) {
	t.Parallel()

	s, _ := start(t, Config{}, http.NotFoundHandler())
	conn := dial(t, s, "GET / HTTP/1.1\r\nHost: x\r\nX: ")
	go io.WriteString(conn, strings.Repeat("x", 2*maxHeaderBytes)+"\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v, %v", answer, err)
	}
}

// More clients than connections wait for each other.
func TestMaxConnections(t *testing.T) {
	t.Parallel()

	entered, release := make(chan struct{}), make(chan struct{})
	s, _ := start(t, Config{MaxConnections: 2}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-release
	}))

	var clients sync.WaitGroup
	for range 6 {
		clients.Go(func() {
			client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			answer, err := client.Get("http://" + s.Addr())
			if err != nil {
				t.Error(err)
				return
			}
			answer.Body.Close()
		})
	}

	for range 3 {
		<-entered
		<-entered
		select {
		case <-entered:
			t.Error("a third connection is served")
		case <-time.After(50 * time.Millisecond):
		}
		release <- struct{}{}
		release <- struct{}{}
	}
	clients.Wait()
}

// Idle connections keep no client away: those that are idle already, and one that becomes idle later.
func TestIdleConnections(t *testing.T) {
	t.Parallel()

	var log bytes.Buffer
	s, stop := start(t, Config{MaxConnections: 2, Log: zerolog.New(&log)}, http.NotFoundHandler())
	for range 6 { // each connection stays open
		client := http.Client{Transport: &http.Transport{}, Timeout: patience}
		answer, err := client.Get("http://" + s.Addr() + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
	stop()
	if n := strings.Count(log.String(), "reached the limit of connections"); n != 1 {
		t.Errorf("%d warnings: %s", n, log.String())
	}

	entered, release := make(chan struct{}), make(chan struct{})
	busy, _ := start(t, Config{MaxConnections: 1}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-release
	}))
	var clients sync.WaitGroup
	for range 3 {
		clients.Go(func() {
			client := http.Client{Transport: &http.Transport{}, Timeout: patience}
			answer, err := client.Get("http://" + busy.Addr())
			if err != nil {
				t.Error(err)
				return
			}
			answer.Body.Close()
		})
	}
	for range 3 {
		<-entered
		release <- struct{}{}
	}
	clients.Wait()
}

// A client may send the next request before it has read the answer to one that was refused unread.
func TestRefusedUpload(t *testing.T) {
	t.Parallel()

	s, _ := start(t, Config{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no key", http.StatusUnauthorized)
	}))
	conn := dial(t, s, fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 64<<20))
	go io.Copy(conn, io.LimitReader(zeros{}, 64<<20)) // fails when the server closes

	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("%v, %v", answer, err)
	}
}

// A client that waits for a word before it sends its body gets a refusal at once.
func TestRefusedExpectation(t *testing.T) {
	t.Parallel()

	s, _ := start(t, Config{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no key", http.StatusUnauthorized)
	}))
	conn := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\nExpect: 100-continue\r\n\r\n")

	if text, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 401") {
		t.Errorf("%v: %s", err, text)
	}
}

// zeros are zeros without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestParseAddress(t *testing.T) {
	t.Parallel()

	for address, want := range map[string]string{
		"8080":           "127.0.0.1:8080",
		":8080":          "127.0.0.1:8080",
		"0.0.0.0:8080":   "0.0.0.0:8080",
		"[::]:8080":      "[::]:8080",
		"head.lan:8080":  "head.lan:8080",
		"localhost:0":    "localhost:0",
		"":               "it has no port",
		"head":           "it has no port",
		"99999":          `port "99999" is not a number from 0 to 65535`,
		"head:http":      `port "http" is not a number from 0 to 65535`,
		"::1:8080":       "an IPv6 address is written in brackets, as in [::]:8080",
		"http://a:80/v1": "leave out http://",
		"https://a:80":   "leave out https://",
	} {
		got, err := ParseAddress(address)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s is %q, want %q", address, got, want)
		}
	}
}

func TestIsLoopback(t *testing.T) {
	t.Parallel()

	for address, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true,
		"0.0.0.0:1": false, "[::]:1": false, "192.0.2.1:1": false, "nosuch.invalid:1": false, ":1": false,
	} {
		if got := IsLoopback(address); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
}

// Addresses that cannot be had are refused as wrong usage.
func TestListenErrors(t *testing.T) {
	t.Parallel()

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()

	for address, want := range map[string]string{
		taken.Addr().String(): "cannot listen at " + taken.Addr().String() + ": another process has this port already",
		"198.51.100.1:8080":   "--api 198.51.100.1:8080: this machine has no address 198.51.100.1",
		"nosuch.invalid:8080": "--api nosuch.invalid:8080: no address has the name nosuch.invalid",
	} {
		_, err := Listen(Config{Address: address, Flag: "--api"})
		if err == nil || err.Error() != want || exit.Code(err) != exit.CodeUsage || exit.Hint(err) == "" {
			t.Errorf("%v, code %d, hint %q", err, exit.Code(err), exit.Hint(err))
		}
	}
}
