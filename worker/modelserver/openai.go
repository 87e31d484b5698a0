package modelserver

import "context"

// openAI is a server of which only the common interface is known. Flavours without gauges build
// on it.
type openAI struct{}

func (openAI) name() string { return "OpenAI-compatible" }

func (openAI) describe(context.Context, *Server, *Info) error { return nil }

func (openAI) readLoad(context.Context, *Server) (Load, error) { return Load{}, ErrNoGauges }
