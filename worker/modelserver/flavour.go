package modelserver

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// flavour is a kind of model server.
type flavour interface {
	name() string
	// describe adds the properties of the server beyond its list of models. It fails only
	// if the server is not ready; fields that the server does not report stay unknown.
	describe(ctx context.Context, s *Server, info *Info) error
	// readLoad reads the gauges with one request.
	readLoad(ctx context.Context, s *Server) (Load, error)
}

// flavourSpec is a row of the table of flavours: how to recognize a server of a flavour.
type flavourSpec struct {
	// newFlavour returns the flavour of one server. Required.
	newFlavour func() flavour

	// owner is the owner of the models in the server's list; empty: it is no sign.
	owner string
	// serverHeader is the beginning of the "Server" header of the answers; empty: it is no sign.
	serverHeader string
	// gauges are the names of gauges that no other flavour has; nil: the flavour has none.
	gauges *gaugeNames
	// metricsPath is the path of the page with the gauges; empty: the flavour has none.
	metricsPath string
	// probe sends a request that only this flavour answers; nil: there is none.
	probe func(ctx context.Context, s *Server) (bool, error)

	// countsAtEnd is set if the counter of tokens moves only when a request ends.
	countsAtEnd bool
}

// flavours is the table of all flavours, in the order in which a server is compared with them.
// Ollama comes first, for the others may be namespaces in its registry.
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

// recognized is the flavour of a server, and the sign by which it was recognized.
type recognized struct {
	sign    string // of the list of models; empty: recognize it again
	flavour flavour

	countsAtEnd bool
}

// recognizedBy returns a server of this flavour that was recognized by a sign.
func (k flavourSpec) recognizedBy(sign string) *recognized {
	return &recognized{sign: sign, flavour: k.newFlavour(), countsAtEnd: k.countsAtEnd}
}

// recognizeFlavour finds the flavour by the signs that the server gives: in its list of
// models, in a header, by the names of its gauges, and at last by what only one flavour
// answers.
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
		return &recognized{flavour: openAI{}} // the server could not answer now
	}

	return &recognized{sign: sign, flavour: openAI{}}
}

// Flavour returns the name of the server's flavour, "" before [Server.Probe].
func (s *Server) Flavour() string {
	if r := s.recognized.Load(); r != nil {
		return r.flavour.name()
	}
	return ""
}

// CountsTokensAtEnd reports whether the server's counter of tokens moves only when a request
// ends, so that a counter that stands still is no sign that the server does.
func (s *Server) CountsTokensAtEnd() bool {
	r := s.recognized.Load()
	return r != nil && r.countsAtEnd
}
