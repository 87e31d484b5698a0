package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/deploy/webhook"
	"github.com/promptmill/promptmill/proto"
)

func webhooksCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "webhooks",
		Usage: "list, test and redeliver the events of ended runs",
		Description: "promptmill serve --webhook URL posts an event to URL when a run has ended. An event that is not " +
			"taken is sent again, for 3 days.",
		Commands: []*cli.Command{
			{
				Name:  "list",
				Usage: "list the events of the last days, and what became of them",
				Flags: append(busFlags(), jsonFlag()),
				Action: func(ctx context.Context, c *cli.Command) error {
					return listWebhooks(ctx, env, parseBus(env, c), c.Bool("json"))
				},
			},
			testWebhookCommand(env),
			{
				Name:      "redeliver",
				Usage:     "send events again",
				ArgsUsage: "EVENT...",
				Description: "EVENT is the id of an event, or of its run or batch. promptmill serve sends it to each " +
					"endpoint that it has now.",
				Flags: append(busFlags(), jsonFlag(), &cli.BoolFlag{
					Name:     "failed",
					Category: groupEvents,
					Usage:    "all events that were given up",
				}),
				Action: func(ctx context.Context, c *cli.Command) error {
					o, err := parseRedeliver(env, c)
					if err != nil {
						return err
					}
					return redeliverEvents(ctx, env, o)
				},
			},
			{
				Name:  "secret",
				Usage: "print the signing secret of the events, for their receivers",
				Flags: []cli.Flag{secretFileFlag(), stateFlag()},
				Action: func(_ context.Context, c *cli.Command) error {
					return printWebhookSecret(env, c)
				},
			},
		},
	}
}

// printWebhookSecret prints the secret for new receivers. It makes the secret of the state folder if there
// is none.
func printWebhookSecret(env environment, c *cli.Command) error {
	secrets, err := parseSecretFile(c)
	if err != nil {
		return err
	}

	if len(secrets) == 0 {
		state, err := stateOf(env, c)
		if err != nil {
			return err
		}
		if secrets, err = webhook.LoadOwnSecrets(state); err != nil {
			return err
		}
	}

	_, err = fmt.Fprintln(env.stdout, secrets[0])

	return err
}

// busEvents are the events of a bus.
type busEvents struct {
	session   *session
	store     *webhook.Store
	list      []webhook.Delivery
	endpoints []webhook.KnownEndpoint
}

// openWebhooks opens the events of the named bus, or of the buses of this machine. Buses without webhooks
// are left out. closeAll closes them.
func openWebhooks(ctx context.Context, env environment, o busOptions) (all []busEvents, closeAll func(), err error) {
	sessions, err := openSessions(ctx, env, o, proto.RoleCollector)
	if err != nil {
		return nil, nil, err
	}

	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	for _, s := range sessions {
		e := busEvents{session: s, store: webhook.NewStore(newWebhookBucket(s.Connection))}
		e.list, e.endpoints, err = e.store.List(ctx)
		if errors.Is(err, webhook.ErrNone) {
			continue
		}
		if err != nil {
			defer closeSessions(sessions)
			return nil, nil, s.Explain(err)
		}

		all = append(all, e)
	}

	return all, func() { closeSessions(sessions) }, nil
}

// listWebhooks prints the events of the named bus, or of the buses of this machine.
func listWebhooks(ctx context.Context, env environment, o busOptions, asJSON bool) error {
	all, closeAll, err := openWebhooks(ctx, env, o)
	if err != nil {
		return err
	}
	defer closeAll()

	list := []webhook.Delivery{} // never null in JSON
	for _, e := range all {
		list = append(list, e.list...)
	}

	if asJSON {
		return printJSON(env.stdout, list)
	}

	return (&view{out: env.stdout}).show(func(w io.Writer, width int) error {
		return printDeliveries(w, list, len(all) > 0, width)
	})
}

// printDeliveries prints deliveries as a table. webhooks reports that there is a bus with webhooks.
func printDeliveries(w io.Writer, list []webhook.Delivery, webhooks bool, width int) error {
	if !webhooks {
		_, err := fmt.Fprintln(w, "no webhooks: promptmill serve --webhook URL has them")
		return err
	}

	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no events yet")
		return err
	}

	cells := terminal.CellsOf(list)

	return terminal.Columns{
		{Head: "EVENT", Cells: cells(func(d webhook.Delivery) string { return d.Event.ID })},
		{Head: "TYPE", Cells: cells(func(d webhook.Delivery) string { return d.Event.Type }), DropAt: 4},
		{Head: "BATCH", Cells: cells(func(d webhook.Delivery) string { return d.Event.BatchID }), DropAt: 6},
		{
			Head:  "ENDPOINT",
			Cells: cells(func(d webhook.Delivery) string { return d.Endpoint }),
			CutAt: 2,
			Least: 16,
		},
		{Head: "STATE", Cells: cells(func(d webhook.Delivery) string { return d.State })},
		{
			Head:   "ATTEMPTS",
			Cells:  cells(func(d webhook.Delivery) string { return terminal.FormatCount(d.Attempts) }),
			DropAt: 5,
		},
		{
			Head:  "LAST ANSWER",
			Cells: cells(func(d webhook.Delivery) string { return terminal.Printable(d.Answer) }),
			CutAt: 1,
			Least: 12,
		},
		{Head: "NEXT", Cells: cells(formatNext), DropAt: 3},
	}.Print(w, width)
}

// formatNext formats the time until the next attempt.
func formatNext(d webhook.Delivery) string {
	switch left := time.Until(d.NextAt); {
	case d.State != webhook.Pending:
		return ""
	case d.ClaimedBy != "" || left <= 0:
		return "now"
	default:
		return "in " + terminal.FormatAge(left)
	}
}

// redeliverOptions are the flags of webhooks redeliver.
type redeliverOptions struct {
	bus    busOptions
	names  []string // of events
	failed bool
	json   bool
}

// parseRedeliver reads the flags of webhooks redeliver.
func parseRedeliver(env environment, c *cli.Command) (o redeliverOptions, err error) {
	o = redeliverOptions{
		bus:    parseBus(env, c),
		names:  c.Args().Slice(),
		failed: c.Bool("failed"),
		json:   c.Bool("json"),
	}

	switch {
	case o.failed && len(o.names) > 0:
		err = exit.Usage("leave out one of them", "--failed sends all events that were given up, and %s are named",
			strings.Join(o.names, " "))
	case !o.failed && len(o.names) == 0:
		err = exit.Usage("promptmill webhooks list shows the events", "want the id of an event, or --failed")
	}

	return o, err
}

// redeliverEvents has events sent again.
func redeliverEvents(ctx context.Context, env environment, o redeliverOptions) error {
	all, closeAll, err := openWebhooks(ctx, env, o.bus)
	if err != nil {
		return err
	}
	defer closeAll()

	for _, name := range o.names {
		if !slices.ContainsFunc(all, func(e busEvents) bool {
			return slices.ContainsFunc(e.list, func(d webhook.Delivery) bool { return isNamed(d, name) })
		}) {
			return exit.Usage("promptmill webhooks list shows the events", "there is no event %s", report.ShellWords(name))
		}
	}

	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	again := []webhook.Delivery{} // never null in JSON
	for _, e := range all {
		for _, d := range e.list {
			wanted := o.failed && d.State == webhook.GivenUp && !d.Test ||
				slices.ContainsFunc(o.names, func(name string) bool { return isNamed(d, name) })
			if !wanted {
				continue
			}

			if d, err = e.store.Redeliver(ctx, d); err != nil {
				return e.session.Explain(err)
			}
			again = append(again, d)
		}
	}

	if o.json {
		return printJSON(env.stdout, again)
	}

	for _, d := range again {
		env.printf("event %s of %s goes to %s again", d.Event.ID, d.Event.BatchID, d.Endpoint)
	}

	if len(again) == 0 {
		env.printf("no event was given up")
	}

	return nil
}

// isNamed reports whether a name on a command line means a delivery: by its event, its batch or its run.
func isNamed(d webhook.Delivery, name string) bool {
	return name == d.Event.ID || name == d.Event.BatchID || d.Event.Run != nil && name == d.Event.Run.ID
}

func testWebhookCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "test",
		Usage:     "send an event that is about nothing, and print the answer",
		ArgsUsage: "[URL]",
		Description: "The event is a " + webhook.Completed + " of the batch batch_test. To a URL this command sends it; " +
			"with --all promptmill serve does, to each of its endpoints.",
		Flags: append(busFlags(), secretFileFlag(), &cli.BoolFlag{
			Name:     "all",
			Category: groupEvents,
			Usage:    "have promptmill serve send it to all its endpoints",
		}),
		Action: func(ctx context.Context, c *cli.Command) error {
			o, err := parseTestWebhook(env, c)
			if err != nil {
				return err
			}

			if o.url != nil {
				return testURL(ctx, env, o)
			}

			return testEndpoints(ctx, env, o)
		},
	}
}

// testOptions are the flags of webhooks test.
type testOptions struct {
	bus busOptions
	// url is the address to test. Nil: all endpoints of the bus are.
	url *url.URL
	// secrets sign the event. Empty: the secret of the state folder does.
	secrets []string
	state   string
}

// parseTestWebhook reads the flags of webhooks test.
func parseTestWebhook(env environment, c *cli.Command) (o testOptions, err error) {
	o = testOptions{bus: parseBus(env, c)}

	switch all := c.Bool("all"); {
	case all == c.Args().Present():
		return o, exit.Usage("for example promptmill webhooks test http://127.0.0.1:9000/hooks",
			"want the URL of an endpoint, or --all")
	case all:
		return o, nil
	}

	if o.url, err = parseWebhook("", c.Args().First()); err != nil {
		return o, err
	}

	if o.secrets, err = parseSecretFile(c); err != nil {
		return o, err
	}

	o.state, err = stateOf(env, c)

	return o, err
}

// testURL sends a test event to a URL.
func testURL(ctx context.Context, env environment, o testOptions) error {
	signer, err := newSigner(o.secrets, o.state)
	if err != nil {
		return err
	}

	client := webhook.NewClient()
	defer client.CloseIdleConnections()

	endpoint := webhook.NewURLEndpoint(o.url, signer, client, webhookAgent())
	ctx, cancel := context.WithTimeout(ctx, endpoint.Timeout)
	defer cancel()

	begun := time.Now()
	answer := endpoint.Send(ctx, webhook.NewTestEvent())
	if !answer.Delivered {
		return exit.WithHint(fmt.Errorf("%s: %s", endpoint.Name, answer.Text),
			"the receiver verifies events with the secret that promptmill webhooks secret prints")
	}

	env.printf("%s: %s, in %s", endpoint.Name, answer.Text, time.Since(begun).Round(time.Millisecond))

	return nil
}

// testTime is how long an answer to a test event is waited for: an attempt, and the time until the sender
// sees the event.
const testTime = 20 * time.Second

// testEndpoints has the endpoints of buses tested.
func testEndpoints(ctx context.Context, env environment, o testOptions) error {
	all, closeAll, err := openWebhooks(ctx, env, o.bus)
	if err != nil {
		return err
	}
	defer closeAll()

	tested, failed := 0, 0
	for _, e := range all {
		for _, endpoint := range e.endpoints {
			if endpoint.Command {
				continue
			}

			waiting, cancel := context.WithTimeout(ctx, testTime)
			d, err := e.store.Test(waiting, endpoint, webhook.NewTestEvent())
			cancel()
			if err != nil {
				return e.session.Explain(err)
			}

			tested++
			if d.State != webhook.Delivered {
				failed++
			}
			env.printf("%s: %s", endpoint.Name, d.Answer)
		}
	}

	switch {
	case tested == 0:
		return exit.WithHint(errors.New("no process on this bus has had a webhook"),
			"start promptmill serve with --webhook URL")
	case failed > 0:
		return fmt.Errorf("%d of %d endpoints have not taken the event", failed, tested)
	}

	return nil
}

// eventsOnBus are the ids of the events on the bus that the flags name, or on this machine's.
func eventsOnBus(ctx context.Context, env environment, c *cli.Command) (list []string) {
	all, closeAll, err := openWebhooks(ctx, env, parseBus(env, c))
	if err != nil {
		return nil
	}
	defer closeAll()

	for _, e := range all {
		for _, d := range e.list {
			list = append(list, d.Event.ID+"\t"+proto.Printable(d.Event.BatchID+" "+d.State))
		}
	}

	return list
}
