package page

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/promptmill/promptmill/collector/content"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

const (
	// mostSearches is the most searches at once: each takes a core while it lasts.
	mostSearches = 2
	// searchWait is how long a search waits for its turn.
	searchWait = 5 * time.Second
	// reportEvery is the time between two results of a search that goes on.
	reportEvery = time.Second
	// mostFound is the most lines of a result, and mostLine the most bytes of one.
	mostFound = 5
	mostLine  = 256 << 10
	// mostCustomID is the most bytes of a custom_id that is looked for. The header of a request has 64 KiB at most,
	// in which a byte takes up to three.
	mostCustomID = 16 << 10
)

// searches has room for the searches that go on at once.
type searches struct {
	slots chan struct{}

	// mu guards the field below.
	mu   sync.Mutex
	busy map[string]chan struct{} // by viewer; closed when its search has ended
}

// newSearches returns room for searches.
func newSearches() *searches {
	return &searches{slots: make(chan struct{}, mostSearches), busy: map[string]chan struct{}{}}
}

// acquire waits for the turn of a viewer's search: one at a time, since a browser that starts another has ended the
// first. It reports whether the turn came.
func (s *searches) acquire(ctx context.Context, who string) (release func(), ok bool) {
	ctx, cancel := context.WithTimeout(ctx, searchWait)
	defer cancel()

	for {
		s.mu.Lock()
		before := s.busy[who]
		if before == nil {
			s.busy[who] = make(chan struct{})
		}
		s.mu.Unlock()

		if before == nil {
			break
		}

		select {
		case <-before:
		case <-ctx.Done():
			return nil, false
		}
	}

	select {
	case s.slots <- struct{}{}:
		return func() {
			<-s.slots
			s.leave(who)
		}, true
	case <-ctx.Done():
		s.leave(who)
		return nil, false
	}
}

// leave ends the turn of a viewer.
func (s *searches) leave(who string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.busy[who])
	delete(s.busy, who)
}

// serveSearch looks for a custom_id in the output of a run, and then in its input.
func (h *head) serveSearch(w http.ResponseWriter, r *http.Request, v viewer) *refusal {
	run, id := r.PathValue("run"), r.URL.Query().Get("custom_id")
	if refused := h.checkSight(v, run); refused != nil {
		return refused
	}
	if id == "" || len(id) > mostCustomID {
		return refuse(http.StatusBadRequest, "bad_request", "Give ?custom_id=TEXT, of 1 to %d bytes.", mostCustomID)
	}

	m, err := h.runs.Get(r.Context(), run)
	if err != nil {
		return refuseChange(run, err)
	}

	out, refused := h.findOutput(m)
	if refused != nil {
		return refused
	}

	who := v.key.ID
	if who == "" {
		who, _, _ = net.SplitHostPort(r.RemoteAddr)
	}

	release, ok := h.searches.acquire(r.Context(), who)
	if !ok {
		return refuse(http.StatusTooManyRequests, "too_many", "Other searches go on. Try again when they have ended.")
	}
	defer release()

	ctx, stop := context.WithCancel(r.Context())
	defer stop()
	defer context.AfterFunc(h.serving, stop)()

	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("X-Accel-Buffering", "no")
	s := &search{
		manifest: m,
		out:      out,
		result:   FindResult{CustomID: id},
		w:        w,
		control:  http.NewResponseController(w),
		reported: time.Now(),
	}
	s.run(ctx)

	return nil
}

// findOutput returns the output of a run on this machine.
func (h *head) findOutput(m proto.Manifest) (output.Prefix, *refusal) {
	host, out, ok := splitOutput(m.Output)
	switch {
	case !ok:
		return "", refuse(http.StatusConflict, "no_files", "No process has collected the run yet, so it has no answers.")
	case host != h.host:
		return "", refuse(http.StatusConflict, "no_files", "The output of the run is on %s, in %s.", host, out.Results())
	}

	if of, err := journal.ReadManifest(out.Journal()); err == nil {
		ok = of.Run == m.Run
	} else if of, err := metadata.Read(out.Meta()); err == nil {
		ok = of.TestID == m.Run
	} else {
		ok = false
	}
	if !ok {
		return "", refuse(http.StatusConflict, "no_files", "The output of the run is not in %s any more.", out.Results())
	}

	return out, nil
}

// search looks for a custom_id.
type search struct {
	manifest proto.Manifest
	out      output.Prefix
	result   FindResult
	w        io.Writer
	control  *http.ResponseController

	failed    bool // the lines that are read are of failed requests
	isExample bool // the custom_id is a shortened one, of a failure
	scan      jsonscan.Scanner
	rest      []byte // the beginning of a line
	reported  time.Time
}

// errFound ends a search.
var errFound = errors.New("found")

// run searches, and writes results until the last one.
func (s *search) run(ctx context.Context) {
	err := s.searchOutput(ctx)
	if err == nil && len(s.result.Lines) == 0 {
		err = s.searchInput(ctx)
	}

	s.result.Done = true
	s.conclude(err)
	s.report()
}

// searchOutput looks among the failed requests first: they are fewer, and a custom_id that is not unique is there.
func (s *search) searchOutput(ctx context.Context) error {
	var contents []*content.Content
	for _, kind := range []content.Kind{content.Failures, content.Answers} {
		c, err := content.Open(content.Config{Output: s.out, Kind: kind, Done: s.manifest.Counts.Done})
		if err != nil {
			return err
		}
		defer c.Close()

		contents = append(contents, c)
		s.result.TotalBytes += c.Size()
	}

	for i, c := range contents {
		s.failed, s.rest = i == 0, s.rest[:0]
		err := c.CopyRange(ctx, s, 0, c.Size())
		if err != nil && !errors.Is(err, errFound) {
			return err
		}

		if err != nil && s.isExample {
			return nil // other requests may have the same beginning
		}
	}

	return nil
}

// Write implements io.Writer: it gets the text of the lines.
func (s *search) Write(p []byte) (int, error) {
	n := len(p)
	s.result.LookedBytes += int64(n)

	for {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			s.rest = append(s.rest, p...)
			break
		}

		line := p[:end]
		if len(s.rest) > 0 {
			s.rest = append(s.rest, line...)
			line = s.rest
		}

		if s.isWanted(line) {
			s.add(line)
			if !s.failed || s.isExample || len(s.result.Lines) >= mostFound {
				return n, errFound
			}
		}
		p, s.rest = p[end+1:], s.rest[:0]
	}

	if time.Since(s.reported) >= reportEvery {
		return n, s.report()
	}

	return n, nil
}

// isWanted reports whether a line has the custom_id: the whole one, or as the examples of failures have it.
func (s *search) isWanted(line []byte) bool {
	s.scan.Reset(line)
	for s.scan.Enter(); s.scan.Next(); {
		if string(s.scan.Name()) == "custom_id" {
			id, err := jsonscan.Unquote(s.scan.Value())
			return err == nil && s.isWantedID(string(id))
		}
	}

	return false
}

// isWantedID reports whether a custom_id is the one that is looked for.
func (s *search) isWantedID(id string) bool {
	if id == s.result.CustomID {
		return true
	}

	s.isExample = journal.ShortenID(id) == s.result.CustomID

	return s.isExample
}

// add adds a line to the result.
func (s *search) add(line []byte) {
	l := FoundLine{Failed: s.failed, Bytes: int64(len(line))}
	if len(line) <= mostLine && json.Valid(line) {
		l.Line = bytes.Clone(line)
	} else {
		l.Text = strings.ToValidUTF8(string(line[:min(len(line), mostLine)]), "")
	}
	s.result.Lines = append(s.result.Lines, l)
}

// report writes the result so far.
func (s *search) report() error {
	s.reported = time.Now()
	text, err := json.Marshal(s.result)
	if err != nil {
		return err
	}

	if _, err := s.w.Write(append(text, '\n')); err != nil {
		return err
	}

	return s.control.Flush()
}

// searchInput looks whether the input of a run that has not ended has the custom_id. State is empty if that is not
// known: the input is elsewhere, a table, or only a part of it is run.
func (s *search) searchInput(ctx context.Context) error {
	m := s.manifest
	if m.State == proto.StateCompleted {
		s.result.State = FindUnknown // each request has a line
		return nil
	}

	set := m.Settings
	if set.Rows != nil || set.Limit > 0 || set.Sample > 0 || len(m.Input.Files) == 0 {
		return nil
	}

	for _, f := range m.Input.Files {
		info, err := os.Stat(f.Path)
		if err != nil || !info.Mode().IsRegular() || info.Size() != f.Bytes {
			return nil //nolint:nilerr // it is on another machine, or was changed
		}
	}

	in := &inputSearch{search: s}
	for _, f := range m.Input.Files {
		if err := in.read(ctx, f.Path); err != nil || in.found {
			return err
		}
	}

	if in.hasIDs {
		s.result.State = FindUnknown
	}

	return nil
}

// inputSearch looks through the lines of input files.
type inputSearch struct {
	*search

	rest   []byte
	found  bool
	hasIDs bool // the lines have ids of their own
}

// read looks through a file.
func (in *inputSearch) read(ctx context.Context, path string) error {
	file, err := jsonl.Open(path)
	if err != nil {
		return nil // what the input has is not known then
	}
	defer file.Close()
	defer context.AfterFunc(ctx, func() { file.Close() })()

	_, err = io.Copy(in, file)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil && len(in.rest) > 0: // a last line without an end
		_, err = in.Write([]byte("\n"))
	}
	if errors.Is(err, errFound) {
		return nil
	}

	return err
}

// Write implements io.Writer: it gets the text of the input.
func (in *inputSearch) Write(p []byte) (int, error) {
	n := len(p)
	for {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			in.rest = append(in.rest, p...)
			return n, nil
		}

		line := append(in.rest, p[:end]...) //nolint:gocritic // rest is replaced below
		in.hasIDs = in.hasIDs || bytes.Contains(line, []byte(`"custom_id"`))
		if in.isWanted(line) {
			in.found, in.result.State = true, FindOpen
			return n, errFound
		}
		p, in.rest = p[end+1:], line[:0]
	}
}

// conclude says what the search has found. err is the reason why it has ended early.
func (s *search) conclude(err error) {
	r, m := &s.result, s.manifest

	switch {
	case len(r.Lines) > 0 && r.Lines[len(r.Lines)-1].Failed:
		r.State, r.Text = FindFailed, "The request failed."
	case len(r.Lines) > 0:
		r.State, r.Text = FindAnswered, "The request was answered."
	case err != nil:
		r.State, r.Text = FindNone, "The search ended early."
	case r.State == FindOpen && m.State.Ended():
		r.Text = "The request was not run before the run ended."
	case r.State == FindOpen:
		r.Text = "The request has no answer yet."
	case r.State == FindUnknown:
		r.Text = "The run has no request with this custom_id."
	default:
		r.State = FindNone
		r.Text = fmt.Sprintf("No line has this custom_id so far: %s of %s requests have one.",
			proto.FormatCount(m.Counts.Done), proto.FormatCount(m.Input.Requests))
	}

	if err != nil && len(r.Lines) == 0 {
		r.Problem = capitalize(err.Error()) + "."
	}
}
