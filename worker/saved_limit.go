package worker

import (
	"slices"

	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// savedLimit is what the worker knows of the memory of how many requests at once its server
// takes. The lock for asking the server guards it.
type savedLimit struct {
	key   string // of the server; "" before it has said what it is
	kept  int
	wrote bool // by this process, which also says that the server was met
}

// resumeLimit begins the search for the number of requests at once where it ended last time.
func (w *Worker) resumeLimit(info modelserver.Info) {
	r := &w.savedLimit
	if w.cfg.Memory == nil {
		return
	}

	key := memoryKey(w.cfg.Server.URL(), info)
	if key == r.key {
		return
	}

	r.key, r.kept, r.wrote = key, w.cfg.Memory.Load(key), false
	if r.kept > 0 && w.cfg.Limiter.StartAt(r.kept) {
		w.cfg.Log.Info().Str("server", w.cfg.Server.URL()).Int("at_once", w.cfg.Limiter.Limit()).
			Msg("beginning with as many requests at once as this server took the last time")
	}
}

// memoryKey is what makes a server the same one as at the last start.
func memoryKey(url string, info modelserver.Info) string {
	parts := []string{url, info.Flavour}
	for _, m := range info.Models {
		parts = append(parts, m.ID)
	}
	slices.Sort(parts[2:])
	return limit.MemoryKey(parts...)
}

// saveLimit keeps how many requests at once the server takes, if that has been found out and is
// not what is kept already, give or take a few.
func (w *Worker) saveLimit() {
	w.health.asking.Lock()
	defer w.health.asking.Unlock()

	r, n := &w.savedLimit, w.cfg.Limiter.Found()
	same := r.wrote && n <= r.kept+r.kept/10 && n >= r.kept-r.kept/10
	if r.key == "" || n == 0 || same {
		return
	}

	if err := w.cfg.Memory.Store(r.key, n); err != nil {
		w.cfg.Log.Debug().Err(err).Msg("the number of requests at once is found anew at the next start")
	}

	r.kept, r.wrote = n, true
}
