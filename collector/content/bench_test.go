package content

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// BenchmarkDownload measures reading 1 GB of answers (64 MB with -short) of a run that works, and of
// complete ones, in turns with the same bytes in a plain file: as a copy, and over HTTP on
// loopback. share is the speed in relation to the plain file, and cpu-share the same of the
// processor time, which other programs of the machine change little.
//
// The answers are chat completions of phrases from the comments of Go's source code. They are packed to a third.
func BenchmarkDownload(b *testing.B) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 64 << 20
	}

	running, plain := writeAnswers(b, size)
	sources := []struct {
		name string
		open func() *Content
	}{
		{"journal", func() *Content { return openContent(b, Config{Output: running, Done: all}) }},
		{"one-frame", completeCopy(b, running, output.Format{})},
		{"seekable", completeCopy(b, running, output.Format{Seekable: true})},
		{"plain-lines", func() *Content { return openContent(b, Config{Output: running, Plain: true, Done: all}) }},
	}

	for _, source := range sources {
		c := source.open()
		b.Run("copy/"+source.name, func(b *testing.B) {
			compareSpeeds(b, c.Size(),
				func() error { return copyFile(io.Discard, plain) },
				func() error { return c.CopyRange(b.Context(), writerOnly{io.Discard}, 0, c.Size()) })
		})
		b.Run("http/"+source.name, func(b *testing.B) {
			server := &http.ServeMux{}
			server.HandleFunc("/plain", func(w http.ResponseWriter, _ *http.Request) { copyFile(w, plain) })
			server.HandleFunc("/content", func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(c.Size()))
				c.CopyRange(r.Context(), w, 0, c.Size())
			})

			url := serveHTTP(b, server)
			compareSpeeds(b, c.Size(),
				func() error { return download(url + "/plain") },
				func() error { return download(url + "/content") })
		})
	}
}

// writerOnly hides all methods of a writer but Write.
type writerOnly struct{ io.Writer }

// compareSpeeds runs two functions in turns, which handle size bytes each. It reports the best
// of each.
func compareSpeeds(b *testing.B, size int64, plain, content func() error) {
	best, bestCPU := [2]time.Duration{math.MaxInt64, math.MaxInt64}, [2]time.Duration{math.MaxInt64, math.MaxInt64}
	for b.Loop() {
		for i, f := range []func() error{plain, content} {
			start, startCPU := time.Now(), cpuTime()
			if err := f(); err != nil {
				b.Fatal(err)
			}

			best[i] = min(best[i], time.Since(start))
			bestCPU[i] = min(bestCPU[i], cpuTime()-startCPU)
		}
	}

	b.ReportMetric(float64(size)/1e6/best[0].Seconds(), "plain-MB/s")
	b.ReportMetric(float64(size)/1e6/best[1].Seconds(), "MB/s")
	b.ReportMetric(bestCPU[0].Seconds()/bestCPU[1].Seconds(), "cpu-share")
	b.ReportMetric(best[0].Seconds()/best[1].Seconds(), "share")
}

// copyFile copies a file.
func copyFile(w io.Writer, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()

	if w, ok := w.(http.ResponseWriter); ok {
		info, err := file.Stat()
		if err != nil {
			return err
		}
		w.Header().Set("Content-Length", fmt.Sprint(info.Size()))
	}

	_, err = io.Copy(w, file)

	return err
}

// serveHTTP serves on loopback until the benchmark ends.
func serveHTTP(b *testing.B, handler http.Handler) (url string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(b, err)

	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(listener)
	}()
	b.Cleanup(func() {
		server.Close()
		<-done
	})

	return "http://" + listener.Addr().String()
}

// download reads a whole answer.
func download(url string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()

	n, err := io.CopyBuffer(writerOnly{io.Discard}, resp.Body, make([]byte, downloadBuffer))
	if err == nil && n != resp.ContentLength {
		err = io.ErrUnexpectedEOF
	}

	return err
}

// downloadBuffer is the size of the client's reads, as of io.Copy.
const downloadBuffer = 32 << 10

// completeCopy completes a run as another output.
func completeCopy(b *testing.B, running output.Prefix, format output.Format) func() *Content {
	return func() *Content {
		out := testOutput(b)

		j, err := journal.Open(running.Journal())
		fixture.Must(b, err)
		defer j.Close()

		fixture.Must(b, j.Rewrite(context.Background(), out, format))

		c := openContent(b, Config{Output: out})
		file, _ := c.Packed()
		info, err := file.Stat()
		fixture.Must(b, err)
		b.Logf("compression: %.2f", float64(c.Size())/float64(info.Size()))

		return c
	}
}

// writeAnswers writes a journal with about size bytes of answers, and a plain file of them.
func writeAnswers(b *testing.B, size int64) (out output.Prefix, plain string) {
	out = testOutput(b)
	plain = string(out) + ".jsonl"

	file, err := os.Create(plain)
	fixture.Must(b, err)
	defer file.Close()

	const requests = 1 << 22
	j, err := journal.Create(out.Journal(), fixture.Manifest(requests))
	fixture.Must(b, err)
	defer j.Close()

	var (
		rnd   = rand.New(rand.NewPCG(1, 2))
		words = readWords(b)
		scan  jsonscan.Scanner
		f     journal.Frame
		lines []byte
		total int64
	)
	for index := uint32(0); total < size; index++ {
		line := answerLine(rnd, words, index)
		info, err := proto.ParseLine(&scan, line)
		fixture.Must(b, err)
		info.Worker = []byte("gpu1")

		f.Add(index, line, info)
		lines = append(lines, line...)
		total += int64(len(line))

		if f.IsFull() || total >= size {
			fixture.Must(b, j.Append(&f))
			_, err := file.Write(lines)
			fixture.Must(b, err)
			f, lines = journal.Frame{}, lines[:0]
		}
	}

	return out, plain
}

// answerLine returns the line of an answer of 200 to 6,000 bytes of text.
func answerLine(rnd *rand.Rand, words []string, index uint32) []byte {
	var answer strings.Builder
	for n := 200 + int(rnd.ExpFloat64()*1200)%5800; answer.Len() < n; {
		phrase := 2 + rnd.IntN(10)
		at := rnd.IntN(len(words) - phrase)
		for _, word := range words[at : at+phrase] {
			answer.WriteString(word + " ")
		}
	}

	n := answer.Len()
	text, err := json.Marshal(answer.String())
	if err != nil {
		panic(err)
	}

	return proto.AppendResult(nil, proto.Result{
		Run:         "run-20260102-030405-abcd",
		Index:       index,
		CustomID:    fmt.Appendf(nil, `"request-%d"`, index),
		RequestHash: rnd.Uint64(),
		Status:      200,
		Worker:      fmt.Sprintf("gpu%d", rnd.IntN(4)),
		Attempts:    1,
		Queued:      time.Duration(rnd.IntN(50)) * time.Millisecond,
		Latency:     time.Duration(rnd.IntN(20000)) * time.Millisecond,
		Body: fmt.Appendf(nil, `{"id":"chatcmpl-%016x%016x","object":"chat.completion","created":%d,`+
			`"model":"Qwen/Qwen3-30B-A3B","choices":[{"index":0,"message":{"role":"assistant","reasoning_content":null,`+
			`"content":%s,"tool_calls":[]},"logprobs":null,"finish_reason":"stop","stop_reason":null}],`+
			`"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":null}}`,
			rnd.Uint64(), rnd.Uint64(), 1767323045+index/40, text, rnd.IntN(900), n/3+rnd.IntN(900), n/3),
	})
}

// readWords returns the words of the comments of Go's standard library.
func readWords(b *testing.B) (words []string) {
	root, err := exec.CommandContext(b.Context(), "go", "env", "GOROOT").Output()
	fixture.Must(b, err)

	src := filepath.Join(strings.TrimSpace(string(root)), "src")
	fixture.Must(b, filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasPrefix(d.Name(), "rewrite") {
			return err
		}

		source, err := os.ReadFile(path)
		for line := range strings.Lines(string(source)) {
			if text, ok := strings.CutPrefix(strings.TrimSpace(line), "// "); ok {
				words = append(words, strings.Fields(strings.ToValidUTF8(text, ""))...)
			}
		}

		return err
	}))

	return words
}

// cpuTime returns the processor time that this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
