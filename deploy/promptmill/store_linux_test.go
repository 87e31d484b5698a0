package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/worker/sim"
)

// bound runs a command without root's right to read files that its permissions deny, and with a
// limit of open files; 0: the present limit.
func (c command) bound(files int, args ...string) (string, int) {
	c.t.Helper()

	cmd := c.prepare(args...)
	var outer []string
	if os.Geteuid() == 0 {
		setpriv, err := exec.LookPath("setpriv")
		if err != nil {
			c.t.Skip("root may read everything, and there is no setpriv to change that")
		}
		outer = append(outer, setpriv, "--bounding-set=-dac_override,-dac_read_search")
	}

	if files > 0 {
		prlimit, err := exec.LookPath("prlimit")
		if err != nil {
			c.t.Skip("there is no prlimit")
		}
		outer = append(outer, prlimit, fmt.Sprintf("--nofile=%d:%d", files, files))
	}

	if len(outer) > 0 {
		cmd.Path, cmd.Args = outer[0], append(outer, append([]string{cmd.Path}, cmd.Args[1:]...)...)
	}

	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(c.t, cmd.Start())
	enough := time.AfterFunc(pollTime, func() { cmd.Process.Kill() }) // it has started
	defer enough.Stop()

	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), exit.ExitCode()
	}

	must(c.t, err)

	return out.String(), exit.CodeOK
}

// tree is all that lies in a folder: kinds, sizes and permissions.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()

	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		info, err := d.Info()
		if err != nil {
			return err
		}

		all[path] = info.Mode().String()
		if d.Type().IsRegular() {
			all[path] += fmt.Sprint(" ", info.Size())
		}

		return nil
	}))

	return all
}

// A bus does not start on a store that it cannot read whole, and changes nothing there.
func TestStoreThatCannotBeRead(t *testing.T) {
	t.Parallel()

	const bucket = "KV_promptmill_runs"
	chmod := func(paths ...string) func(*testing.T, string) {
		return func(t *testing.T, streams string) {
			path := filepath.Join(append([]string{streams}, paths...)...)
			info, err := os.Stat(path)
			must(t, err)
			must(t, os.Chmod(path, 0))
			t.Cleanup(func() { os.Chmod(path, info.Mode()) })
		}
	}

	replace := func(paths ...string) func(*testing.T, string) {
		return func(t *testing.T, streams string) {
			path := filepath.Join(append([]string{streams}, paths...)...)
			must(t, os.RemoveAll(path))
			must(t, os.WriteFile(path, nil, 0o600))
		}
	}
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, streams string)
		files  int
		says   string
	}{
		{"a denied block of messages", chmod(bucket, "msgs", "1.blk"), 0, "1.blk: permission denied"},
		{"a denied block of a work stream", chmod("pm_r_work", "msgs", "1.blk"), 0,
			"pm_r_work/msgs/1.blk: permission denied"},
		{"a denied description", chmod(bucket, "meta.inf"), 0, "meta.inf: permission denied"},
		{"denied messages", chmod(bucket, "msgs"), 0, "msgs: permission denied"},
		{"a denied stream", chmod("pm_r_results"), 0, "pm_r_results: permission denied"},
		{"denied consumers", chmod("pm_r_work", "obs"), 0, "obs: permission denied"},
		{"denied streams", chmod(), 0, "streams: permission denied"},
		{"a denied account", chmod(".."), 0, "PROMPTMILL: permission denied"},
		{"a denied store", chmod("..", "..", ".."), 0, "nats: permission denied"},
		{"a file for a stream", replace(bucket), 0, bucket + " is not a folder"},
		{"a file for the streams", replace(), 0, "streams is not a folder"},
		{"a file for messages", replace(bucket, "msgs"), 0, "stream " + bucket},
		{"no open files", func(*testing.T, string) {}, 8, "too many open files"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			c := newCommand(t)
			serving, said := c.serve()
			c.must("submit", c.input("in.jsonl", 50), "--model", "m", "--run", "r")
			poll(t, pollTime, "the journal", func() bool {
				return files.Exists(output.Prefix(filepath.Join(c.dir, "r")).Journal())
			})

			terminate(t, serving, said)
			store := filepath.Join(c.state, "serve", "nats")
			tt.damage(t, natsserver.StreamsFolder(store))

			before := map[string]string{}
			if tt.files > 0 || os.Geteuid() == 0 { // root may read it
				before = tree(t, store)
			}

			out, code := c.bound(tt.files, "serve", "--listen", "127.0.0.1:0")
			if code != exit.CodeUnreachable || !strings.Contains(out, tt.says) ||
				!strings.Contains(out, "hint: nothing was changed") {
				t.Errorf("exit code %d, want %d and %q:\n%s", code, exit.CodeUnreachable, tt.says, out)
			}

			if len(before) > 0 {
				if diff := cmp.Diff(before, tree(t, store)); diff != "" {
					t.Errorf("the store has changed:\n%s", diff)
				}
			}
		})
	}
}

// A stream whose description alone is damaged has its messages.
func TestStoreDescribedAgain(t *testing.T) {
	t.Parallel()

	for name, damage := range map[string]func(t *testing.T, stream string){
		"damaged": func(t *testing.T, stream string) {
			must(t, os.WriteFile(filepath.Join(stream, "meta.inf"), []byte("x"), 0o600))
		},
		"gone":          func(t *testing.T, stream string) { must(t, os.Remove(filepath.Join(stream, "meta.inf"))) },
		"without a sum": func(t *testing.T, stream string) { must(t, os.Remove(filepath.Join(stream, "meta.sum"))) },
		"nothing at all": func(t *testing.T, stream string) {
			must(t, os.Truncate(filepath.Join(stream, "meta.inf"), 0))
		},
	} {
		for _, stream := range []string{"KV_promptmill_runs", "pm_out_work", "OBJ_pm_out_objects"} {
			t.Run(name+" "+stream, func(t *testing.T) {
				t.Parallel()

				c := newCommand(t)
				serving, said := c.serve()
				in := c.input("in.jsonl", 50)
				c.must("submit", in, "--model", "sim", "--run", "out")
				terminate(t, serving, said)
				damage(t, filepath.Join(natsserver.StreamsFolder(filepath.Join(c.state, "serve", "nats")), stream))
				serving, said = c.serve()
				m := newModel(t, sim.Config{})
				c.start("worker", "--url", m.url)
				c.ended("out", pollTime)
				c.verified(in, "out")
				if !strings.Contains(said.String(), "the description of a stream was damaged; created it again") {
					t.Errorf("serve does not report it:\n%s", said)
				}

				must(t, serving.Process.Kill())
				serving.Wait()
				if _, said = c.serve(); strings.Contains(said.String(), "was damaged") {
					t.Errorf("it is still damaged at the next start:\n%s", said)
				}
			})
		}
	}
}

// A run that the bus has lost continues from its journal if its input is there, and is named if
// not.
func TestServeRestoresWhatTheBusHasLost(t *testing.T) {
	t.Parallel()

	const requests = 300
	for _, tt := range []struct {
		name    string
		lost    []string // of the store
		deleted bool     // the run, before
		copied  bool     // serve has a copy of the input
		says    string
		again   bool // it is to be submitted again
	}{
		{"the manifests", []string{"KV_promptmill_runs"}, false, false,
			"the bus has lost it; resuming from its journal", false},
		{"the messages of manifests", []string{"KV_promptmill_runs/msgs"}, false, false,
			"the bus has lost it; resuming from its journal", false},
		{"all, with a copy of the input", []string{"."}, false, true,
			"the bus has lost it; resuming from its journal", false},
		{"all, without a copy", []string{"."}, false, false, "cannot continue: copy the input from the bus", true},
		{"all, of a run that was deleted", []string{"."}, true, true, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			c := newCommand(t)
			m := newModel(t, sim.Config{Slots: 8, TTFT: 20 * time.Millisecond, Tokens: 5})
			serving, said := c.serve()
			working, workSaid := c.start("worker", "--url", m.url, "--concurrency", "8")
			in := c.input("in.jsonl", requests)
			c.must("submit", in, "--model", "sim", "--run", "out")
			poll(t, pollTime, "lines in the journal", func() bool { return len(c.journal("out")) > 20 })

			if tt.copied {
				dir := filepath.Join(c.state, "serve", "runs", "out")
				must(t, os.MkdirAll(dir, 0o700))
				data, err := os.ReadFile(filepath.Join(c.dir, in))
				must(t, err)
				must(t, os.WriteFile(filepath.Join(dir, "input-0"), data, 0o600))
			}

			if tt.deleted {
				c.must("delete", "out", "--force")
				poll(t, pollTime, "serve to say so", func() bool {
					return files.Exists(filepath.Join(c.state, "serve", "deleted", "out"))
				})
			}

			// At SIGTERM the worker would do the rest of the run in its grace.
			must(t, working.Process.Signal(os.Interrupt))
			waitExit(t, working, workSaid, patience)
			terminate(t, serving, said)
			before := c.journal("out")

			for _, path := range tt.lost {
				must(t, os.RemoveAll(filepath.Join(natsserver.StreamsFolder(filepath.Join(c.state, "serve", "nats")),
					path)))
			}

			_, said = c.serve()
			c.start("worker", "--url", m.url)

			if tt.deleted {
				if list, _, _ := c.output("list"); strings.Contains(list, "out") {
					t.Errorf("a deleted run is back:\n%s", list)
				}
				return
			}

			if !strings.Contains(said.String(), tt.says) && tt.says != "" {
				poll(t, pollTime, tt.says, func() bool { return strings.Contains(said.String(), tt.says) })
			}

			if tt.again {
				c.must("submit", in, "--model", "sim", "--run", "out")
			}

			c.ended("out", pollTime)
			c.verified(in, "out")
			c.keeps("out", before)

			if asked := int(m.sim.Succeeded()); !tt.again && asked > requests+64 {
				t.Errorf("the model was asked %d times for %d requests", asked, requests)
			}
		})
	}
}
