package modelserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/promptmill/promptmill/proto/jsonscan"
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
	if mayServeAnyway(err) {
		err = s.tryWithoutList(ctx, err)
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
	return errors.Is(err, ErrFailing) || errors.Is(err, context.DeadlineExceeded) && !(ok && opErr.Op == "dial")
}

// TryModel names a model that the server should have. A server that can list no models and fails an
// empty request may serve nevertheless: some report a missing member as an internal error. So
// [Server.Probe] then asks that model for one token.
func (s *Server) TryModel(model string) { s.tryModel.Store(&model) }

// tryWithoutList returns the error of a server whose list failed with listErr: it is no longer one that
// is away if it answers requests.
func (s *Server) tryWithoutList(ctx context.Context, listErr error) error {
	if failure := s.tryPost(ctx); failure != "" {
		return fmt.Errorf("%w; and a request fails: %s", listErr, failure)
	}

	text := strings.Replace(listErr.Error(), ErrUnreachable.Error()+": ", "", 1)

	return errors.New(text + "; but it answers requests")
}

// tryPost sends a request that has nothing in it, and then perhaps one that the server can answer. It
// returns why the server seems to answer none; "" if it answers, be it with a refusal.
func (s *Server) tryPost(ctx context.Context) (failure string) {
	const path = "/v1/chat/completions"
	a := s.Post(ctx, path, []byte("{}"))

	if model := s.tryModel.Load(); model != nil && a.Err == nil && a.Status == http.StatusInternalServerError {
		a = s.Post(ctx, path, fmt.Appendf(nil, `{"model":%s,"messages":[{"role":"user","content":"1"}],"max_tokens":1}`,
			jsonscan.Quote(*model)))

		if errors.Is(a.Err, context.DeadlineExceeded) {
			return "" // it may be loading the model, or be busy
		}
	}

	switch {
	case a.Err != nil:
		return a.Err.Error()
	case a.Status >= http.StatusInternalServerError:
		return "status " + describeRefusal(a)
	}

	return ""
}
