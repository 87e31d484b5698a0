package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// layout names the files of a deployment.
type layout struct{ dir string }

func (l layout) logPath(name string) string  { return filepath.Join(l.dir, "logs", name+".log") }
func (l layout) outputDir() string           { return filepath.Join(l.dir, "out") }
func (l layout) clientState() string         { return filepath.Join(l.dir, "others") }
func (l layout) inputPath(run string) string { return filepath.Join(l.dir, run+".jsonl") }
func (l layout) answersPath(m string) string { return filepath.Join(l.dir, "answers", m) }
func (l layout) clockPath(p string) string   { return filepath.Join(l.dir, "clocks", p) }
func (l layout) readerOutput(n int) string {
	return filepath.Join(l.dir, "reader", fmt.Sprintf("life-%03d.jsonl", n))
}
func (l layout) runFile(run, end string) string { return filepath.Join(l.outputDir(), run+end) }

// storePath is the folder of the store of serve or a node.
func (l layout) storePath(name string) string {
	if name == "serve" {
		return filepath.Join(l.dir, "state", "serve", "nats")
	}
	return filepath.Join(l.dir, "nodes", name)
}

func (l layout) diskPaths() map[string]string {
	return map[string]string{"out": l.outputDir(), "store": filepath.Join(l.dir, "state")}
}

// isComplete reports whether a run's files are all written.
func (l layout) isComplete(run string) bool {
	_, err := os.Stat(l.runFile(run, ".meta.json"))
	_, still := os.Stat(l.runFile(run, ".part.zst"))
	return err == nil && errors.Is(still, os.ErrNotExist)
}

// otherInput is the input with which others use the id of a run again.
func (l layout) otherInput(run string) string {
	return filepath.Join(l.dir, "other-"+run+".jsonl")
}
