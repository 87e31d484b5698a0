package modelserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// probeTimeout bounds all requests of one probe.
const probeTimeout = 10 * time.Second

// Probe asks the server for its flavour and its models. The flavour is remembered for
// [Server.Load]; a server that becomes another one is recognized again.
//
// The error wraps [ErrUnreachable] when the server is not there or not ready, and [ErrLoading]
// when it reports that it loads. Any other error means that it answers but does not report its
// models; it may serve nevertheless.
func (s *Server) Probe(ctx context.Context) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()

	if err := s.currentBase().client.CheckSilence(ctx); err != nil {
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
			again.sign = "" // another server may come in its place
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

// mayServeAnyway reports whether a server that fails to list its models may otherwise work: the
// list fails, or does not come, though there is a connection.
func mayServeAnyway(err error) bool {
	opErr, ok := errors.AsType[*net.OpError](err)
	return errors.Is(err, errInternal) || errors.Is(err, context.DeadlineExceeded) && !(ok && opErr.Op == "dial")
}

// respondsToPost reports whether the server answers a request that has nothing in it, be it
// with a refusal.
func (s *Server) respondsToPost(ctx context.Context) bool {
	a := s.Post(ctx, "/v1/chat/completions", []byte("{}"))
	return a.Err == nil && a.Status < 500
}
