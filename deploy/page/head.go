package page

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/apikey"
	"github.com/promptmill/promptmill/deploy/control"
	"github.com/promptmill/promptmill/deploy/httpserver"
	"github.com/promptmill/promptmill/deploy/program"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// head answers the requests for the page of one bus.
type head struct {
	access *access
	assets map[string]*asset
	hub    *hub
	runs   *bus.RunStore
	// owner returns the id of the key that has made a run; empty: none has.
	owner func(run string) string
	// retries reports that an ended run can be retried.
	retries bool
	// searches has room for the searches that go on at once.
	searches *searches
	// host is the name of this machine.
	host    string
	version string
	log     zerolog.Logger
	// serving ends when the head stops.
	serving context.Context
}

// routes returns the handler of all requests.
func (h *head) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /page/api/session", h.serveSession)
	mux.HandleFunc("POST /page/login", h.signIn)
	mux.HandleFunc("POST /page/logout", h.signOut)

	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request, viewer) *refusal{
		"GET /page/api/overview":             h.serveOverview,
		"GET /page/api/runs/{run}":           h.serveDetail,
		"GET /page/api/runs/{run}/find":      h.serveSearch,
		"POST /page/api/runs/{run}/{action}": h.changeRun,
		"GET /page/events":                   h.serveEvents,
	} {
		mux.HandleFunc(pattern, h.forViewers(serve))
	}

	return h.addFiles(mux)
}

// addFiles adds the files of the page to a handler, and the headers to all answers.
func (h *head) addFiles(mux *http.ServeMux) http.Handler {
	mux.HandleFunc("GET /{$}", h.serveFile("index.html"))
	mux.HandleFunc("GET /assets/{name}", func(w http.ResponseWriter, r *http.Request) {
		h.serveFile(r.PathValue("name"))(w, r)
	})

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setHeaders(w.Header())
		mux.ServeHTTP(w, r)
	})
}

// setHeaders sets the headers of all answers. The page has nothing from elsewhere, and stands in no other page.
func setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
		"img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store") // a file of the page replaces it
}

// serveFile answers with a file of the page.
func (h *head) serveFile(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		httpserver.SetRoute(r.Context(), r.Pattern)

		file := h.assets[name]
		if file == nil {
			refuse(http.StatusNotFound, "not_found", "There is no file %s.", name).write(w)
			return
		}

		file.serve(w, r)
	}
}

// forViewers lets requests through whose key, if one is needed, is known.
func (h *head) forViewers(serve func(http.ResponseWriter, *http.Request, viewer) *refusal) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, refused := h.access.identify(r)
		noteRoute(r, v)

		if refused == nil {
			refused = serve(w, r, v)
		}
		if refused != nil {
			refused.write(w)
		}
	}
}

// serveSession answers who looks at the page.
func (h *head) serveSession(w http.ResponseWriter, r *http.Request) {
	v, refused := h.access.identify(r)
	noteRoute(r, v)

	if refused != nil && refused.status != http.StatusUnauthorized {
		refused.write(w)
		return
	}

	writeJSON(w, http.StatusOK, v.describe(refused == nil, h.version))
}

// maxLogin is the most bytes of a request to sign in.
const maxLogin = 4 << 10

// signIn sets the cookie of a session.
func (h *head) signIn(w http.ResponseWriter, r *http.Request) {
	httpserver.SetRoute(r.Context(), r.Pattern)

	required, err := h.access.keys.Required()
	switch {
	case err != nil:
		h.access.refuseUnreadable(err).write(w)
		return
	case httpserver.IsCrossSite(r), !required && httpserver.IsForeign(r):
		refuseForeign(required).write(w)
		return
	}

	secret, isForm, err := readLogin(w, r)
	if err != nil {
		refuse(http.StatusBadRequest, "bad_request", `Send {"key":"pm-..."} as application/json, or the field key of a form.`).
			write(w)
		return
	}

	v, refused := viewer{}, (*refusal)(nil)
	if required {
		v, refused = h.access.authenticate(secret)
	}
	if refused != nil {
		h.log.Info().Str("remote", r.RemoteAddr).Msg("refused an API key at the login of the page")
		refused.write(w)
		return
	}

	noteRoute(r, v)
	if required {
		http.SetCookie(w, h.access.newSession(v.key, r, time.Now()))
	}

	if isForm {
		http.Redirect(w, r, "../", http.StatusSeeOther)
		return
	}

	writeJSON(w, http.StatusOK, v.describe(true, h.version))
}

// readLogin reads the key of a request to sign in.
func readLogin(w http.ResponseWriter, r *http.Request) (secret string, isForm bool, err error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxLogin)

	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch kind {
	case "application/x-www-form-urlencoded":
		if err := r.ParseForm(); err != nil {
			return "", true, err
		}
		return r.PostForm.Get("key"), true, nil
	case "application/json":
		var body Login
		err := json.NewDecoder(r.Body).Decode(&body)

		return body.Key, false, err
	}

	return "", false, fmt.Errorf("a body of type %q", kind)
}

// signOut removes the cookie of a session.
func (h *head) signOut(w http.ResponseWriter, r *http.Request) {
	httpserver.SetRoute(r.Context(), r.Pattern)

	if httpserver.IsCrossSite(r) {
		refuseForeign(true).write(w)
		return
	}

	http.SetCookie(w, h.access.emptyCookie(r))
	io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxLogin))
	writeJSON(w, http.StatusOK, struct{}{})
}

// checkSight refuses a run that the viewer does not see. An empty run is none.
func (h *head) checkSight(v viewer, run string) *refusal {
	switch {
	case run == "":
		return nil
	case proto.CheckRunID(run) != nil, v.key.OwnOnly && h.owner(run) != v.key.ID:
		return refuseUnknown(run)
	}

	return nil
}

// answerTime is the longest time for which a request waits for the bus.
const answerTime = 10 * time.Second

// awaitFrame returns a frame with what a viewer wants to see.
func (h *head) awaitFrame(ctx context.Context, v viewer, run string) (*frame, *refusal) {
	leave := h.hub.join(v.owner(), run)
	defer leave()

	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	f, err := h.hub.await(ctx, v.owner(), run)
	if err != nil {
		return nil, refuse(http.StatusServiceUnavailable, "unavailable", "The bus does not answer.")
	}

	return f, nil
}

// serveOverview answers with all that is on the bus.
func (h *head) serveOverview(w http.ResponseWriter, r *http.Request, v viewer) *refusal {
	f, refused := h.awaitFrame(r.Context(), v, "")
	if refused != nil {
		return refused
	}

	writeData(w, f.overviews[v.owner()])

	return nil
}

// serveDetail answers with all that is known of a run.
func (h *head) serveDetail(w http.ResponseWriter, r *http.Request, v viewer) *refusal {
	run := r.PathValue("run")
	if refused := h.checkSight(v, run); refused != nil {
		return refused
	}

	f, refused := h.awaitFrame(r.Context(), v, run)
	switch {
	case refused != nil:
		return refused
	case f.details[run] == nil:
		return refuseUnknown(run)
	}

	writeData(w, f.details[run])

	return nil
}

// writeData writes the JSON of a message.
func writeData(w http.ResponseWriter, m *message) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(m.data[:len(m.data):len(m.data)], '\n'))
}

// goneEvent returns the event of a run that is not on the bus.
func goneEvent(run string) []byte {
	data, _ := json.Marshal(refuseUnknown(run).Error) // of two texts
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", EventGone, data)
}

// changeRun pauses, resumes, cancels or retries a run.
func (h *head) changeRun(w http.ResponseWriter, r *http.Request, v viewer) *refusal {
	run, name := r.PathValue("run"), r.PathValue("action")

	action, known := control.Find(name)
	switch {
	case !known:
		return refuse(http.StatusNotFound, "bad_request", "There is no action %q: there are pause, resume, cancel and retry.",
			name)
	case v.key.ReadOnly:
		return refuse(http.StatusForbidden, "not_allowed",
			"The API key %s looks at runs and changes none: use a key that was made without --read-only.", nameOf(v.key))
	case name == "retry" && !h.retries:
		return refuse(http.StatusConflict, "wrong_state",
			"This head ends with its run. The same promptmill run command with --retry runs its failed requests again.")
	}

	if refused := h.checkSight(v, run); refused != nil {
		return refused
	}

	before, err := h.runs.Get(r.Context(), run)
	if err != nil {
		return refuseChange(run, err)
	}

	after, err := action.Change(r.Context(), h.runs, before, proto.RunPolicy{})
	if err != nil {
		return refuseChange(run, err)
	}

	h.log.Info().Str("run", run).Str("action", name).Str("key", v.key.ID).Msg("changed a run from the page")
	text := program.TypedCommands(action.Describe(before, after, proto.RunPolicy{}))
	writeJSON(w, http.StatusOK, Changed{
		Run:   run,
		State: after.State,
		Text:  capitalize(text) + ".",
	})

	return nil
}

// nameOf returns the name of a key, or its id if it has none.
func nameOf(k apikey.Key) string {
	if k.Name != "" {
		return k.Name
	}
	return k.ID
}
