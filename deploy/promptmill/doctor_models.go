package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/openai"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// modelLimit is for a server that loads the model for its first request, as Ollama does.
const modelLimit = 2 * time.Minute

// lookAtNamedServer looks at a model server that a flag names, or at each of its addresses.
func lookAtNamedServer(ctx context.Context, cfg modelservers.Config, url, model string) (list []finding) {
	_, servers, err := cfg.Resolve(ctx, url)
	if err != nil {
		return []finding{failed("model server", err)}
	}

	for _, s := range servers {
		list = append(list, lookAtServer(ctx, s, model)...)
		s.Close()
	}

	return list
}

// lookForServers looks at the model servers of this machine.
func lookForServers(ctx context.Context, key, model string, options []modelserver.Option) (list []finding) {
	found, tried := modelserver.Find(ctx, key, options...)
	if len(found) == 0 {
		return []finding{{
			Name:   "model server",
			Status: doubtful,
			Detail: "none found: tried " + strings.Join(tried, ", "),
			Mend:   "start one, or name it with --url; a box that only has the bus needs none",
		}}
	}

	for _, s := range found {
		list = append(list, lookAtServer(ctx, s, model)...)
		s.Close()
	}

	return list
}

// lookAtServer looks at what a model server is and serves, at its gauges, and asks it
// something.
func lookAtServer(ctx context.Context, s *modelserver.Server, model string) []finding {
	f := finding{Name: "model server", Status: fine, Detail: s.URL()}
	info, err := s.Probe(ctx)
	switch {
	case errors.Is(err, modelserver.ErrLoading):
		f.Status, f.Detail, f.Mend = doubtful, s.URL()+" loads its model", "wait until it has; promptmill waits, too"
		return []finding{f}
	case errors.Is(err, modelserver.ErrUnreachable):
		f.Status, f.Detail, f.unreachable, f.Mend = broken, err.Error(), true,
			"start it, or name the right one with --url"
		return []finding{f}
	case err != nil:
		f.Status, f.Detail, f.Mend = doubtful, fmt.Sprintf("%v; it may serve nevertheless",
			err), "if it wants a key, set PROMPTMILL_API_KEY"
	default:
		f.Detail += ", " + inWords(info)
		notes := slices.Clone(info.Notes)
		if note := info.SlotsNote(); note != "" {
			notes = append(notes, note)
		}

		f.Mend = strings.Join(notes, "\n")
		if info.Models != nil && len(info.Models) == 0 {
			f.Status, f.Mend = broken, "give it a model; with Ollama: ollama pull MODEL"
			return []finding{f}
		}
	}

	list := []finding{f}
	if g := gauges(ctx, s); g.Status != "" {
		list = append(list, g)
	}

	return append(list, tryModel(ctx, s, info, model))
}

// inWords is a model server in words.
func inWords(info modelserver.Info) string {
	text := strings.TrimSpace(info.Flavour + " " + info.Version)
	if info.Models == nil {
		return text + ", does not say which models it has"
	}

	var names []string
	for _, m := range info.Models {
		name := m.ID
		if m.ContextLength > 0 {
			name += fmt.Sprintf(" (context %d)", m.ContextLength)
		}
		names = append(names, name)
	}

	return text + ", models " + terminal.JoinFew(names, 5)
}

// gauges: does the server tell its load, if others of its kind do? And is it one server?
func gauges(ctx context.Context, s *modelserver.Server) finding {
	const readings = 6 // of two servers behind a load balancer, nearly always both are among them
	for range readings {
		load, err := s.Load(ctx)
		if load.ReplicaEvidence != "" {
			return finding{
				Name:   "model load",
				Status: doubtful,
				Detail: fmt.Sprintf("%s leads to more than one server (%s), so concurrency is found more slowly",
					s.URL(), load.ReplicaEvidence),
				Mend: "give each server with --url",
			}
		}

		if err == nil {
			continue
		}

		_, mend, told := strings.Cut(err.Error(), modelserver.ErrNoGauges.Error()+": ")
		if !errors.Is(err, modelserver.ErrNoGauges) || !told {
			return finding{} // nothing can be done
		}

		return finding{
			Name:   "model load",
			Status: doubtful,
			Detail: s.URL() + " does not tell its load, so concurrency is found more slowly",
			Mend:   mend,
		}
	}

	return finding{}
}

// trial is a small request to one endpoint.
type trial struct{ path, body string }

// trials are the requests of which a model should answer one, in this order. %s is the
// model.
var trials = []trial{
	{"/v1/chat/completions", `{"model":%s,"messages":[{"role":"user","content":"Say yes."}],"max_tokens":4}`},
	{"/v1/completions", `{"model":%s,"prompt":"Say yes.","max_tokens":4}`},
	{"/v1/embeddings", `{"model":%s,"input":"yes"}`},
	{"/v1/rerank", `{"model":%s,"query":"yes","documents":["yes"]}`},
	{"/v1/score", `{"model":%s,"text_1":"yes","text_2":"yes"}`},
}

// tryModel sends one real request, to the first endpoint that the model answers.
func tryModel(ctx context.Context, s *modelserver.Server, info modelserver.Info, model string) finding {
	if model = cmp.Or(model, usualModel(info)); proto.IsPattern(model) {
		return finding{
			Name:   "model request",
			Status: doubtful,
			Detail: fmt.Sprintf("%s lists %s, which stands for many models; none was asked", s.URL(), model),
			Mend:   "name one with --model",
		}
	}

	quoted, _ := json.Marshal(model) // of a string, it never fails
	f := finding{Name: "model request", Status: broken}
	var refused string
	for _, t := range trials {
		begin := time.Now()
		request := fmt.Appendf(nil, t.body, quoted)
		a := s.Post(ctx, t.path, request)
		took := time.Since(begin)
		switch {
		case ctx.Err() != nil:
			f.Detail, f.Mend = fmt.Sprintf("%s of %s did not answer %s in time",
				model, s.URL(), t.path), "look at the server's log: it may be overloaded, or hang"
			return f
		case a.Err != nil:
			f.Detail, f.Mend = fmt.Sprintf("%s to %s: %v", t.path, s.URL(), a.Err), "look at the server's log"
			return f
		case a.Status == 200 && isAnswer(t.path, request, a.Body):
			f.Status, f.Detail = fine, fmt.Sprintf("%s answered %s in %s", model, t.path, brief(took))
			return f
		case a.Status == 401 || a.Status == 403:
			f.Detail, f.Mend = fmt.Sprintf("%s refuses the key: status %d%s",
				s.URL(), a.Status, saying(a.Body)), "set PROMPTMILL_API_KEY"
			return f
		case a.Status >= 300 && a.Status < 400:
			f.Detail, f.Mend = fmt.Sprintf("%s redirects %s to %q: status %d",
				s.URL(), t.path, a.Header.Get("Location"), a.Status), "give that URL as --url"
			return f
		case a.Status == 429 || a.Status == 503 || a.Status == 529:
			f.Status, f.Detail, f.Mend = doubtful, fmt.Sprintf("%s is busy: status %d%s", s.URL(), a.Status,
				saying(a.Body)), "run promptmill doctor again when it has less to do"
			return f
		case refused == "":
			refused = fmt.Sprintf("%s of %s answers nothing that was tried; %s: status %d%s",
				model, s.URL(), t.path, a.Status, saying(a.Body))
		}
	}

	f.Detail, f.Mend = refused, "look at the server's log; --model names another model"

	return f
}

// isAnswer reports whether a worker would take the body as an answer to the request.
func isAnswer(endpoint string, request, body []byte) bool {
	content, err := openai.ReadAnswer(endpoint, request, body)
	return err == nil && content.Problem == ""
}

// usualModel is the model to ask for: one that is loaded, if the server tells that, or tells
// its context, so that no other has to be.
func usualModel(info modelserver.Info) string {
	if len(info.Loaded) > 0 {
		return info.Loaded[0]
	}

	if len(info.Models) == 0 {
		return "default" // a server without a list takes any name
	}

	loaded := slices.IndexFunc(info.Models, func(m modelserver.Model) bool { return m.ContextLength > 0 })
	if loaded < 0 {
		loaded = slices.IndexFunc(info.Models, func(m modelserver.Model) bool { return !proto.IsPattern(m.ID) })
	}

	return info.Models[max(0, loaded)].ID
}

// saying is what an answer that is an error says, as a part of a sentence.
func saying(body []byte) string {
	const most = 200
	text := strings.Join(strings.Fields(string(body)), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}

	if text == "" {
		return ""
	}

	return ", " + text
}
