package modelserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// listTimeout bounds the request for the models.
const listTimeout = 5 * time.Second

// modelList is an answer of /v1/models, with the fields that the flavours add.
type modelList struct {
	Data  json.RawMessage // null from an Ollama that has no models
	cards []modelCard
}

// modelCard is an element of the list.
type modelCard struct {
	ID          string
	Root        string   // vLLM: the loaded model, under each of its names
	Aliases     []string // llama.cpp
	OwnedBy     string   `json:"owned_by"`
	MaxModelLen int      `json:"max_model_len"` // vLLM and SGLang; null for an adapter
	Meta        struct { // llama.cpp; null for a model that is not loaded
		NCtx int   `json:"n_ctx"`
		Size int64 `json:"size"`
	}
	Status json.RawMessage // llama.cpp's router and llama-swap: an object with a value
}

// listModels asks for the models. sign differs between servers whose answers look different.
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
		return list, "", fmt.Errorf("list models of %s: %w", s.URL(), describeListError(list, a, err))
	}

	owners := make([]string, len(list.cards))
	for i, c := range list.cards {
		owners[i] = c.OwnedBy
	}

	return list, a.Header.Get("Server") + "|" + strings.Join(slices.Compact(owners), ","), nil
}

// describeListError describes an answer that is not a list of models.
func describeListError(list modelList, a Answer, err error) error {
	kind, _, _ := strings.Cut(a.Header.Get("Content-Type"), ";")
	kind = strings.TrimSpace(kind)
	_, otherType := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case !json.Valid(a.Body) && kind != "" && !strings.Contains(kind, "json"):
		return fmt.Errorf("it answers %s, not JSON: is it a model server?", kind)
	case !json.Valid(a.Body):
		return errors.New("its answer is not JSON: is it a model server?")
	case otherType, list.Data == nil:
		return errors.New("its answer is JSON, but not a list of models: is it a model server?")
	}

	return err
}

// parseModelList reads an answer of /v1/models.
func parseModelList(body []byte) (list modelList, err error) {
	if err = json.Unmarshal(body, &list); err != nil {
		return list, err
	}

	if err = json.Unmarshal(list.Data, &list.cards); err != nil { // also if there is no such member
		return list, err
	}

	// A model without an id cannot be requested, and a model that is listed twice is one.
	listed, seen := len(list.cards), map[string]bool{}
	list.cards = slices.DeleteFunc(list.cards, func(c modelCard) bool {
		again := seen[c.ID]
		seen[c.ID] = true
		return c.ID == "" || again
	})
	if listed > 0 && len(list.cards) == 0 {
		return list, errors.New("its list has models without an id")
	}

	return list, nil
}

// toModels returns the models, each name once, nil for an empty list: a server that names none
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

// aliasOf returns the model listed first that was loaded from the same place as the i-th.
func (l modelList) aliasOf(i int) string {
	for _, c := range l.cards[:i] {
		if c.Root != "" && c.Root == l.cards[i].Root && c.OwnedBy == l.cards[i].OwnedBy {
			return c.ID
		}
	}
	return ""
}

// loadedModels returns the models that are loaded, as far as the list shows it, and whether
// another one is being loaded.
func (l modelList) loadedModels() (loaded []string, loading bool) {
	for _, c := range l.cards {
		var status struct{ Value string }
		if json.Unmarshal(c.Status, &status) != nil {
			continue
		}

		switch status.Value {
		case "loaded", "sleeping": // a model that sleeps wakes with its next request
			loaded = append(loaded, c.ID)
		case "loading", "downloading", "downloaded":
			loading = true
		}
	}

	return loaded, loading
}
