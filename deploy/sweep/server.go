package sweep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// logName is the name of the log of a variant's server, in its folder.
const logName = "server.log"

// server is the running model server of a variant.
type server struct {
	*modelservers.Set

	model string // that the requests ask for
	cards cardReader
	used  memoryInUse // before it started; nil: it is not ours
}

// openServer starts the server of a variant, or opens the one that runs, and waits until it is loaded. The error of a
// server that does not start is a serverError.
func (s *sweeper) openServer(ctx context.Context, v *variant) (opened *server, err error) {
	cfg := s.cfg.Servers
	cfg.Log = s.cfg.Log.With().Str("variant", v.Name).Logger()
	cfg.URLs = nil

	opened = &server{cards: s.cards}
	switch {
	case v.Spec.Command == "" && v.Spec.URL != "":
		cfg.URLs = []string{v.Spec.URL}
	case v.Spec.Command != "":
		cfg.Commands = []modelservers.Command{{
			Script:  v.Spec.Command,
			URL:     v.Spec.URL,
			LogName: logName,
		}}
		cfg.StateDir = s.folder.serverDir(v.Slug)
		v.Log = s.folder.serverLog(v.Slug)
		if !s.cfg.SideBySide { // else the others keep their memory
			opened.used = s.cards.read(ctx)
		}
	}

	if opened.Set, err = modelservers.Open(ctx, cfg); err != nil {
		return nil, describeServer(ctx, err)
	}

	if v.Spec.Command != "" && v.Spec.URL == "" {
		s.sayGuess(v, opened.Servers[0].URL())
	}

	if err := s.awaitReady(ctx, v, opened); err != nil {
		opened.close(ctx)
		return nil, describeServer(ctx, err)
	}

	v.Model = cmp.Or(v.Spec.Model, opened.model)
	v.URL = opened.Servers[0].URL()

	return opened, nil
}

// sayGuess says where a server is asked whose command does not say where it listens, since the wait may be in vain.
func (s *sweeper) sayGuess(v *variant, url string) {
	command := v.Spec.Command
	if modelservers.NamesServer(command) || strings.Contains(command, "{port}") || s.cfg.Hooks.Printf == nil {
		return
	}

	s.cfg.Hooks.Printf("%s: the command does not say where its server listens, so %s is asked; "+
		"write {port} where the command has its port", v.Name, url)
}

// awaitReady waits until the server of a variant takes requests, and finds its model.
func (s *sweeper) awaitReady(ctx context.Context, v *variant, opened *server) error {
	waiting, cancel := context.WithTimeoutCause(ctx, s.loadTime(), errLoadTime)
	defer cancel()

	if model := v.Spec.Model; model != "" { // its list of models may fail
		for _, server := range opened.Servers {
			server.TryModel(model)
		}
	}

	info, err := opened.AwaitReady(waiting, func(_, what string, waited time.Duration) {
		if s.cfg.Hooks.Loading != nil {
			s.cfg.Hooks.Loading(v.Variant, what, waited)
		}
	})
	switch {
	case errors.Is(err, errLoadTime) && s.isOver():
		return &overError{s.describeOver() + " while its server loaded"}
	case errors.Is(err, errLoadTime):
		return fmt.Errorf("the server is not ready after %s", s.loadTime().Round(time.Second))
	case err == nil:
	case v.Spec.Model == "", waiting.Err() != nil, errors.Is(err, modelserver.ErrUnreachable),
		exit.Code(err) == exit.CodeUnreachable:
		return err
	default: // a server that answers without a list may still serve
		s.cfg.Log.Warn().Err(err).Str("variant", v.Name).Msg("the model server does not list its models")
		info = modelserver.Info{}
	}

	started := v.Spec.Command != ""
	opened.model, err = pickModel(v.Spec.Model, info.ModelNames(), info.DefaultModel(), started)

	return err
}

// errLoadTime is the cause of a context whose time for loading is over.
var errLoadTime = errors.New("the time for loading is over")

// loadTime returns how long a server may load from now on.
func (s *sweeper) loadTime() time.Duration {
	if s.cfg.Within == 0 {
		return s.cfg.LoadTimeout
	}
	return max(time.Second, min(s.cfg.LoadTimeout, s.cfg.Within-time.Since(s.begun)))
}

// close stops the server, if the trial started it, and waits until the memory of the cards is free.
func (o *server) close(ctx context.Context) {
	o.Close()
	o.cards.awaitFree(ctx, o.used)
}

// describeServer makes the error of a server that of its variant, unless ctx has ended or the machine is at fault.
func describeServer(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, os.ErrPermission) {
		return err
	}
	return &serverError{err}
}

// pickModel returns the model to ask a server for: the wanted one, or else its only one. A server that was started
// with the wanted model may have another name for it, such as that of a file.
func pickModel(wanted string, served []string, only string, started bool) (string, error) {
	switch {
	case wanted != "" && proto.Serves(served, wanted):
		return wanted, nil
	case only != "" && (wanted == "" || started):
		return only, nil
	case len(served) == 0:
		return "", exit.Usage("name its model with --model", "the server does not list its models")
	case wanted != "":
		return "", fmt.Errorf("the server has no model %s; it has %s", report.ShellWords(wanted), strings.Join(served, ", "))
	}

	return "", fmt.Errorf("the server has %d models: name one with --model: %s", len(served), strings.Join(served, ", "))
}
