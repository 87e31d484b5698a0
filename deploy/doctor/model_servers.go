package doctor

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
	"github.com/promptmill/promptmill/worker/sim"
)

// modelTimeout is the timeout of a model server: Ollama loads the model for its first request.
const modelTimeout = 2 * time.Minute

// checkNamedServer checks a model server that a flag names, or each of its addresses.
func checkNamedServer(ctx context.Context, cfg modelservers.Config, url, model string) (list []Finding) {
	_, servers, err := cfg.Resolve(ctx, url)
	if err != nil {
		return []Finding{failedFinding("model server", err)}
	}

	for _, s := range servers {
		list = append(list, checkModelServer(ctx, s, model)...)
		s.Close()
	}

	return list
}

// checkLocalServers checks the model servers of this machine.
func checkLocalServers(ctx context.Context, key, model string, options []modelserver.Option) (list []Finding) {
	found, tried := modelserver.Find(ctx, key, options...)
	if len(found) == 0 {
		return []Finding{{
			Name:   "model server",
			Status: StatusWarn,
			Detail: "none found: tried " + strings.Join(tried, ", "),
			Fix:    "start one, or name it with --url; a box with only the bus needs none",
		}}
	}

	for _, s := range found {
		list = append(list, checkModelServer(ctx, s, model)...)
		s.Close()
	}

	return list
}

// checkModelServer checks the models of a model server and whether it has gauges, and sends it a
// request.
func checkModelServer(ctx context.Context, s *modelserver.Server, model string) []Finding {
	f := Finding{Name: "model server", Status: StatusOK, Detail: s.URL()}
	info, err := s.Probe(ctx)
	switch {
	case errors.Is(err, modelserver.ErrLoading):
		f.Status, f.Detail, f.Fix = StatusWarn, s.URL()+
			" loads its model", "wait until it is loaded; promptmill also waits"
		return []Finding{f}
	case errors.Is(err, modelserver.ErrUnreachable):
		f.Status, f.Detail, f.unreachable, f.Fix = StatusFail, err.Error(), true,
			"start it, or name the right one with --url"
		return []Finding{f}
	case err != nil:
		f.Status, f.Detail, f.Fix = StatusWarn, fmt.Sprintf("%v (it may serve nevertheless)",
			err), "name the right one with --url; if it wants a key, set PROMPTMILL_API_KEY"
	default:
		f.Detail += ", " + describeServer(info)
		notes := slices.Clone(info.Notes)
		if note := info.SlotsNote(); note != "" {
			notes = append(notes, note)
		}

		f.Fix = strings.Join(notes, "\n")
		if info.Models != nil && len(info.Models) == 0 {
			f.Status, f.Fix = StatusFail, "give it a model; with Ollama: ollama pull MODEL"
			return []Finding{f}
		}
	}

	list := []Finding{f}
	if g := checkGauges(ctx, s); g.Status != "" {
		list = append(list, g)
	}

	return append(list, probeModel(ctx, s, info, model))
}

// describeServer describes a model server.
func describeServer(info modelserver.Info) string {
	text := strings.TrimSpace(sim.NameKind(info.Flavour, info.Version) + " " + info.Version)
	if info.Models == nil {
		return text + ", does not list its models"
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

// checkGauges checks that a server reports its load, if others of its kind do, and that it is a
// single server.
func checkGauges(ctx context.Context, s *modelserver.Server) Finding {
	const readings = 6 // the readings of two servers behind a load balancer nearly always have both
	for range readings {
		load, err := s.Load(ctx)
		if load.ReplicaEvidence != "" {
			return Finding{
				Name:   "model load",
				Status: StatusWarn,
				Detail: fmt.Sprintf("%s leads to more than one server (%s), so concurrency is found more slowly",
					s.URL(), load.ReplicaEvidence),
				Fix: "give each server with --url",
			}
		}

		if err == nil {
			continue
		}

		_, fix, known := strings.Cut(err.Error(), modelserver.ErrNoGauges.Error()+": ")
		if !errors.Is(err, modelserver.ErrNoGauges) || !known {
			return Finding{} // nothing can be done
		}

		return Finding{
			Name:   "model load",
			Status: StatusWarn,
			Detail: s.URL() + " does not report its load, so concurrency is found more slowly",
			Fix:    fix,
		}
	}

	return Finding{}
}

// probe is a small request to an endpoint.
type probe struct{ path, body string }

// probes are tried in this order until the model answers one. %s is the model.
var probes = []probe{
	{"/v1/chat/completions", `{"model":%s,"messages":[{"role":"user","content":"Say yes."}],"max_tokens":4}`},
	{"/v1/completions", `{"model":%s,"prompt":"Say yes.","max_tokens":4}`},
	{"/v1/embeddings", `{"model":%s,"input":"yes"}`},
	{"/v1/rerank", `{"model":%s,"query":"yes","documents":["yes"]}`},
	{"/v1/score", `{"model":%s,"text_1":"yes","text_2":"yes"}`},
}

// probeModel sends a real request to each endpoint until the model answers one.
func probeModel(ctx context.Context, s *modelserver.Server, info modelserver.Info, model string) Finding {
	if model = cmp.Or(model, pickModel(info)); proto.IsPattern(model) {
		return Finding{
			Name:   "model request",
			Status: StatusWarn,
			Detail: fmt.Sprintf("%s lists %s, a pattern of many models; none was asked", s.URL(), model),
			Fix:    "name one with --model",
		}
	}

	quoted, _ := json.Marshal(model) // of a string, it never fails
	f := Finding{Name: "model request", Status: StatusFail}
	var refused string
	for _, t := range probes {
		begin := time.Now()
		request := fmt.Appendf(nil, t.body, quoted)
		a := s.Post(ctx, t.path, request)
		took := time.Since(begin)
		switch {
		case ctx.Err() != nil:
			f.Detail, f.Fix = fmt.Sprintf("%s of %s did not answer %s in time",
				model, s.URL(), t.path), "look at the server's log: it may be overloaded or stuck"
			return f
		case a.Err != nil:
			f.Detail, f.Fix = fmt.Sprintf("%s to %s: %v", t.path, s.URL(), a.Err), "look at the server's log"
			return f
		case a.Status == 200 && isAnswer(t.path, request, a.Body):
			f.Status, f.Detail = StatusOK, fmt.Sprintf("%s answered %s in %s", model, t.path, formatTime(took))
			return f
		case a.Status == 401 || a.Status == 403:
			f.Detail, f.Fix = fmt.Sprintf("%s refuses the key: status %d%s",
				s.URL(), a.Status, describeBody(a.Body)), "set PROMPTMILL_API_KEY"
			return f
		case a.Status >= 300 && a.Status < 400:
			f.Detail, f.Fix = fmt.Sprintf("%s redirects %s to %q: status %d",
				s.URL(), t.path, a.Header.Get("Location"), a.Status), "give that URL as --url"
			return f
		case a.Status == 429 || a.Status == 503 || a.Status == 529:
			f.Status, f.Detail, f.Fix = StatusWarn, fmt.Sprintf("%s is busy: status %d%s", s.URL(), a.Status,
				describeBody(a.Body)), "run promptmill doctor again when it has less to do"
			return f
		case refused == "":
			refused = fmt.Sprintf("%s of %s answers nothing that was tried; %s: status %d%s",
				model, s.URL(), t.path, a.Status, describeBody(a.Body))
		}
	}

	f.Detail, f.Fix = refused, "look at the server's log; --model names another model"

	return f
}

// isAnswer reports whether a worker would take the body as an answer to the request.
func isAnswer(endpoint string, request, body []byte) bool {
	content, err := openai.ReadAnswer(endpoint, request, body)
	return err == nil && content.Problem == ""
}

// pickModel returns the model to ask: one that is loaded, if the server reports that or its
// context, so that the server need not load another.
func pickModel(info modelserver.Info) string {
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

// describeBody returns the beginning of an error's body as a part of a sentence.
func describeBody(body []byte) string {
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
