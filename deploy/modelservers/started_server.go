package modelservers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/supervise"
)

// retryWait is the time before a server that has given up is started again, while others work. What
// hinders it may be gone by then: another program in the memory of its card, a full disk.
const retryWait = time.Minute

// startedServer is a model server that a command started.
type startedServer struct {
	server  *modelserver.Server
	process *supervise.Process
	script  string // as Command.Script
	port    *heldPort

	gpus      string // as Command.GPUs
	isOrdered bool   // their numbers are surely those of nvidia-smi

	// isLost reports that it did not start, or died too often, and was not ready since. It is tried again.
	isLost atomic.Bool
}

// checkReady returns nil if the server answers requests.
func (s *startedServer) checkReady(ctx context.Context) error {
	if _, err := s.server.Probe(ctx); errors.Is(err, modelserver.ErrUnreachable) {
		return err
	}

	s.isLost.Store(false)

	return nil
}

// startCommands starts the model servers of Config.Commands. They end with running.
func (s *Set) startCommands(ctx, running context.Context) error {
	plans, err := planStarts(s.cfg.Commands)
	if err != nil {
		return err
	}

	if err := statedir.Make(filepath.Dir(s.cfg.StateDir), s.cfg.StateDir); err != nil {
		return err
	}

	for _, plan := range plans {
		if err := s.prepareServer(ctx, plan); err != nil {
			return err
		}
	}

	for _, started := range s.started {
		s.running.Go(func() { s.keepRunning(running, started) })
	}

	return nil
}

// prepareServer adds the server of a command, which is not started yet.
func (s *Set) prepareServer(ctx context.Context, plan startPlan) error {
	command, url, port, err := plan.start(holdPort)
	if err != nil {
		return err
	}

	server, err := modelserver.New(url, s.cfg.APIKey, s.cfg.Options()...)
	if err != nil {
		port.release()
		return err
	}

	started := &startedServer{
		server: server,
		script: plan.Script,
		port:   port,
	}
	started.gpus, started.isOrdered = plan.gpusOf()
	s.Servers, s.started = append(s.Servers, server), append(s.started, started)

	if _, err := server.Probe(ctx); !errors.Is(err, modelserver.ErrUnreachable) {
		return exit.Usage("stop it, or leave out --exec to use it", "a server answers at %s already", server.URL())
	}

	number, err := portOf(url)
	if err != nil {
		return err
	}

	started.process, err = supervise.New(supervise.Config{
		Command: command,
		LogFile: filepath.Join(s.cfg.StateDir, cmp.Or(plan.LogName, "server-"+number+".log")),
		Log:     s.cfg.Log.With().Str("server", server.URL()).Logger(),
		Ready:   started.checkReady,
	})

	return err
}

// keepRunning runs a server until ctx ends. One that gives up is started again later, unless it was the
// last one that worked.
func (s *Set) keepRunning(ctx context.Context, started *startedServer) {
	for {
		err := started.process.Run(ctx)
		if err == nil {
			return
		}

		started.isLost.Store(true)
		if !slices.ContainsFunc(s.started, func(other *startedServer) bool { return !other.isLost.Load() }) {
			if n := len(s.started); n > 1 {
				err = fmt.Errorf("all %d model servers have given up, the last one since %w", n, err)
			}
			select {
			case s.ended <- err:
			default: // another one was the last
			}
			return
		}

		s.cfg.Log.Warn().Str("server", started.server.URL()).Err(err).Dur("wait_ms", retryWait).
			Msg("the model server does not start; the others go on, and it is tried again")

		select {
		case <-time.After(retryWait):
		case <-ctx.Done():
			return
		}
	}
}

// missingServer returns a server of a command that has no server yet which takes requests, and may get
// one; nil: there is none. errs are of the servers, in their order.
func (s *Set) missingServer(errs []error) *startedServer {
	missing, answers := map[string]*startedServer{}, map[string]bool{}
	for i, started := range s.started {
		switch {
		case !errors.Is(errs[i], modelserver.ErrUnreachable):
			answers[started.script] = true
		case !started.isLost.Load() && missing[started.script] == nil:
			missing[started.script] = started
		}
	}

	for _, started := range s.started {
		if first := missing[started.script]; first != nil && !answers[started.script] {
			return first
		}
	}

	return nil
}
