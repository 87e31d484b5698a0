package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/promptmill/promptmill/deploy/doctor"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/worker/limit"
)

// Ctrl-C ends doctor while a model server does not answer.
func TestCtrlCEndsDoctor(t *testing.T) {
	t.Parallel()

	signals := make(chan os.Signal, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case signals <- os.Interrupt:
		default: // sent
		}
		<-r.Context().Done()
	}))

	t.Cleanup(s.Close)

	err := examine(t.Context(), environment{stdout: &bytes.Buffer{}, signals: signals}, doctor.Options{
		Servers:     modelservers.Config{URLs: []string{s.URL}},
		State:       t.TempDir(),
		Output:      t.TempDir(),
		Concurrency: limit.DefaultMax,
		ShardBytes:  pipeline.DefaultShardBytes,
	}, false)
	if exit.Code(err) != exit.CodeInterrupted {
		t.Errorf("exit code %d: %v", exit.Code(err), err)
	}
}
