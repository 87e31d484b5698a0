package modelserver

import "context"

// plain is a server of which only the common interface is known. Ollama builds on it.
type plain struct{}

func (plain) name() string                                   { return "OpenAI-compatible" }
func (plain) describe(context.Context, *Server, *Info) error { return nil }
func (plain) load(context.Context, *Server) (Load, error)    { return Load{}, ErrNoGauges }
