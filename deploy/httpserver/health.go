package httpserver

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

const (
	// checkTime is the time limit of all checks of /readyz.
	checkTime = 5 * time.Second
	// checkLife is the time for which their results hold. /readyz needs no key, so its clients may not make
	// work without limit.
	checkLife = time.Second
)

// Check reports why a server cannot work now. Nil: it can. Clients without a key can read the error.
type Check func(ctx context.Context) error

// readiness is the answer of /readyz.
type readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"`
}

// serveHealth answers that the process lives.
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	SetRoute(r.Context(), r.Pattern)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte("ok\n"))
}

// serveReadiness answers whether the server can work, or why not.
func (s *Server) serveReadiness(w http.ResponseWriter, r *http.Request) {
	SetRoute(r.Context(), r.Pattern)
	reasons := s.findReasons(r.Context())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if len(reasons) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}

	json.NewEncoder(w).Encode(readiness{len(reasons) == 0, reasons})
}

// findReasons returns why the server cannot work.
func (s *Server) findReasons(ctx context.Context) (reasons []string) {
	if s.stopping.Load() {
		return []string{"the server is stopping"}
	}

	now := s.work.Load()
	if now == nil {
		return []string{"the server is starting"}
	}

	return now.checkAll(ctx)
}

// checkAll returns what the checks find, or found a moment ago.
func (w *work) checkAll(ctx context.Context) []string {
	w.mu.Lock()
	defer w.mu.Unlock()

	if !w.checkedAt.IsZero() && time.Since(w.checkedAt) < checkLife {
		return w.reasons
	}

	// The results are for other clients too, so a client that goes ends no check.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTime)
	defer cancel()

	w.reasons = nil
	for _, check := range w.checks {
		if err := check(ctx); err != nil {
			w.reasons = append(w.reasons, err.Error())
		}
	}

	w.checkedAt = time.Now()

	return w.reasons
}

// refuseMethod refuses a method other than GET and HEAD.
func refuseMethod(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, "this page has GET and HEAD alone", http.StatusMethodNotAllowed)
}
