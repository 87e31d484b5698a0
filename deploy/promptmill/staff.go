package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/modelserver"
)

const (
	// lookUpEvery is how often the worker command looks up the names of its model servers.
	lookUpEvery = 10 * time.Second
	// goneAfter is how many times in a row an address is not found until its server counts as
	// gone: some name servers give only a part of the addresses each time.
	goneAfter = 3
)

// staff is the workers of the worker command: one at each model server, while servers come and
// go under the names that the command line has.
type staff struct {
	command  *cli.Command
	models   *models
	link     *link
	screen   *screen
	log      zerolog.Logger
	measured *exporter
	name     string
	state    string // folder

	group *errgroup.Group
	hired int                        // so far
	said  map[string]*worker.Notices // of each server, by its URL: it may go and come again
	stop  map[*modelserver.Server]context.CancelFunc
}

// work runs the workers until ctx ends.
func (s *staff) work(ctx context.Context) error {
	s.group, ctx = errgroup.WithContext(ctx)
	s.stop = map[*modelserver.Server]context.CancelFunc{}
	s.said = map[string]*worker.Notices{}

	for i, server := range s.models.servers {
		s.hire(ctx, server, s.models.workerName(s.name, i))
	}

	s.group.Go(func() error { return s.followNames(ctx) })

	return s.group.Wait()
}

// hire starts the worker of a model server. It ends with ctx, or when the server is let go.
func (s *staff) hire(ctx context.Context, server *modelserver.Server, name string) {
	cfg := workerConfig(s.command, s.models, server, s.link, s.state, s.log.With().Str("server", server.URL()).Logger())
	cfg.Name = name

	if s.said[server.URL()] == nil {
		s.said[server.URL()] = &worker.Notices{}
	}

	cfg.Notices = s.said[server.URL()]
	s.screen.say("worker %s: bus %s, model server %s, %s", cfg.Name, s.link.name, server.URL(), atOnce(s.command))
	w := worker.New(cfg)
	remove := s.measured.addWorker(namedWorker{cfg.Name, cfg.Limiter, w})
	working, stop := context.WithCancel(ctx)
	s.hired++
	s.stop[server] = stop
	s.group.Go(func() error {
		defer stop()
		err := w.Run(working)
		server.Close()
		if ctx.Err() == nil { // the server has gone
			remove()
		}
		return err
	})

	s.group.Go(func() error { return s.models.follow(working, w, s.screen) })
}

// followNames looks up the names of the model servers again and again, until ctx ends.
func (s *staff) followNames(ctx context.Context) error {
	tick := time.NewTicker(lookUpEvery)
	defer tick.Stop()

	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}

		for _, n := range s.models.names {
			found, err := modelserver.LookupAddresses(ctx, n.url)
			if err != nil {
				continue // what is there may be there still
			}

			come, gone := n.changes(found)
			for _, at := range come {
				server, err := s.models.atAddress(n.url, at)
				if err != nil {
					return err
				}
				n.servers[at] = server
				s.hire(ctx, server, fmt.Sprintf("%s-%d", s.name, s.hired+1))
			}

			for _, at := range gone {
				server := n.servers[at]
				delete(n.servers, at)

				why := "is no address of its name any more"
				if !at.IsValid() {
					why = "has several addresses now"
				}

				s.screen.say("%s %s; its worker finishes what is in flight", server.URL(), why)
				s.stop[server]()
				delete(s.stop, server)
			}
		}
	}
}

// serverName is a URL of a model server and the servers of its name, by their addresses. One
// that is reached by the name has none.
type serverName struct {
	url     string
	servers map[netip.Addr]*modelserver.Server
	missed  map[netip.Addr]int // how many times in a row they were not found
}

// changes are the addresses that come and go when some are found. A name with one address that
// is not known is the server that is reached by the name, wherever it moves.
func (n *serverName) changes(found []netip.Addr) (come, gone []netip.Addr) {
	var none netip.Addr
	if len(found) == 0 || n.servers[none] != nil && len(found) == 1 {
		return nil, nil
	}

	for _, at := range found {
		if n.servers[at] == nil {
			come = append(come, at)
		}
	}

	for at := range n.servers {
		switch {
		case slices.Contains(found, at):
			delete(n.missed, at)
		case at == none || n.missed[at]+1 == goneAfter:
			delete(n.missed, at)
			gone = append(gone, at)
		default:
			n.missed[at]++
		}
	}

	slices.SortFunc(gone, netip.Addr.Compare)

	return come, gone
}
