package httpserver

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// checkTime is the time limit of all checks of /readyz.
const checkTime = 5 * time.Second

// Check reports why a server cannot work now. Nil: it can.
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

	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()

	for _, check := range now.checks {
		if err := check(ctx); err != nil {
			reasons = append(reasons, err.Error())
		}
	}

	return reasons
}

// refuseMethod refuses a method other than GET and HEAD.
func refuseMethod(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, "this page has GET and HEAD alone", http.StatusMethodNotAllowed)
}
