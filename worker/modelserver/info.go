package modelserver

import (
	"slices"

	"github.com/promptmill/promptmill/proto"
)

// Info describes a server and its models. Fields that the server does not report are zero.
type Info struct {
	// Flavour is "vLLM", "SGLang", "llama.cpp", "Ollama" and so on, or "OpenAI-compatible".
	Flavour string
	// Version is the server's.
	Version string

	// Models has the models that the server lists; nil: it lists none, and any may be tried. Empty:
	// it has none.
	Models []Model
	// MaxLoaded is the number of its models that the server can have loaded at once, as far as
	// that is known, if that may be fewer than it lists: for another one it unloads one. 0: it
	// has all of them loaded.
	MaxLoaded int
	// Loaded are the IDs of the models that the server has loaded, if it reports them.
	Loaded []string
	// Loading is set while the server loads another model.
	Loading bool

	// Slots is the number of requests that the server runs at once; more of them wait.
	Slots int
	// Engines is the number of copies of the model that share the requests: of vLLM and SGLang with
	// data parallelism.
	Engines int
	// LoadSeconds is the time that the server took to load the model.
	LoadSeconds float64
	// WeightBytes is the GPU memory of the weights: of one GPU, if each replica has several.
	WeightBytes int64
	// CacheBytes is the GPU memory of the KV cache, likewise.
	CacheBytes int64
	// GPUBytes is the GPU memory of the loaded models in all, if only that is reported.
	GPUBytes int64
	// GPUMemoryUtilization is the part of each GPU's memory that vLLM was started to take.
	GPUMemoryUtilization float64

	// Notes are hints for the server's user; always the same texts, to be shown once.
	Notes []string
}

// Model is a model that can be requested.
type Model struct {
	// ID is its name in requests.
	ID string
	// ContextLength is the number of tokens that a request and its answer may have; 0 unknown.
	ContextLength int
	// SizeBytes is the size of the weights; 0 unknown.
	SizeBytes int64
	// AliasOf is the ID of the model that this is another name of; empty: of none.
	AliasOf string
}

// DefaultModel returns the model for requests that name none: the only one that the server has,
// under the first of its names, or "" if there is none, several, or names that stand for many.
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

// ModelNames returns the models that the server lists; nil if any may be tried.
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

// MergeInfos describes several servers together: each model once. If they are several, it has
// the first one's flavour and no figures.
func MergeInfos(list []Info) Info {
	if len(list) == 1 {
		return list[0]
	}

	merged := Info{Flavour: list[0].Flavour, Models: []Model{}}
	for _, info := range list {
		if info.ModelNames() == nil { // it may have any
			return Info{Flavour: list[0].Flavour}
		}

		for _, m := range info.Models {
			if !slices.ContainsFunc(merged.Models, func(has Model) bool { return has.ID == m.ID }) {
				merged.Models = append(merged.Models, m)
			}
		}
	}

	return merged
}

// clearFigures drops the figures of a single server, if several answer.
func (i *Info) clearFigures() {
	i.Slots, i.Engines, i.LoadSeconds = 0, 0, 0
	i.WeightBytes, i.CacheBytes, i.GPUBytes, i.GPUMemoryUtilization = 0, 0, 0, 0
}

// capLoaded returns a number of models if it is positive and the server has more, and otherwise 0.
func (i *Info) capLoaded(most int) int {
	all := 0
	for _, m := range i.Models {
		if m.AliasOf == "" {
			all++
		}
	}

	if 0 < most && most < all {
		return most
	}

	return 0
}
