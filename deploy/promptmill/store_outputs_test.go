package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/objectstore/storetest"
	"github.com/promptmill/promptmill/worker/sim"
)

// gateway is versitygw, a server with the API of S3 over a folder, behind a proxy. It has a bucket named
// bucket.
type gateway struct {
	*storetest.Proxy

	t *testing.T
	// client reaches the server without the proxy.
	client *minio.Core
}

// startGateway starts versitygw. It skips the test if versitygw is not there.
func startGateway(t *testing.T) *gateway {
	t.Helper()

	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "bucket"), 0o755))
	endpoint := storetest.StartVersity(t, dir)

	client, err := minio.NewCore(strings.TrimPrefix(endpoint, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(storetest.AccessKey, storetest.SecretKey, ""),
	})
	must(t, err)

	return &gateway{
		Proxy:  storetest.StartProxy(t, endpoint),
		t:      t,
		client: client,
	}
}

// command returns a command whose environment names the proxy and has the credentials.
func (g *gateway) command() command {
	g.t.Helper()
	return inPlaces(g.t, "AWS_ENDPOINT_URL="+g.URL)
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
func (g *gateway) killAt(c command, chosen func(r storetest.Request) bool, args ...string) {
	g.t.Helper()

	held, release := make(chan struct{}), make(chan struct{})
	hold := sync.OnceFunc(func() {
		close(held)
		<-release
	})
	g.SetFault(func(w http.ResponseWriter, r storetest.Request) http.ResponseWriter {
		if !chosen(r) {
			return w
		}

		hold()

		return nil
	})

	cmd, out := c.start(args...)
	select {
	case <-held:
	case <-time.After(patience):
		g.t.Errorf("the request was not sent:\n%s", out)
	}

	cmd.Process.Kill()
	cmd.Wait()
	close(release)
	g.SetFault(nil)
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
	t.Parallel()

	g := startGateway(t)
	for name, step := range map[string]func(r storetest.Request) bool{
		"the second part of the table is sent": func(r storetest.Request) bool {
			return r.Method == http.MethodPut && strings.HasSuffix(r.Path, "/out.csv") &&
				r.Query.Get("partNumber") == "2"
		},
		"the table gets its name": func(r storetest.Request) bool {
			return r.Method == http.MethodPost && strings.HasSuffix(r.Path, "/out.csv") &&
				r.Query.Has("uploadId")
		},
		"the metadata are sent": func(r storetest.Request) bool {
			return r.Method == http.MethodPut && strings.HasSuffix(r.Path, "/out.meta.json")
		},
		"the pieces are deleted": func(r storetest.Request) bool {
			return r.Method == http.MethodDelete && strings.HasSuffix(r.Path, "/out.part/0000000000000000.zst")
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := g.command()
			c.writeRows("in.csv", 40, 500_000)
			m := newModel(t, sim.Config{Tokens: 10})
			dir := strings.ReplaceAll(name, " ", "-")
			out := "s3://bucket/" + dir + "/out.csv"
			args := []string{
				"run", "in.csv", "--prompt", "Say {{.id}}", "--model", "sim", "--url", m.url, "-o", out,
				"--progress", "none",
			}

			g.killAt(c, step, args...)
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

			c.must("verify", "in.csv", out)
		})
	}
}

// Of a run to S3 that is killed in its middle, the pieces are a beginning of the lines that the finished
// run has.
func TestStoreKilledInTheMiddle(t *testing.T) {
	t.Parallel()

	g := startGateway(t)
	c := g.command()
	in := c.input("in.jsonl", 2000)
	m := newModel(t, sim.Config{TTFT: 100 * time.Millisecond, Tokens: 10})
	args := []string{
		"run", in, "--url", m.url, "--concurrency", "16", "-o", "s3://bucket/out.jsonl.zst",
		"--flush", "200ms", "--progress", "none",
	}

	// The first piece has only the manifest.
	var pieces atomic.Int64
	g.killAt(c, func(r storetest.Request) bool {
		return r.Method == http.MethodPut && strings.Contains(r.Path, "/out.part/0") && pieces.Add(1) == 3
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
		"verify", in, "s3://bucket/out.jsonl.zst")

	c.must(args...)
	if lines := g.read("out.jsonl.zst"); !strings.HasPrefix(lines, begun) || strings.Count(lines, "\n") != 2000 {
		t.Error("the pieces are not a beginning of the results")
	}

	c.must("verify", in, "s3://bucket/out.jsonl.zst")
	want := []string{"out.jsonl.zst", "out.meta.json", "out.report.html", "out.report.md"}
	if diff := cmp.Diff(want, g.keys()); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
}

// A run to a store that throttles and cuts connections ends well.
func TestStoreFaults(t *testing.T) {
	t.Parallel()

	g := startGateway(t)
	c := g.command()
	c.writeRows("in.csv", 40, 500_000)

	g.SetFault(func(w http.ResponseWriter, r storetest.Request) http.ResponseWriter {
		switch r.Number % 7 {
		case 3:
			storetest.AnswerError(w, http.StatusServiceUnavailable, "SlowDown")
			return nil
		case 5:
			storetest.AnswerError(w, http.StatusBadRequest, "ExpiredToken")
			return nil
		case 6:
			panic(http.ErrAbortHandler) // cuts the connection
		}

		return w
	})

	c.must("run", "in.csv", "--prompt", "Say {{.id}}", "--sim", "-o", "s3://bucket/dir/out.csv",
		"--progress", "none")
	if diff := cmp.Diff(storeKeys, g.keys()); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}

	c.must("verify", "in.csv", "s3://bucket/dir/out.csv")
}

// When a store takes no object at the end of a run, the error says where the local files are. The same command
// uploads them later, and sends no request again.
func TestStoreRefusesAtEnd(t *testing.T) {
	t.Parallel()

	g := startGateway(t)
	for code, said := range map[string]string{
		"ExpiredToken": "the token of the credentials has expired",
		"AccessDenied": "the store answers 403 Forbidden (AccessDenied)",
	} {
		c := g.command()
		m := newModel(t, sim.Config{Tokens: 10})
		in := c.input("in.jsonl", 10)
		out := "s3://bucket/" + code + ".jsonl.zst"
		args := []string{"run", in, "--url", m.url, "-o", out, "--progress", "none"}

		g.SetFault(func(w http.ResponseWriter, r storetest.Request) http.ResponseWriter {
			if r.Method != http.MethodPut || !strings.HasSuffix(r.Path, ".jsonl.zst") {
				return w
			}
			storetest.AnswerError(w, http.StatusForbidden, code)
			return nil
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

		g.SetFault(nil)
		c.must(args...)
		c.must("verify", in, out)
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
	t.Parallel()

	g := startGateway(t)
	c := g.command()
	c.writeRows("in.csv", 4, 10)
	m := newModel(t, sim.Config{Tokens: 10})

	for _, name := range []string{"a/out.csv", "b/out.jsonl.zst", "c/out.meta.json", "d/out.part/0000000000000000.zst"} {
		g.put(name)
		text, code := c.run("run", "in.csv", "--prompt", "Say {{.id}}", "--model", "sim", "--url", m.url,
			"-o", "s3://bucket/"+name[:1]+"/out.csv", "--progress", "none")
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
	t.Parallel()

	g := startGateway(t)
	c := g.command()
	c.writeRows("in.csv", 10, 10)
	c.must("run", "in.csv", "--prompt", "Say {{.id}}", "--sim", "--shards", "4", "-o",
		"s3://bucket/run/out.parquet", "--progress", "none")
	c.must("verify", "in.csv", "s3://bucket/run/out-00000-of-00004.parquet")

	export := []string{
		"export", "s3://bucket/run/out.jsonl.zst", "in.csv", "--shards", "2", "-o", "s3://bucket/export/t.csv",
	}
	c.must(export...)
	c.must(export...) // replaces them
	c.must("verify", "in.csv", "s3://bucket/run/out.jsonl.zst",
		"s3://bucket/export/t-00001-of-00002.csv")

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
		"export", "s3://bucket/run/out.jsonl.zst", "in.csv", "-o", "s3://bucket/export/foreign.csv")
}

// A complete run in a store is found by the same command on another machine, which sends nothing. With
// another input it is refused. Of a run that is not complete the pieces are refused.
func TestStoreOtherMachine(t *testing.T) {
	t.Parallel()

	g := startGateway(t)
	c := g.command()
	c.writeRows("in.csv", 10, 10)
	m := newModel(t, sim.Config{Tokens: 10})
	args := []string{"run", "in.csv", "--prompt", "Say {{.id}}", "--model", "sim", "--url", m.url, "-o",
		"s3://bucket/dir/out.csv", "--progress", "none"}
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
	c.must("verify", "in.csv", "s3://bucket/dir/out.csv")

	args[slices.Index(args, "-o")+1] = "s3://bucket/killed/out.csv"
	g.killAt(c, func(r storetest.Request) bool { return strings.HasSuffix(r.Path, "/out.report.md") }, args...)
	must(t, os.RemoveAll(c.state))
	before := g.keys()
	c.expect(exit.CodeError, "whose journal is not on this machine", args...)
	if diff := cmp.Diff(before, g.keys()); diff != "" || m.sim.Succeeded() != 20 {
		t.Errorf("%d requests are answered, want 20; objects (-before +after):\n%s", m.sim.Succeeded(), diff)
	}
}

// A run to other stores has the same objects, and continues after a kill at its end.
func TestOutputsInStores(t *testing.T) {
	t.Parallel()

	for name, start := range map[string]func(t *testing.T) (out string, env []string){
		"moto": func(t *testing.T) (string, []string) {
			endpoint := storetest.StartMoto(t)
			storetest.CreateBucket(t, endpoint, "bucket", "us-east-1", nil)
			return "s3://bucket/dir/out.csv", []string{"AWS_ENDPOINT_URL=" + endpoint}
		},
		"Google Cloud Storage": func(t *testing.T) (string, []string) {
			endpoint := storetest.StartGCS(t)
			storetest.CreateGCSBucket(t, endpoint, "bucket", nil)
			return "gs://bucket/dir/out.csv", []string{"STORAGE_EMULATOR_HOST=" + endpoint}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			out, env := start(t)
			c := inPlaces(t, env...)
			c.writeRows("in.csv", 40, 500_000)
			run := []string{"run", "in.csv", "--prompt", "Say {{.id}}", "--sim", "-o", out, "--progress", "none"}
			c.must(run...)
			c.must("verify", "in.csv", out)
			c.expect(exit.CodeOK, "complete already", run...)

			must(t, os.RemoveAll(c.state))
			c.expect(exit.CodeOK, "complete already", run...)
			c.must("export", strings.Replace(out, ".csv", ".jsonl.zst", 1), "in.csv", "-o",
				strings.Replace(out, "out.csv", "t.parquet", 1))
			c.expect(exit.CodeError, "belongs to run ", "run", "in.csv", "--prompt", "Say {{.id}}", "--sim", "-o",
				strings.Replace(out, "out.csv", "t.parquet", 1), "--progress", "none")
		})
	}
}

// Files that another machine has continued in the store are not replaced by an older state of the run. The hint
// names the folder to remove, and then the same command has the newer answers.
func TestStoreHasLaterState(t *testing.T) {
	t.Parallel()

	g := startGateway(t)
	c := g.command()
	c.writeRows("in.csv", 40, 10)
	run := []string{"run", "in.csv", "--prompt", "{{.id}}", "--model", "sim", "-o", "s3://bucket/dir/out.csv",
		"--progress", "none"}
	bad := newModel(t, sim.Config{Tokens: 2, Faults: sim.Faults{"context": 1}})
	good := newModel(t, sim.Config{Tokens: 2})
	c.expect(exit.CodeFailed, "40 failed", append(run, "--url", bad.url)...)

	other := c
	other.state = filepath.Join(c.dir, "other-state")
	other.must(append(run, "--url", good.url, "--retry")...)

	for _, more := range [][]string{{"--url", good.url}, {"--url", good.url, "--retry"}} {
		text, code := c.run(append(slices.Clone(run), more...)...)
		if code != exit.CodeError || !strings.Contains(text, "remove the local copy, ") ||
			!strings.Contains(text, "with 40 answered requests, and the files on this machine have 0") {
			t.Errorf("exit code %d, want %d:\n%s", code, exit.CodeError, text)
		}
	}
	c.must("verify", "in.csv", "s3://bucket/dir/out.csv")

	must(t, os.RemoveAll(filepath.Join(c.state, "outputs")))
	c.expect(exit.CodeOK, "40 answered, 0 failed", append(run, "--url", good.url)...)
	if n := good.sim.Succeeded(); n != 40 {
		t.Errorf("the model server has answered %d requests, want 40", n)
	}
}
