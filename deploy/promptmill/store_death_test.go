package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker/sim"
)

// gateway is versitygw, a server with the API of S3 over a folder, behind a proxy that can hold or
// refuse requests.
type gateway struct {
	t *testing.T
	// url is the URL of the proxy.
	url string
	// fault may answer a request itself: then it returns true. Nil: all requests pass.
	fault atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
	// client reaches the server without the proxy.
	client *minio.Core
}

// startGateway starts versitygw with a bucket named bucket, and sets the credentials of the environment.
// It skips the test if versitygw is not there.
func startGateway(t *testing.T) *gateway {
	t.Helper()

	program := os.Getenv("PROMPTMILL_TEST_VERSITYGW")
	if program == "" {
		program = "versitygw"
	}

	program, err := exec.LookPath(program)
	if err != nil {
		t.Skip("versitygw is not there: go install github.com/versity/versitygw/cmd/versitygw@v1.8.0, " +
			"or set PROMPTMILL_TEST_VERSITYGW")
	}

	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "bucket"), 0o755))

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := listener.Addr().String()
	listener.Close()

	log := &lockedBuffer{}
	server := exec.Command(program, "--port", address, "posix", dir)
	server.Env = append(os.Environ(), "ROOT_ACCESS_KEY=user", "ROOT_SECRET_KEY=password")
	server.Stdout, server.Stderr = log, log
	must(t, server.Start())
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
		if t.Failed() {
			t.Logf("versitygw: %s", log)
		}
	})

	poll(t, patience, "versitygw listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})

	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID":           "user",
		"AWS_SECRET_ACCESS_KEY":       "password",
		"AWS_SESSION_TOKEN":           "",
		"AWS_REGION":                  "",
		"AWS_ENDPOINT_URL":            "",
		"AWS_ENDPOINT_URL_S3":         "",
		"AWS_EC2_METADATA_DISABLED":   "true",
		"AWS_SHARED_CREDENTIALS_FILE": filepath.Join(dir, "none"),
		"AWS_CONFIG_FILE":             filepath.Join(dir, "none"),
	} {
		t.Setenv(name, value)
	}

	g := &gateway{t: t}
	g.client, err = minio.NewCore(address, &minio.Options{Creds: credentials.NewStaticV4("user", "password", "")})
	must(t, err)

	target := &url.URL{Scheme: "http", Host: address}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // the signature covers it
	}}

	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := g.fault.Load(); fault == nil || !(*fault)(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	g.url = front.URL

	return g
}

// setFault sets the function that may answer a request itself.
func (g *gateway) setFault(fault func(w http.ResponseWriter, r *http.Request) bool) {
	g.fault.Store(&fault)
}

// refuse answers like S3 does.
func refuse(w http.ResponseWriter, status int, code string) bool {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	io.WriteString(w, "<Error><Code>"+code+"</Code><Message>no</Message></Error>")
	return true
}

// keys returns the keys of the bucket.
func (g *gateway) keys() (keys []string) {
	g.t.Helper()

	for o := range g.client.ListObjectsIter(g.t.Context(), "bucket", minio.ListObjectsOptions{Recursive: true}) {
		must(g.t, o.Err)
		keys = append(keys, o.Key)
	}

	return keys
}

// uploads returns the number of uploads that have not ended.
func (g *gateway) uploads() int {
	g.t.Helper()
	list, err := g.client.ListMultipartUploads(g.t.Context(), "bucket", "", "", "", "", 1000)
	must(g.t, err)
	return len(list.Uploads)
}

// read returns the lines of objects, in their order.
func (g *gateway) read(keys ...string) string {
	g.t.Helper()

	var packed bytes.Buffer
	for _, key := range keys {
		body, _, _, err := g.client.GetObject(g.t.Context(), "bucket", key, minio.GetObjectOptions{})
		must(g.t, err)
		_, err = io.Copy(&packed, body)
		must(g.t, err)
		body.Close()
	}

	r, err := zstd.NewReader(&packed)
	must(g.t, err)
	defer r.Close()

	text, err := io.ReadAll(r)
	must(g.t, err)

	return string(text)
}

// killAt starts a command, and kills it while the proxy holds the first request that a function chooses.
func (c command) killAt(g *gateway, chosen func(r *http.Request) bool, args ...string) {
	c.t.Helper()

	held, release := make(chan struct{}, 1), make(chan struct{})
	g.setFault(func(_ http.ResponseWriter, r *http.Request) bool {
		if !chosen(r) {
			return false
		}

		select {
		case held <- struct{}{}:
		default:
		}
		<-release

		return true
	})

	cmd, out := c.start(args...)
	select {
	case <-held:
	case <-time.After(patience):
		c.t.Errorf("the request was not sent:\n%s", out)
	}

	cmd.Process.Kill()
	cmd.Wait()
	close(release)
	g.setFault(func(http.ResponseWriter, *http.Request) bool { return false })
}

// writeRows writes a table whose cells do not compress.
func (c command) writeRows(name string, rows, bytes int) {
	c.t.Helper()

	random := rand.NewChaCha8([32]byte{1})
	cell := make([]byte, bytes/2)
	var text strings.Builder
	text.WriteString("id,text\n")
	for i := range rows {
		random.Read(cell)
		fmt.Fprintf(&text, "%d,%x\n", i, cell)
	}

	must(c.t, os.WriteFile(filepath.Join(c.dir, name), []byte(text.String()), 0o600))
}

// storeKeys are the objects of a run with the table out.csv and no failed request.
var storeKeys = []string{
	"dir/out.csv", "dir/out.jsonl.zst", "dir/out.meta.json", "dir/out.report.html", "dir/out.report.md",
}

// A run to S3 that is killed at a step of its last uploads is finished by the same command, which sends no
// request again, and leaves exactly the final objects.
func TestStoreKilledAtEachStep(t *testing.T) {
	g := startGateway(t)
	for name, step := range map[string]func(r *http.Request) bool{
		"the second part of the table is sent": func(r *http.Request) bool {
			return r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/out.csv") &&
				r.URL.Query().Get("partNumber") == "2"
		},
		"the table gets its name": func(r *http.Request) bool {
			return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/out.csv") &&
				r.URL.Query().Has("uploadId")
		},
		"the metadata are sent": func(r *http.Request) bool {
			return r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/out.meta.json")
		},
		"the pieces are deleted": func(r *http.Request) bool {
			return r.Method == http.MethodDelete && strings.HasSuffix(r.URL.Path, "/out.part/0000000000000000.zst")
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCommand(t)
			c.writeRows("in.csv", 40, 500_000)
			m := newModel(t, sim.Config{Tokens: 10})
			dir := strings.ReplaceAll(name, " ", "-")
			out := "s3://bucket/" + dir + "/out.csv"
			args := []string{
				"run", "in.csv", "--prompt", "Say {{.id}}", "--model", "sim", "--url", m.url, "-o", out,
				"--s3-endpoint", g.url, "--progress", "none",
			}

			c.killAt(g, step, args...)
			c.must(args...)

			var want []string
			for _, key := range storeKeys {
				want = append(want, strings.Replace(key, "dir/", dir+"/", 1))
			}

			got := slices.DeleteFunc(g.keys(), func(key string) bool { return !strings.HasPrefix(key, dir+"/") })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}

			if n := g.uploads(); n > 0 {
				t.Errorf("%d uploads have not ended", n)
			}

			if n := m.sim.Succeeded(); n != 40 {
				t.Errorf("the model server has answered %d requests, want 40", n)
			}

			c.must("verify", "in.csv", out, "--s3-endpoint", g.url)
		})
	}
}

// Of a run to S3 that is killed in its middle, the pieces are a beginning of the lines that the finished
// run has.
func TestStoreKilledInTheMiddle(t *testing.T) {
	g := startGateway(t)
	c := newCommand(t)
	in := c.input("in.jsonl", 2000)
	m := newModel(t, sim.Config{TTFT: 100 * time.Millisecond, Tokens: 10})
	args := []string{
		"run", in, "--url", m.url, "--concurrency", "16", "-o", "s3://bucket/out.jsonl.zst",
		"--s3-endpoint", g.url, "--flush", "200ms", "--progress", "none",
	}

	// The first piece has only the manifest.
	var pieces atomic.Int64
	c.killAt(g, func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/out.part/0") && pieces.Add(1) == 3
	}, args...)

	keys := g.keys()
	if len(keys) != 2 {
		t.Fatalf("the bucket has %q, want 2 pieces", keys)
	}

	begun := g.read(keys...)
	if n := strings.Count(begun, "\n"); n == 0 || n >= 2000 {
		t.Fatalf("the pieces have %d lines", n)
	}

	c.expect(exit.CodeError, "these lines are in the journal of the run, s3://bucket/out.part/: the run is not finished",
		"verify", in, "s3://bucket/out.jsonl.zst", "--s3-endpoint", g.url)

	c.must(args...)
	if lines := g.read("out.jsonl.zst"); !strings.HasPrefix(lines, begun) || strings.Count(lines, "\n") != 2000 {
		t.Error("the pieces are not a beginning of the results")
	}

	c.must("verify", in, "s3://bucket/out.jsonl.zst", "--s3-endpoint", g.url)
	want := []string{"out.jsonl.zst", "out.meta.json", "out.report.html", "out.report.md"}
	if diff := cmp.Diff(want, g.keys()); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
}

// A run to a store that throttles and cuts connections ends well.
func TestStoreFaults(t *testing.T) {
	g := startGateway(t)
	c := newCommand(t)
	c.writeRows("in.csv", 40, 500_000)

	var requests atomic.Int64
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		switch n := requests.Add(1); {
		case n%7 == 3:
			return refuse(w, http.StatusServiceUnavailable, "SlowDown")
		case n%7 == 5:
			return refuse(w, http.StatusBadRequest, "ExpiredToken")
		case n%7 == 6:
			io.CopyN(io.Discard, r.Body, 1<<20)
			panic(http.ErrAbortHandler) // cuts the connection
		}
		return false
	})

	c.must("run", "in.csv", "--prompt", "Say {{.id}}", "--sim", "-o", "s3://bucket/dir/out.csv", "--s3-endpoint", g.url,
		"--progress", "none")
	if diff := cmp.Diff(storeKeys, g.keys()); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}

	c.must("verify", "in.csv", "s3://bucket/dir/out.csv", "--s3-endpoint", g.url)
}

// A store that takes no object at the end of a run leaves the local files, says where they are, and takes
// them from the same command later, on which the model server is not there any more.
func TestStoreRefusesAtEnd(t *testing.T) {
	g := startGateway(t)
	for code, said := range map[string]string{
		"ExpiredToken": "the token of the credentials has expired",
		"AccessDenied": "the store answers 403 Forbidden (AccessDenied)",
	} {
		c := newCommand(t)
		m := newModel(t, sim.Config{Tokens: 10})
		in := c.input("in.jsonl", 10)
		out := "s3://bucket/" + code + ".jsonl.zst"
		args := []string{"run", in, "--url", m.url, "-o", out, "--s3-endpoint", g.url, "--progress", "none"}

		g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, ".jsonl.zst") &&
				refuse(w, http.StatusForbidden, code)
		})

		text, got := c.run(args...)
		if got != exit.CodeUnreachable {
			t.Errorf("%s: exit code %d, want %d", code, got, exit.CodeUnreachable)
		}

		local, err := filepath.Glob(filepath.Join(c.state, "outputs", "*", code+".jsonl.zst"))
		if err != nil || len(local) != 1 {
			t.Fatalf("%s: the local results are %q: %v", code, local, err)
		}

		place := strings.TrimSuffix(local[0], ".jsonl.zst")
		for _, want := range []string{"the run is complete", out, said, "run the same command again", place} {
			if !strings.Contains(text, want) && !strings.Contains(text, strings.TrimPrefix(want, c.dir+"/")) {
				t.Errorf("%s: the output has no %q:\n%s", code, want, text)
			}
		}

		g.setFault(func(http.ResponseWriter, *http.Request) bool { return false })
		c.must(args...)
		c.must("verify", in, out, "--s3-endpoint", g.url)
		if n := m.sim.Succeeded(); n != 10 {
			t.Errorf("%s: the model server has answered %d requests, want 10", code, n)
		}
	}
}

// put writes an object of another program.
func (g *gateway) put(key string) {
	g.t.Helper()
	text := strings.NewReader("mine")
	_, err := g.client.PutObject(g.t.Context(), "bucket", key, text, text.Size(), "", "", minio.PutObjectOptions{})
	must(g.t, err)
}

// An object of another program at the place of the output is refused before a request is sent, and stays.
func TestStoreRefusesForeignObjects(t *testing.T) {
	g := startGateway(t)
	c := newCommand(t)
	c.writeRows("in.csv", 4, 10)
	m := newModel(t, sim.Config{Tokens: 10})

	for _, name := range []string{"a/out.csv", "b/out.jsonl.zst", "c/out.meta.json", "d/out.part/0000000000000000.zst"} {
		g.put(name)
		text, code := c.run("run", "in.csv", "--prompt", "Say {{.id}}", "--model", "sim", "--url", m.url,
			"-o", "s3://bucket/"+name[:1]+"/out.csv", "--s3-endpoint", g.url, "--progress", "none")
		if want := "s3://bucket/" + name + " is there, and promptmill did not write it"; code != exit.CodeError ||
			!strings.Contains(text, want) {
			t.Errorf("exit code %d, want %d and %q:\n%s", code, exit.CodeError, want, text)
		}

		body, _, _, err := g.client.GetObject(t.Context(), "bucket", name, minio.GetObjectOptions{})
		must(t, err)
		if left, err := io.ReadAll(body); err != nil || string(left) != "mine" {
			t.Errorf("%s: the object is %q: %v", name, left, err)
		}
		body.Close()
	}

	if keys := g.keys(); len(keys) != 4 || m.sim.Succeeded() > 0 {
		t.Errorf("%d requests are answered, and the bucket has %q", m.sim.Succeeded(), keys)
	}
}

// The tables of a run, of collect and of export reach a store in several files, and verify proves them.
func TestStoreShards(t *testing.T) {
	g := startGateway(t)
	c := newCommand(t)
	c.writeRows("in.csv", 10, 10)
	place := []string{"--s3-endpoint", g.url}
	c.must(append([]string{"run", "in.csv", "--prompt", "Say {{.id}}", "--sim", "--shards", "4", "-o",
		"s3://bucket/run/out.parquet", "--progress", "none"}, place...)...)
	c.must(append([]string{"verify", "in.csv", "s3://bucket/run/out-00000-of-00004.parquet"}, place...)...)

	export := append([]string{"export", "s3://bucket/run/out.jsonl.zst", "in.csv", "--shards", "2", "-o",
		"s3://bucket/export/t.csv"}, place...)
	c.must(export...)
	c.must(export...) // replaces them
	c.must(append([]string{"verify", "in.csv", "s3://bucket/run/out.jsonl.zst",
		"s3://bucket/export/t-00001-of-00002.csv"}, place...)...)

	want := []string{"export/t-00000-of-00002.csv", "export/t-00001-of-00002.csv"}
	for i := range 4 {
		want = append(want, fmt.Sprintf("run/out-%05d-of-00004.parquet", i))
	}

	want = append(want, "run/out.jsonl.zst", "run/out.meta.json", "run/out.report.html", "run/out.report.md")
	if diff := cmp.Diff(want, g.keys()); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}

	g.put("export/foreign.csv")
	c.expect(exit.CodeError, "s3://bucket/export/foreign.csv is there, and promptmill did not write it",
		append([]string{"export", "s3://bucket/run/out.jsonl.zst", "in.csv", "-o", "s3://bucket/export/foreign.csv"},
			place...)...)
}

// A complete run in a store is found by the same command on another machine, which sends nothing. With
// another input it is refused. Of a run that is not complete the pieces are refused.
func TestStoreOtherMachine(t *testing.T) {
	g := startGateway(t)
	c := newCommand(t)
	c.writeRows("in.csv", 10, 10)
	m := newModel(t, sim.Config{Tokens: 10})
	args := []string{"run", "in.csv", "--prompt", "Say {{.id}}", "--model", "sim", "--url", m.url, "-o",
		"s3://bucket/dir/out.csv", "--s3-endpoint", g.url, "--progress", "none"}
	c.must(args...)

	must(t, os.RemoveAll(c.state))
	c.expect(exit.CodeOK, "complete already: run ", args...)
	if n := m.sim.Succeeded(); n != 10 {
		t.Errorf("the model server has answered %d requests, want 10", n)
	}

	must(t, os.RemoveAll(c.state))
	c.writeRows("in.csv", 11, 10)
	text, code := c.run(args...)
	if code != exit.CodeError || !strings.Contains(text, "s3://bucket/dir/out.jsonl.zst was made from another input") ||
		m.sim.Succeeded() != 10 {
		t.Errorf("another input: exit code %d, %d answers:\n%s", code, m.sim.Succeeded(), text)
	}

	if diff := cmp.Diff(storeKeys, g.keys()); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	c.writeRows("in.csv", 10, 10)
	c.must("verify", "in.csv", "s3://bucket/dir/out.csv", "--s3-endpoint", g.url)

	args[slices.Index(args, "-o")+1] = "s3://bucket/killed/out.csv"
	c.killAt(g, func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/out.report.md") }, args...)
	must(t, os.RemoveAll(c.state))
	before := g.keys()
	c.expect(exit.CodeError, "whose journal is not on this machine", args...)
	if diff := cmp.Diff(before, g.keys()); diff != "" || m.sim.Succeeded() != 20 {
		t.Errorf("%d requests are answered, want 20; objects (-before +after):\n%s", m.sim.Succeeded(), diff)
	}
}
