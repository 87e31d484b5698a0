package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
)

// The benchmarks compare a whole run, from the start of the process to the finished
// files, with a bare Go client in a closed loop against the same server, which is a
// process of its own. Run them with
//
//	go test -run - -bench . -benchtime 1x -timeout 30m ./deploy/promptmill

// BenchmarkNoLatency: 4 KB requests, 1.2 KB answers, a server that answers at once.
func BenchmarkNoLatency(b *testing.B) {
	compare(b, 50_000, 64, 4096, "--sim-ttft", "0s", "--sim-tpot", "0s", "--sim-tokens", "150")
}

// BenchmarkSlots: a server of 256 slots that takes a second for each answer.
func BenchmarkSlots(b *testing.B) {
	compare(b, 20_000, 256, 4096, "--sim-ttft", "1s", "--sim-tpot", "0s", "--sim-spread", "0", "--sim-slots", "256", "--sim-tokens", "150")
}

// BenchmarkMemory: the peak memory of runs of 100,000 and 1,000,000 small requests.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		server := startSimProcess(b, "--sim-ttft", "0s", "--sim-tpot", "0s", "--sim-tokens", "8")
		var peak [2]float64
		for i, n := range []int{100_000, 1_000_000} {
			_, _, usage := runOnce(b, server, benchInput(b, n, 100), 64)
			peak[i] = float64(usage.Maxrss) / 1024
		}
		b.ReportMetric(peak[0], "MB/100K")
		b.ReportMetric(peak[1], "MB/1M")
		b.ReportMetric(peak[1]/peak[0], "ratio")
	}
}

func compare(b *testing.B, requests, concurrency, size int, sim ...string) {
	for b.Loop() {
		server := startSimProcess(b, sim...)
		in := benchInput(b, requests, size)
		direct(b, server, in, concurrency, min(requests, 5000)) // warm up
		bare := direct(b, server, in, concurrency, requests)
		took, phase, usage := runOnce(b, server, in, concurrency)
		ours := float64(requests) / took.Seconds()
		cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		b.ReportMetric(bare, "bare-req/s")
		b.ReportMetric(ours, "run-req/s")
		b.ReportMetric(ours/bare, "ratio")
		b.ReportMetric(phase/bare, "phase-ratio")
		b.ReportMetric(float64(cpu.Microseconds())/float64(requests), "run-cpu-us/req")
	}
}

// startSimProcess starts a simulated server and returns its URL.
func startSimProcess(b *testing.B, args ...string) string {
	b.Helper()
	path, err := exec.LookPath("promptmill")
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(path, append([]string{"sim", "--listen", "127.0.0.1:0"}, args...)...)
	out, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(line, "http://")
	addr, _, _ := strings.Cut(rest, ",")
	return "http://" + addr
}

// benchInput writes n requests of about size bytes.
func benchInput(b *testing.B, n, size int) string {
	b.Helper()
	words := strings.Fields("the customer wrote that payment failed after an update and asks for a refund of order number since delivery was late again this month")
	path := filepath.Join(b.TempDir(), fmt.Sprintf("in-%d.jsonl", n))
	file, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriterSize(file, 1<<20)
	var text bytes.Buffer
	for i := range n {
		text.Reset()
		for x := uint64(i) + 1; text.Len() < size-180; {
			x = x*6364136223846793005 + 1442695040888963407
			text.WriteString(words[x>>33%uint64(len(words))])
			text.WriteByte(' ')
		}
		fmt.Fprintf(w, `{"custom_id":"r-%d","method":"POST","url":"/v1/chat/completions","body":{"model":"sim","messages":[{"role":"user","content":"%d %s"}]}}`+"\n", i, i, text.Bytes())
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	file.Close()
	return path
}

// runOnce times a whole promptmill run. phase is the rate that its metadata tells: that
// of the requests, without validation and the writing of the final files.
func runOnce(b *testing.B, server, in string, concurrency int) (took time.Duration, phase float64, usage *syscall.Rusage) {
	b.Helper()
	dir := b.TempDir()
	path, err := exec.LookPath("promptmill")
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(path, "run", in, "-o", filepath.Join(dir, "out.jsonl.zst"), "--state", dir, "--url", server,
		"--concurrency", fmt.Sprint(concurrency), "--model", "sim", "--progress", "none")
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	took = time.Since(begin)
	text, err := os.ReadFile(filepath.Join(dir, "out.meta.json"))
	if err != nil {
		b.Fatal(err)
	}
	var meta metadata.Run
	if err := json.Unmarshal(text, &meta); err != nil {
		b.Fatal(err)
	}
	return took, *meta.Results.ThroughputRequestsPerSec, cmd.ProcessState.SysUsage().(*syscall.Rusage)
}

// direct is the bare client: it posts the bodies of the input, as fast as it can, and
// reads the answers. It returns requests a second.
func direct(b *testing.B, server, in string, concurrency, requests int) float64 {
	b.Helper()
	data, err := os.ReadFile(in)
	if err != nil {
		b.Fatal(err)
	}
	var bodies [][]byte
	for line := range bytes.Lines(data) {
		start := bytes.Index(line, []byte(`"body":`)) + len(`"body":`)
		bodies = append(bodies, line[start:len(line)-2])
		if len(bodies) == requests {
			break
		}
	}
	transport := &http.Transport{MaxIdleConnsPerHost: concurrency}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var next atomic.Int64
	var clients sync.WaitGroup
	begin := time.Now()
	for range concurrency {
		clients.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(bodies)); i = next.Add(1) - 1 {
				res, err := client.Post(server+"/v1/chat/completions", "application/json", bytes.NewReader(bodies[i]))
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
	clients.Wait()
	return float64(requests) / time.Since(begin).Seconds()
}
