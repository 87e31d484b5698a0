package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/objectstore/storetest"
	"github.com/promptmill/promptmill/worker/sim"
)

// storeRow is a row of the inputs in stores.
type storeRow struct {
	ID   int64  `json:"id" parquet:"id"`
	Text string `json:"text" parquet:"text"`
}

// storeRows returns n rows of about 1 KB.
func storeRows(n int) (rows []storeRow) {
	for i := range n {
		rows = append(rows, storeRow{ID: int64(i), Text: strings.Repeat(fmt.Sprintf("ticket %d ", i), 80)})
	}
	return rows
}

// storeObjects returns the rows in the formats of inputs, by the keys of the objects. parts/ has
// them in two files, beside names that are passed over.
func storeObjects(t *testing.T, rows []storeRow) map[string][]byte {
	t.Helper()

	csv, lines := bytes.NewBufferString("id,text\n"), &bytes.Buffer{}
	for _, row := range rows {
		fmt.Fprintf(csv, "%d,%s\n", row.ID, row.Text)
		line, err := json.Marshal(row)
		must(t, err)
		lines.Write(append(line, '\n'))
	}

	var packed, columns bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(lines.Bytes())
	must(t, err)
	must(t, z.Close())

	w := parquet.NewGenericWriter[storeRow](&columns, parquet.MaxRowsPerRowGroup(int64(len(rows)/8)))
	_, err = w.Write(rows)
	must(t, err)
	must(t, w.Close())

	half := bytes.IndexByte(lines.Bytes()[lines.Len()/2:], '\n') + lines.Len()/2 + 1

	return map[string][]byte{
		"t.csv":                csv.Bytes(),
		"t.jsonl.gz":           packed.Bytes(),
		"t.parquet":            columns.Bytes(),
		"parts/part-0.jsonl":   lines.Bytes()[:half],
		"parts/part-1.jsonl":   lines.Bytes()[half:],
		"parts/_SUCCESS":       {},
		"parts/.part-0.crc":    []byte("x"),
		"a folder/größe+1.csv": csv.Bytes(),
	}
}

// writeObjects writes objects as files below a folder.
func writeObjects(t *testing.T, dir string, objects map[string][]byte) {
	t.Helper()

	for key, text := range objects {
		path := filepath.Join(dir, key)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, text, 0o644))
	}
}

// inPlaces returns a command whose environment has the credentials of the servers, and no others.
func inPlaces(t *testing.T, more ...string) command {
	t.Helper()
	c := newCommand(t)
	c.env = append(storetest.Hidden(c.dir),
		"AWS_ACCESS_KEY_ID="+storetest.AccessKey,
		"AWS_SECRET_ACCESS_KEY="+storetest.SecretKey,
	)
	c.env = append(c.env, more...)

	return c
}

// instant are the flags of a simulated server without latency.
var instant = []string{
	"--prompt", "{{.text}}", "--sim", "--sim-ttft", "0s", "--sim-tpot", "0s", "--sim-tokens", "2", "--progress", "none",
}

// hub is a fake of the Hub of Hugging Face with one data set, o/n. It lists a file a page, and
// answers a file with a redirect to a server that knows no tokens.
func startHub(t *testing.T, objects map[string][]byte) string {
	t.Helper()

	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the token is sent to the server of files")
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(objects[strings.TrimPrefix(r.URL.Path, "/")]))
	}))
	t.Cleanup(files.Close)

	var keys []string
	for key := range objects {
		keys = append(keys, key)
	}

	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}

		if key, ok := strings.CutPrefix(r.URL.Path, "/datasets/o/n/resolve/main/"); ok {
			if objects[key] == nil {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Header().Set("X-Linked-Etag", fmt.Sprintf(`"%s %d"`, key, len(objects[key])))
			http.Redirect(w, r, strings.Replace(files.URL, "127.0.0.1", "localhost", 1)+"/"+key, http.StatusFound)
			return
		}

		if !strings.HasPrefix(r.URL.Path, "/api/datasets/o/n/tree/main") {
			w.WriteHeader(http.StatusNotFound)
			return
		}

		var at int
		fmt.Sscan(r.URL.Query().Get("cursor"), &at)
		if at+1 < len(keys) {
			w.Header().Set("Link", fmt.Sprintf(`<%s?recursive=true&cursor=%d>; rel="next"`, r.URL.Path, at+1))
		}
		fmt.Fprintf(w, `[{"type":"file","path":%q,"size":%d}]`, keys[at], len(objects[keys[at]]))
	}))
	t.Cleanup(hub.Close)

	return hub.URL
}

// Inputs in each kind of store, in each format, are run to a table that verify proves.
func TestRunFromStores(t *testing.T) {
	t.Parallel()

	const rows = 2000
	objects := storeObjects(t, storeRows(rows))

	folder := func(t *testing.T) string {
		dir := t.TempDir()
		writeObjects(t, filepath.Join(dir, "bucket"), objects)
		return dir
	}

	for name, start := range map[string]func(t *testing.T) (root string, environment []string){
		"versitygw": func(t *testing.T) (string, []string) {
			return "s3://bucket/", []string{"AWS_ENDPOINT_URL_S3=" + storetest.StartVersity(t, folder(t))}
		},
		"moto": func(t *testing.T) (string, []string) {
			endpoint := storetest.StartMoto(t)
			storetest.CreateBucket(t, endpoint, "bucket", "eu-central-1", objects)
			return "s3://bucket/", []string{"AWS_ENDPOINT_URL=" + endpoint, "AWS_REGION=eu-central-1"}
		},
		"fake-gcs-server": func(t *testing.T) (string, []string) {
			endpoint := storetest.StartGCS(t)
			storetest.CreateGCSBucket(t, endpoint, "bucket", objects)
			return "gs://bucket/", []string{"STORAGE_EMULATOR_HOST=" + endpoint}
		},
		"Hugging Face": func(t *testing.T) (string, []string) {
			return "hf://datasets/o/n/", []string{"HF_ENDPOINT=" + startHub(t, objects), "HF_TOKEN=token"}
		},
		"web server": func(t *testing.T) (string, []string) {
			server := httptest.NewServer(http.FileServer(http.Dir(folder(t))))
			t.Cleanup(server.Close)
			return server.URL + "/bucket/", nil
		},
		"web server without ranges": func(t *testing.T) (string, []string) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				text := objects[strings.TrimPrefix(r.URL.Path, "/")]
				w.Header().Set("Content-Length", fmt.Sprint(len(text)))
				w.Write(text)
			}))
			t.Cleanup(server.Close)
			return server.URL + "/", nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			root, environment := start(t)
			isWeb := strings.HasPrefix(root, "http")
			for key, into := range map[string]string{
				"t.csv":                "out.parquet",
				"t.jsonl.gz":           "out.jsonl",
				"t.parquet":            "out.csv",
				"parts/":               "out.jsonl.gz",
				"**/part-?.jsonl":      "out.csv",
				"a folder/größe+1.csv": "out.csv",
			} {
				if isWeb && strings.ContainsAny(key, "* ") || isWeb && strings.HasSuffix(key, "/") {
					continue
				}

				c := inPlaces(t, environment...)
				args := append([]string{"run", root + key, "-o", into}, instant...)
				if name == "web server without ranges" && key == "t.parquet" {
					c.expect(exit.CodeUsage, "t.parquet: the server cannot send a part of a file", args...)
					continue
				}

				c.expect(exit.CodeOK, "done: 2,000 answered, 0 failed", args...)
				c.expect(exit.CodeOK, "proved", "verify", root+key, into)
			}
		})
	}
}

// A web server sends a part of a file for the first request, and the whole file for later ones.
func TestRunFromServerThatIgnoresLaterRanges(t *testing.T) {
	t.Parallel()

	objects := storeObjects(t, storeRows(2000))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := objects[strings.TrimPrefix(r.URL.Path, "/")]
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, len(text)))
		if !strings.HasPrefix(r.Header.Get("Range"), "bytes=0-") {
			r.Header.Del("Range")
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
	}))
	t.Cleanup(server.Close)

	c := inPlaces(t)
	writeObjects(t, c.dir, map[string][]byte{"t.csv": objects["t.csv"]})
	c.expect(exit.CodeOK, "done: 2,000 answered, 0 failed",
		append([]string{"run", server.URL + "/t.csv", "-o", "out.csv"}, instant...)...)
	c.expect(exit.CodeOK, "proved", "verify", "t.csv", "out.csv")
	c.expect(exit.CodeOK, "proved", "verify", server.URL+"/t.csv", "out.csv")
	c.expect(exit.CodeUsage, "t.parquet: the server cannot send a part of a file",
		append([]string{"run", server.URL + "/t.parquet", "-o", "parquet.csv"}, instant...)...)
}

// A run whose input is in S3 is killed in the middle, and finished by the same command.
func TestKilledRunFromS3(t *testing.T) {
	t.Parallel()

	const rows = 5000
	dir := t.TempDir()
	writeObjects(t, filepath.Join(dir, "bucket"), storeObjects(t, storeRows(rows)))
	endpoint := storetest.StartVersity(t, dir)

	for _, key := range []string{"t.csv", "t.jsonl.gz", "t.parquet", "parts/"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()

			c := inPlaces(t, "AWS_ENDPOINT_URL_S3="+endpoint)
			m := newModel(t, sim.Config{TTFT: 20 * time.Millisecond, Tokens: 2})
			args := []string{
				"run", "s3://bucket/" + key, "--prompt", "{{.text}}", "--url", m.url, "-o", "out.csv", "--flush", "100ms",
				"--progress", "none",
			}
			for range 3 {
				c.killAfter(m, 1000, args...)
			}

			c.expect(exit.CodeOK, "done: 5,000 answered, 0 failed", args...)
			c.expect(exit.CodeOK, "proved", "verify", "s3://bucket/"+key, "out.csv")
			if again := m.sim.Succeeded() - rows; again > 1500 {
				t.Errorf("%d requests were run again: more than were not in the file yet", again)
			}
		})
	}
}

// An object that is replaced is never mixed with the one that was validated.
func TestReplacedObject(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	objects := storeObjects(t, storeRows(5000))
	others := storeObjects(t, storeRows(5001)[1:]) // of the same sizes, nearly
	endpoint := storetest.StartVersity(t, dir)
	created := time.Now().Add(-time.Hour)

	for _, key := range []string{"t.csv", "t.parquet"} {
		bucket := "b-" + strings.ReplaceAll(key, ".", "-")
		replace := func() error {
			path := filepath.Join(dir, bucket, key)
			if err := os.WriteFile(path+".new", others[key], 0o644); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}
		restore := func(t *testing.T) {
			must(t, os.RemoveAll(filepath.Join(dir, bucket)))
			writeObjects(t, filepath.Join(dir, bucket), objects)
			must(t, os.Chtimes(filepath.Join(dir, bucket, key), created, created)) // it is in place of an ETag
		}

		t.Run(key+", between the two reads", func(t *testing.T) {
			restore(t)
			proxy := storetest.StartProxy(t, endpoint)
			var mu sync.Mutex // guards the variables below
			seen, replaced := map[string]bool{}, error(nil)
			proxy.SetFault(func(w http.ResponseWriter, r storetest.Request) http.ResponseWriter {
				mu.Lock()
				defer mu.Unlock()

				const described = "bytes=0-0"
				if seen[r.Range] && r.Range != described && !seen["all"] { // the second reading has begun
					seen["all"] = true
					replaced = replace()
				}
				seen[r.Range] = true

				return w
			})

			c := inPlaces(t, "AWS_ENDPOINT_URL_S3="+proxy.URL)
			c.expect(exit.CodeError, "was changed since it was validated",
				append([]string{"run", "s3://" + bucket + "/" + key, "-o", "out.csv"}, instant...)...)

			if _, err := os.Stat(filepath.Join(c.dir, "out.csv")); err == nil {
				t.Error("there is a table")
			}

			mu.Lock()
			defer mu.Unlock()

			if replaced != nil || !seen["all"] {
				t.Errorf("the object was not replaced: %v", replaced)
			}
		})

		t.Run(key+", while the run is dead", func(t *testing.T) {
			restore(t)
			c := inPlaces(t, "AWS_ENDPOINT_URL_S3="+endpoint)
			m := newModel(t, sim.Config{TTFT: 20 * time.Millisecond, Tokens: 2})
			args := []string{
				"run", "s3://" + bucket + "/" + key, "--prompt", "{{.text}}", "--url", m.url, "-o", "out.csv", "--flush",
				"100ms", "--progress", "none",
			}
			c.killAfter(m, 1000, args...)
			must(t, replace())
			c.expect(exit.CodeError, "was made from another input", args...)

			restore(t)
			c.expect(exit.CodeOK, "done: 5,000 answered, 0 failed", args...)
			c.expect(exit.CodeOK, "proved", "verify", "s3://"+bucket+"/"+key, "out.csv")
		})
	}
}

// A run reads its input when it validates, when it publishes, and when it joins the table with the
// answers, whatever the number of shards. A text is one request each time, behind its beginning; of
// Parquet, a request has a megabyte.
func TestRequestsOfRunFromS3(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	writeObjects(t, filepath.Join(dir, "bucket"), storeObjects(t, storeRows(5000)))
	endpoint := storetest.StartVersity(t, dir)

	// A connection that breaks on a loaded machine adds a request, of another range or without an
	// answer.
	for key, want := range map[string]struct{ rest, ranges int }{
		"t.csv":     {3, 4},
		"t.parquet": {0, 24},
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()

			var mu sync.Mutex // guards answers
			answers := map[string]int{}
			proxy := storetest.StartProxy(t, endpoint)
			proxy.SetFault(func(w http.ResponseWriter, r storetest.Request) http.ResponseWriter {
				return storetest.ChangeAnswer(w, func(status int, _ http.Header) int {
					mu.Lock()
					defer mu.Unlock()

					answers[r.Range]++

					return status
				})
			})

			c := inPlaces(t, "AWS_ENDPOINT_URL_S3="+proxy.URL)
			c.expect(exit.CodeOK, "done: 5,000", append([]string{
				"run", "s3://bucket/" + key, "-o", "out.csv", "--shard-size", "8",
			}, instant...)...)

			mu.Lock()
			defer mu.Unlock()

			if rest := answers["bytes=262144-"]; rest != want.rest || len(answers) > want.ranges {
				t.Errorf("%d ranges, the rest %d times; want at most %d, and %d: %v", len(answers), rest, want.ranges,
					want.rest, answers)
			}
		})
	}
}

// Faults of the store pass without a trace in the table.
func TestRunThroughFaultsOfS3(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	writeObjects(t, filepath.Join(dir, "bucket"), storeObjects(t, storeRows(2000)))
	endpoint := storetest.StartVersity(t, dir)

	for name, fault := range map[string]storetest.Fault{
		"503 SlowDown": func(w http.ResponseWriter, r storetest.Request) http.ResponseWriter {
			if r.Number%3 == 2 {
				storetest.AnswerError(w, http.StatusServiceUnavailable, "SlowDown")
				return nil
			}
			return w
		},
		"connections that break": func(w http.ResponseWriter, r storetest.Request) http.ResponseWriter {
			return storetest.CutAnswer(w, 300<<10)
		},
		"a token that expires": func(w http.ResponseWriter, r storetest.Request) http.ResponseWriter {
			if r.Number == 4 {
				storetest.AnswerError(w, http.StatusBadRequest, "ExpiredToken")
				return nil
			}
			return w
		},
		"slow bytes": func(w http.ResponseWriter, r storetest.Request) http.ResponseWriter {
			return storetest.SlowAnswer(w, 5*time.Millisecond)
		},
	} {
		for _, key := range []string{"t.csv", "t.jsonl.gz", "t.parquet"} {
			t.Run(name+", "+key, func(t *testing.T) {
				t.Parallel()

				proxy := storetest.StartProxy(t, endpoint)
				proxy.SetFault(fault)
				c := inPlaces(t, "AWS_ENDPOINT_URL_S3="+proxy.URL)
				c.expect(exit.CodeOK, "done: 2,000 answered, 0 failed", append([]string{
					"run", "s3://bucket/" + key, "-o", "out.csv",
				}, instant...)...)
				proxy.SetFault(nil)
				c.expect(exit.CodeOK, "proved", "verify", "s3://bucket/"+key, "out.csv")
			})
		}
	}
}

// A signal ends a run that opens its input at a server that fails, and the attempts are logged.
func TestInterruptedAtFailingServer(t *testing.T) {
	t.Parallel()

	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "busy", http.StatusServiceUnavailable)
	}))
	t.Cleanup(s.Close)

	cmd, out := inPlaces(t).start("run", s.URL+"/in.csv", "--prompt", "{{.text}}", "--sim", "-o", "out.csv")
	for deadline := time.Now().Add(patience); !strings.Contains(out.String(), "a request to the store failed"); {
		if time.Now().After(deadline) {
			t.Fatalf("no attempt is logged:\n%s", out)
		}
		time.Sleep(10 * time.Millisecond)
	}

	must(t, cmd.Process.Signal(syscall.SIGTERM))
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exit.CodeInterrupted {
		t.Errorf("exit code %d, want %d:\n%s", code, exit.CodeInterrupted, out)
	}
}

// A URL where none is taken, and one with a slash too few, make no folder of that name.
func TestRefusedPlaces(t *testing.T) {
	t.Parallel()

	c := inPlaces(t)
	in := c.input("in.jsonl", 1)
	c.expect(exit.CodeUsage, "serve does not write into object stores", "serve", "--dir", "s3://b/x")
	c.expect(exit.CodeUsage, "write -o s3://b/x.jsonl.zst", "run", in, "--sim", "-o", "s3:/b/x.jsonl.zst")
	for _, name := range []string{"s3:", "s3"} {
		if _, err := os.Stat(filepath.Join(c.dir, name)); err == nil {
			t.Errorf("there is a folder %s", name)
		}
	}
}
