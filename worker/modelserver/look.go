package modelserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// probeTimeout bounds all questions of one look, and listTimeout the one for the models.
const (
	probeTimeout = 10 * time.Second
	listTimeout  = 5 * time.Second
)

// Info is what a server says that it is and serves. What it does not say is zero.
type Info struct {
	Flavour     string   // "vLLM", "SGLang", "llama.cpp", "Ollama" and so on, or "OpenAI-compatible"
	Version     string   // of the server
	Models      []Model  // nil: it does not tell, and any may be tried. Empty: it has none.
	Slots       int      // requests that it runs at once; more of them wait
	LoadSeconds float64  // it took to load the model
	WeightBytes int64    // GPU memory of the weights: of one GPU, where each replica has several
	CacheBytes  int64    // GPU memory of the KV cache, likewise
	GPUBytes    int64    // GPU memory of the loaded models in all, where only that is told
	Notes       []string // what its user should know; always the same texts, to be said once

	// MaxLoaded is how many of its models the server can have loaded at once, as far as it is known,
	// if that may be fewer than it lists: for another one it unloads one. 0: it has all of them.
	MaxLoaded int
	Loaded    []string // IDs of the models that it has loaded, if it says so
	Loading   bool     // it loads another one now

	// GPUMemoryUtilization is the part of each GPU's memory that vLLM was started to take.
	GPUMemoryUtilization float64
}

// Model is one that can be asked for.
type Model struct {
	ID            string
	ContextLength int   // tokens that a request and its answer may have, 0 unknown
	SizeBytes     int64 // of the weights, 0 unknown
	// AliasOf is the ID of the model that this is another name of; empty: of none.
	AliasOf string
}

// DefaultModel is the model for requests that name none: the only one that the server has,
// under the first of its names, or "" if there is none, several, or names that stand for
// many.
func (i Info) DefaultModel() string {
	only := ""
	for _, m := range i.Models {
		switch {
		case m.AliasOf != "":
		case only != "" || proto.IsPattern(m.ID):
			return ""
		default:
			only = m.ID
		}
	}

	return only
}

// ModelNames are the models that the server lists; nil if any may be tried.
func (i Info) ModelNames() []string {
	if len(i.Models) == 0 && (i.Models == nil || i.Flavour != (&ollama{}).name()) {
		return nil
	}

	names := []string{}
	for _, m := range i.Models {
		names = append(names, m.ID)
	}

	return names
}

// MergeInfos is what some servers have together: each model once. Where they are several, it is
// of the first one's flavour and has no figures.
func MergeInfos(list []Info) Info {
	if len(list) == 1 {
		return list[0]
	}

	sum := Info{Flavour: list[0].Flavour, Models: []Model{}}
	for _, info := range list {
		if info.ModelNames() == nil { // it may have any
			return Info{Flavour: list[0].Flavour}
		}

		for _, m := range info.Models {
			if !slices.ContainsFunc(sum.Models, func(has Model) bool { return has.ID == m.ID }) {
				sum.Models = append(sum.Models, m)
			}
		}
	}

	return sum
}

// flavour is a kind of model server.
type flavour interface {
	name() string
	// describe adds what this kind of server tells beyond its list of models. Only
	// that it is not ready is an error; what it fails to tell stays unknown.
	describe(ctx context.Context, s *Server, info *Info) error
	// readLoad reads the gauges with one question.
	readLoad(ctx context.Context, s *Server) (Load, error)
}

// flavourSpec is how the servers of a flavour are recognised.
type flavourSpec struct {
	newFlavour   func() flavour
	owner        string      // of the models in its list; empty: it says nothing
	serverHeader string      // "Server", of its answers; empty: likewise
	gauges       *gaugeNames // that nothing else has; nil: it has none
	metricsPath  string      // where these are
	// countsAtEnd says that the counter of tokens moves only when a request ends.
	countsAtEnd bool
	// probe asks what only this flavour answers so; nil: there is nothing.
	probe func(ctx context.Context, s *Server) (bool, error)
}

// flavours are the flavours, in the order in which a server is compared with them. Ollama comes
// first, for the others may be namespaces in its registry.
var flavours = []flavourSpec{
	ollamaSpec,
	vllmSpec,
	sglangSpec,
	sglangGatewaySpec,
	llamaSpec,
	tensorRTSpec,
	dynamoSpec,
	lmDeploySpec,
	tgiSpec,
	llamaSwapSpec,
	koboldSpec,
	lmStudioSpec,
}

// recognized is what a server was recognised as, and by which sign.
type recognized struct {
	sign    string // of the list of models; empty: look again
	flavour flavour

	countsAtEnd bool
}

// recognizedBy is a server of the kind that was recognised by a sign.
func (k flavourSpec) recognizedBy(sign string) *recognized {
	return &recognized{sign: sign, flavour: k.newFlavour(), countsAtEnd: k.countsAtEnd}
}

// Probe asks the server what it is and what it serves. The flavour is remembered for
// [Server.Load]; a server that becomes another one is recognised again.
//
// The error wraps [ErrUnreachable] when the server is not there or not ready, and
// [ErrLoading] when it says that it loads. Any other error means that it answers but
// does not tell what it serves; it may serve nevertheless.
func (s *Server) Probe(ctx context.Context) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()

	if err := s.checkSilence(ctx); err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}

	list, sign, err := s.listModels(ctx)
	if mayServeAnyway(err) && s.respondsToPost(ctx) {
		err = errors.New(strings.Replace(err.Error(), ErrUnreachable.Error()+": ", "", 1) + "; but it answers requests")
	}

	before := s.recognized.Load()
	switch {
	case errors.Is(err, ErrUnreachable):
		s.replicas.forgetProcess()
		if before != nil {
			again := *before
			again.sign = "" // another may come in its place
			s.recognized.Store(&again)
		}

		info := Info{}
		if errors.Is(err, ErrLoading) {
			info.Flavour = (&llamaCPP{}).name()
		}

		return info, err
	case err != nil:
		if before == nil {
			before = &recognized{flavour: openAI{}}
			s.recognized.Store(before)
		}
		return Info{Flavour: before.flavour.name()}, err
	case before == nil || before.sign != sign:
		before = s.recognizeFlavour(ctx, list, sign)
		s.recognized.Store(before)
	}

	info := Info{Flavour: before.flavour.name(), Models: list.toModels()}
	info.Loaded, info.Loading = list.loadedModels()
	err = before.flavour.describe(ctx, s, &info)

	if s.Replicated() {
		info.clearFigures()
	}

	return info, err
}

// clearFigures drops what is true of one server only, where several answer.
func (i *Info) clearFigures() {
	i.Slots, i.LoadSeconds = 0, 0
	i.WeightBytes, i.CacheBytes, i.GPUBytes, i.GPUMemoryUtilization = 0, 0, 0, 0
}

// Flavour is what the server was recognised as, "" before it was looked at.
func (s *Server) Flavour() string {
	if k := s.recognized.Load(); k != nil {
		return k.flavour.name()
	}
	return ""
}

// modelList is an answer of /v1/models, with what the flavours add to it.
type modelList struct {
	Data  json.RawMessage // null with an Ollama that has no models
	cards []modelCard
}

type modelCard struct {
	ID          string
	Root        string   // vLLM: what was loaded, under each of its names
	Aliases     []string // llama.cpp
	OwnedBy     string   `json:"owned_by"`
	MaxModelLen int      `json:"max_model_len"` // vLLM and SGLang; null for an adapter
	Meta        struct { // llama.cpp; null for one that is not loaded
		NCtx int   `json:"n_ctx"`
		Size int64 `json:"size"`
	}
	Status json.RawMessage // llama.cpp's router and llama-swap: an object with a value
}

// loadedModels are the models that are loaded, as far as the list says so, and whether another one
// is being loaded.
func (l modelList) loadedModels() (loaded []string, loading bool) {
	for _, c := range l.cards {
		var status struct{ Value string }
		if json.Unmarshal(c.Status, &status) != nil {
			continue
		}

		switch status.Value {
		case "loaded", "sleeping": // one that sleeps wakes with its next request
			loaded = append(loaded, c.ID)
		case "loading", "downloading", "downloaded":
			loading = true
		}
	}

	return loaded, loading
}

// checkSilence finds out once whether the server speaks before it is asked: nothing that it
// answers can be told from that.
func (s *Server) checkSilence(ctx context.Context) error {
	w := s.currentBase().wire
	if w == nil || w.greeted.Load() {
		return nil
	}

	c, err := w.connect(ctx, true)
	if errors.Is(err, errSpokeFirst) {
		return err
	}
	if err == nil {
		c.Close()
	}

	return nil // what else there is, the questions find
}

// mayServeAnyway reports whether a server that fails to list its models may work apart from that:
// the list fails, or does not come, though there is a connection.
func mayServeAnyway(err error) bool {
	opErr, ok := errors.AsType[*net.OpError](err)
	return errors.Is(err, errInternal) || errors.Is(err, context.DeadlineExceeded) && !(ok && opErr.Op == "dial")
}

// respondsToPost reports whether the server says something to a request that has nothing in it,
// be it that this is none.
func (s *Server) respondsToPost(ctx context.Context) bool {
	a := s.Post(ctx, "/v1/chat/completions", []byte("{}"))
	return a.Err == nil && a.Status < 500
}

// listModels asks for the models. sign tells servers apart by the look of their answer.
func (s *Server) listModels(ctx context.Context) (list modelList, sign string, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()

	a, err := s.getPath(ctx, "/v1/models")
	if err != nil {
		return list, "", fmt.Errorf("list models of %s: %w", s.URL(), err)
	}

	if a.Status == http.StatusUnauthorized || a.Status == http.StatusForbidden {
		return list, "", fmt.Errorf("list models of %s: status %s: %w", s.URL(), statusText(a.Status), ErrKeyRequired)
	}

	if a.Status != http.StatusOK {
		return list, "", fmt.Errorf("list models of %s: status %s", s.URL(), statusText(a.Status))
	}

	if list, err = parseModelList(a.Body); err != nil {
		return list, "", fmt.Errorf("list models of %s: the answer is no such list: %w", s.URL(), err)
	}

	owners := make([]string, len(list.cards))
	for i, c := range list.cards {
		owners[i] = c.OwnedBy
	}

	return list, a.Header.Get("Server") + "|" + strings.Join(slices.Compact(owners), ","), nil
}

func parseModelList(body []byte) (list modelList, err error) {
	if err = json.Unmarshal(body, &list); err != nil {
		return list, err
	}

	if err = json.Unmarshal(list.Data, &list.cards); err != nil { // also when there is no such member
		return list, err
	}

	// What has no id cannot be asked for, and what is listed twice is one model.
	listed, seen := len(list.cards), map[string]bool{}
	list.cards = slices.DeleteFunc(list.cards, func(c modelCard) bool {
		again := seen[c.ID]
		seen[c.ID] = true
		return c.ID == "" || again
	})
	if listed > 0 && len(list.cards) == 0 {
		return list, errors.New("a model without an id")
	}

	return list, nil
}

// toModels are those listed, each name once, nil for an empty list: a server that names none
// may take any name.
func (l modelList) toModels() []Model {
	var models []Model
	add := func(m Model) {
		if m.ID != "" && !slices.ContainsFunc(models, func(has Model) bool { return has.ID == m.ID }) {
			models = append(models, m)
		}
	}
	for i, c := range l.cards {
		m := Model{
			ID:            c.ID,
			AliasOf:       l.aliasOf(i),
			ContextLength: max(c.MaxModelLen, c.Meta.NCtx, 0),
			SizeBytes:     max(c.Meta.Size, 0),
		}

		add(m)
		for _, alias := range c.Aliases {
			if m.ID = alias; alias != c.ID {
				m.AliasOf = cmp.Or(m.AliasOf, c.ID)
				add(m)
			}
		}
	}

	return models
}

// aliasOf is the model listed first that was loaded from the same place as the i-th.
func (l modelList) aliasOf(i int) string {
	for _, c := range l.cards[:i] {
		if c.Root != "" && c.Root == l.cards[i].Root && c.OwnedBy == l.cards[i].OwnedBy {
			return c.ID
		}
	}
	return ""
}

// recognizeFlavour tells the flavour by what the server says of itself: in its list of models, in a
// header, by the names of its gauges, and at last by what only one flavour answers.
func (s *Server) recognizeFlavour(ctx context.Context, list modelList, sign string) *recognized {
	for _, k := range flavours {
		owns := k.owner != "" && slices.ContainsFunc(list.cards, func(c modelCard) bool { return c.OwnedBy == k.owner })
		if owns || k.serverHeader != "" && strings.HasPrefix(sign, k.serverHeader+"|") {
			return k.recognizedBy(sign)
		}
	}

	away, pages := false, map[string][]byte{}
	for _, k := range flavours {
		if k.metricsPath == "" {
			continue
		}

		text, asked := pages[k.metricsPath]
		if !asked {
			a, err := s.fetchPage(ctx, k.metricsPath, "")
			away = away || errors.Is(err, ErrUnreachable)
			if err == nil {
				text = a.Body
			}
			pages[k.metricsPath] = text
		}

		if page := parsePage(text, k.gauges); page.found[running] != nil {
			return k.recognizedBy(sign)
		}
	}

	for _, k := range flavours {
		if k.probe == nil {
			continue
		}

		is, err := k.probe(ctx, s)
		if is {
			return k.recognizedBy(sign)
		}

		away = away || errors.Is(err, ErrUnreachable)
	}

	if away {
		return &recognized{flavour: openAI{}} // it could not say now
	}

	return &recognized{sign: sign, flavour: openAI{}}
}
