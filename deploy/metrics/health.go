package metrics

import (
	"encoding/json"
	"net/http"

	"github.com/promptmill/promptmill/deploy/progress"
)

// serveHealth answers that the process lives.
func serveHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte("ok\n"))
}

// serveReadiness answers whether the process can do its work, or why not.
func (e *Exporter) serveReadiness(w http.ResponseWriter, _ *http.Request) {
	reason := e.findReason()
	answer := map[string]any{"ready": reason == ""}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if reason != "" {
		answer["reasons"] = []string{reason}
		w.WriteHeader(http.StatusServiceUnavailable)
	}

	json.NewEncoder(w).Encode(answer)
}

// findReason returns why the process cannot do its work. Empty: it can.
func (e *Exporter) findReason() string {
	if e == nil {
		return "it is starting"
	}

	s, _ := e.snapshot(false)
	switch {
	case s.bus != nil && s.bus.look() == nil:
		return errSilent.Error()
	case s.bus == nil && len(s.runs) == 0 && len(s.workers) == 0:
		return "it is starting"
	case s.bus == nil && len(s.workers) > 0 && !hasReady(s.workers):
		return "no model server answers"
	}

	return ""
}

// hasReady reports whether the model server of a worker answers.
func hasReady(workers []progress.LocalWorker) bool {
	for _, w := range workers {
		if !w.Worker.Down() {
			return true
		}
	}
	return false
}
