package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// natsProgramVersion is the version of the nats program that the commands of proto/README.md are run with.
const natsProgramVersion = "v0.5.1"

var (
	shellBlock     = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	completedState = regexp.MustCompile(`(?m)^state +completed$`)
)

// shell runs the commands of a document in one folder, with the programs that they name.
type shell struct {
	command
	bin string // folder in front of PATH
	out string // file with all output
}

// newShell makes the folder with the programs and with the files of proto/examples/python.
func newShell(t *testing.T, programs map[string]string) shell {
	t.Helper()

	s := shell{command: newCommand(t)}
	s.bin, s.out = filepath.Join(s.dir, "bin"), filepath.Join(s.dir, "all.out")
	must(t, os.Mkdir(s.bin, 0o755))

	for name, path := range programs { // a link to a Python would lose its packages
		must(t, os.WriteFile(filepath.Join(s.bin, name), []byte("#!/bin/sh\nexec '"+path+"' \"$@\"\n"), 0o755))
	}

	must(t, os.CopyFS(s.dir, os.DirFS(filepath.Join("..", "..", "proto", "examples", "python"))))

	return s
}

// start runs commands. Those that stay in the background end with the test.
func (s shell) start(commands string) *exec.Cmd {
	s.t.Helper()

	out, err := os.OpenFile(s.out, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(s.t, err)
	defer out.Close()

	cmd := exec.Command("bash", "-ec", commands)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, out, out // a file: the shell may end before its children
	cmd.Env = append(os.Environ(), "PROMPTMILL_STATE="+s.state, "HOME="+s.dir, "NO_COLOR=1",
		"PATH="+s.bin+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(s.t, cmd.Start())
	s.t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })

	return cmd
}

// text returns the output so far.
func (s shell) text() string {
	s.t.Helper()
	text, err := os.ReadFile(s.out)
	must(s.t, err)
	return string(text)
}

// await waits until the output has a text.
func (s shell) await(text string) {
	s.t.Helper()

	defer func() {
		if s.t.Failed() {
			s.t.Log(s.text())
		}
	}()
	poll(s.t, pollTime, text, func() bool { return strings.Contains(s.text(), text) })
}

// All commands that proto/README.md shows can be pasted, one block after the other.
func TestCommandsOfTheProtocol(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the nats program")
	}

	t.Parallel()

	python := findPython(t, "nats", "xxhash", "zstandard")
	if python == "" {
		t.Skip("needs a Python with nats-py, xxhash and zstandard, in " + pythonVariable)
	}

	s := newShell(t, map[string]string{
		"python": python,
		"nats":   goProgram(t, "github.com/nats-io/natscli/nats", "nats", natsProgramVersion),
	})

	document, err := os.ReadFile(filepath.Join("..", "..", "proto", "README.md"))
	must(t, err)
	blocks := shellBlock.FindAllStringSubmatch(string(document), -1)
	if len(blocks) != 6 {
		t.Fatalf("the document has %d blocks of commands, want 6", len(blocks))
	}

	replace := []string{"127.0.0.1:4333", freeAddress(t), "127.0.0.1:8000", freeAddress(t)}
	const answer = `"custom_id":"a","response":{"status_code":200`
	for i, want := range []func(){
		func() {
			s.await("serving on")
			s.await("simulated")
		},
		func() {
			var reader map[string]string
			text, err := os.ReadFile(filepath.Join(s.dir, "reader.json"))
			must(t, err)
			must(t, json.Unmarshal(text, &reader))
			replace = append(replace, "CERTIFICATE", reader["ca"], "PASSWORD", reader["password"])
		},
		func() {
			s.await("Subscribing on pm.*.results.>")
			s.await("check its progress: promptmill status first")
		},
		func() {
			poll(t, pollTime, "the end of the run", func() bool { return completedState.MatchString(s.text()) })
			s.await(`a {"status_code": 200`) // the reader in Python
			s.await(answer)                  // nats sub
		},
		func() {
			poll(t, pollTime, "the stored line", func() bool { return strings.Count(s.text(), answer) == 2 })
			s.await(`{"schema":4,"run":"first","state":"completed"`)
			s.await("Information for Stream pm_first_results")
		},
		func() {
			poll(t, pollTime, "the stored line", func() bool { return strings.Count(s.text(), answer) == 3 })
		},
	} {
		cmd := s.start(strings.NewReplacer(replace...).Replace(blocks[i][1]))
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v:\n%s\n%s", err, blocks[i][1], s.text())
		}

		want()
	}

	for _, trouble := range []string{"Violation", "nats: error", "promptmill: error", "Traceback"} {
		if text := s.text(); strings.Contains(text, trouble) {
			t.Errorf("there is a %q:\n%s", trouble, text)
		}
	}
}
