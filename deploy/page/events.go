package page

import (
	"net/http"
	"time"

	"github.com/promptmill/promptmill/deploy/httpserver"
)

const (
	// heartbeatEvery is the time without an event after which a comment line goes out: proxies close connections
	// that are still, most after 60 s.
	heartbeatEvery = 15 * time.Second
	// retryLine has a browser connect again after 2 s.
	retryLine = "retry: 2000\n\n"
	// stoppingEvent is the last event of a head that stops.
	stoppingEvent = "event: " + EventStopping + "\ndata: {}\n\n"
)

// serveEvents answers with the events of all runs, and of one that the request names.
func (h *head) serveEvents(w http.ResponseWriter, r *http.Request, v viewer) *refusal {
	run := r.URL.Query().Get("run")
	stream, begin := eventStream{owner: v.owner(), run: run}, []byte(retryLine)
	if h.checkSight(v, run) != nil { // as if it were not on the bus: after a refusal the page would ask again for ever
		stream.run, begin = "", append(begin, goneEvent(run)...)
	}

	leave := h.hub.join(stream.owner, stream.run)
	defer leave()

	header := w.Header()
	header.Set("Content-Type", "text/event-stream; charset=utf-8")
	header.Set("X-Accel-Buffering", "no") // nginx sends each event at once then
	w.WriteHeader(http.StatusOK)

	h.sendEvents(w, r, v, stream, begin)

	return nil
}

// sendEvents sends the beginning of a stream, and its events until the viewer has gone, the key is revoked or the head
// stops.
func (h *head) sendEvents(w http.ResponseWriter, r *http.Request, v viewer, stream eventStream, begin []byte) {
	control := http.NewResponseController(w)
	send := func(text []byte) bool {
		_, err := w.Write(text)
		return err == nil && control.Flush() == nil
	}
	if !send(begin) {
		return
	}

	heartbeat := time.NewTicker(heartbeatEvery)
	defer heartbeat.Stop()

	for {
		latest, next := h.hub.now()
		if text := stream.nextEvents(latest); len(text) > 0 {
			if !h.isStillKnown(r, v) || !send(text) {
				return
			}
			heartbeat.Reset(heartbeatEvery)
		}

		select {
		case <-next:
		case <-heartbeat.C:
			if !h.isStillKnown(r, v) || !send([]byte(":\n\n")) {
				return
			}
		case <-r.Context().Done():
			return
		case <-h.serving.Done():
			send([]byte(stoppingEvent))
			return
		}
	}
}

// isStillKnown reports whether the key of a viewer is as it was when the stream began.
func (h *head) isStillKnown(r *http.Request, v viewer) bool {
	now, refused := h.access.identify(r)
	return refused == nil && now.needed == v.needed && now.key.ID == v.key.ID && now.key.Rights == v.key.Rights
}

// eventStream is what a viewer has got.
type eventStream struct {
	owner, run string

	state, detail *message
	gone          bool
}

// nextEvents returns the events of a frame, which may be nil, that the viewer has not got yet.
func (e *eventStream) nextEvents(f *frame) (text []byte) {
	if f == nil {
		return nil
	}

	if m := f.overviews[e.owner]; m != nil && m != e.state {
		e.state, text = m, append(text, m.event...)
	}

	detail, known := f.details[e.run]
	switch {
	case e.run == "" || !known:
	case detail == nil && !e.gone:
		e.gone, e.detail, text = true, nil, append(text, goneEvent(e.run)...)
	case detail != nil && detail != e.detail:
		e.gone, e.detail, text = false, detail, append(text, detail.event...)
	}

	return text
}

// noteRoute notes the pattern of the handler of a request for the access log, and its key.
func noteRoute(r *http.Request, v viewer) {
	httpserver.SetRoute(r.Context(), r.Pattern)
	httpserver.SetKeyID(r.Context(), v.key.ID)
}
