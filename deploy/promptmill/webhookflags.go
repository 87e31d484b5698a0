package main

import (
	"cmp"
	"context"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/apiserver"
	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/onend"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/usershell"
	"github.com/promptmill/promptmill/deploy/webhook"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// webhookFlags returns the flags of webhooks.
func webhookFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{
			Name:     "webhook",
			Category: groupEvents,
			Usage:    "`URL`: gets a signed event when a run has ended, as from OpenAI's batch API",
		},
		secretFileFlag(),
	}
}

// secretFileFlag is the flag of commands that sign events.
func secretFileFlag() cli.Flag {
	return &cli.StringFlag{
		Name:        "webhook-secret-file",
		Category:    groupEvents,
		Usage:       "`FILE`: signing secret of the events, whsec_ and base64; a second line is a second secret",
		DefaultText: "webhook-secret in the state folder",
	}
}

// onEndFlag is the flag of commands that wait for the ends of runs.
func onEndFlag() cli.Flag {
	return &cli.StringFlag{
		Name:     "on-end",
		Category: groupEvents,
		Usage:    "`CMD`: run this in a shell when a run has ended, with the run in PROMPTMILL_END_RUN, PROMPTMILL_END_STATE and others",
	}
}

// parseOnEnd reads the flag of the command at the end of a run. It returns nil if there is none.
func parseOnEnd(c *cli.Command) (*onend.Command, error) {
	script := c.String("on-end")
	if script == "" {
		return nil, nil
	}

	if err := usershell.Check(script); err != nil {
		return nil, exit.Usage(`for example --on-end 'notify-send "$PROMPTMILL_END_RUN is $PROMPTMILL_END_STATE"'`,
			"--on-end: %w", err)
	}

	return &onend.Command{Script: script, Host: pipeline.HostName()}, nil
}

// eventOptions are the flags of serve for the ends of runs.
type eventOptions struct {
	urls []*url.URL
	// secrets sign the events. Empty: the secret of the state folder does.
	secrets []string
	// onEnd is a command. Nil: there is none.
	onEnd *onend.Command
}

// parseEvents reads and checks the flags for the ends of runs.
func parseEvents(c *cli.Command) (o eventOptions, err error) {
	for _, text := range c.StringSlice("webhook") {
		u, err := parseWebhook("--webhook", text)
		if err != nil {
			return o, err
		}

		if slices.ContainsFunc(o.urls, func(other *url.URL) bool { return other.String() == u.String() }) {
			return o, exit.Usage("leave out one of them", "--webhook %s is given twice", webhook.NameOf(u))
		}

		o.urls = append(o.urls, u)
	}

	if o.secrets, err = parseSecretFile(c); err != nil {
		return o, err
	}

	o.onEnd, err = parseOnEnd(c)

	return o, err
}

// parseWebhook reads the address of an endpoint. flag is the flag that a person gave it with, if any. The
// error has nothing of the address that may be secret.
func parseWebhook(flag, text string) (*url.URL, error) {
	u, err := webhook.ParseURL(text)
	if err != nil {
		what := cmp.Or(strings.TrimSpace(flag+" "+webhook.NameOfText(text)), "the URL")
		return nil, exit.Usage("for example https://example.com/hooks", "%s: %w", what, err)
	}
	return u, nil
}

// parseSecretFile returns the secrets of the file that the flags name, if they name one.
func parseSecretFile(c *cli.Command) ([]string, error) {
	path := c.String("webhook-secret-file")
	if path == "" {
		return nil, nil
	}

	secrets, err := webhook.LoadSecrets(path)
	if err != nil && !exit.IsError(err) {
		return nil, exit.Usage("promptmill webhooks secret prints the secret of this machine, for such a file",
			"--webhook-secret-file: %w", err)
	}

	return secrets, err
}

// newSigner returns the signer with some secrets, or with the secret of a state folder.
func newSigner(secrets []string, state string) (*webhook.Signer, error) {
	if len(secrets) == 0 {
		var err error
		if secrets, err = webhook.LoadOwnSecrets(state); err != nil {
			return nil, err
		}
	}

	return webhook.NewSigner(secrets)
}

// webhookAgent is the User-Agent of events.
func webhookAgent() string { return "promptmill/" + versionText() }

// listEndpoints returns the endpoints that get the ends of runs.
func (o eventOptions) listEndpoints(cmd *activeCommand, process, state string) (list []webhook.Endpoint, err error) {
	if len(o.urls) > 0 {
		signer, err := newSigner(o.secrets, state)
		if err != nil {
			return nil, err
		}

		client := webhook.NewClient()
		for _, u := range o.urls {
			list = append(list, webhook.NewURLEndpoint(u, signer, client, webhookAgent()))
		}
	}

	if o.onEnd != nil {
		o.onEnd.Print = cmd.printOnEnd
		list = append(list, o.onEnd.Endpoint(process))
	}

	return list, nil
}

// endEvents passes the ends of runs and of batches to the sender of a serve.
type endEvents struct {
	cmd       *activeCommand
	endpoints []webhook.Endpoint
	// process names this process for the sender.
	process string
	// dir is the folder of the outputs.
	dir string
	// isBatch reports whether a run is a batch of the batch API, which passes on its end itself. Nil: none is.
	isBatch func(run string) bool
	// sender is set by open.
	sender *webhook.Sender
}

var _ pipeline.Events = (*endEvents)(nil)

// newEndEvents returns the events of a serve; nil if nothing gets them.
func newEndEvents(cmd *activeCommand, o eventOptions, cfg pipeline.ServeConfig) (*endEvents, error) {
	e := &endEvents{cmd: cmd, process: pipeline.HostName() + ":" + cfg.State, dir: cfg.Dir}

	var err error
	if e.endpoints, err = o.listEndpoints(cmd, e.process, cfg.State); err != nil || len(e.endpoints) == 0 {
		return nil, err
	}

	return e, nil
}

// open opens the sender on a bus. It is for [pipeline.ServeConfig].
func (e *endEvents) open(ctx context.Context, link *busconn.Connection) (pipeline.Events, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	var err error
	e.sender, err = webhook.Open(ctx, webhook.Config{
		Bucket:    newWebhookBucket(link),
		Limits:    link.Limits,
		Endpoints: e.endpoints,
		Process:   e.process,
		Log:       e.cmd.log,
	})
	if err != nil {
		return nil, link.Explain(link.DescribeStreamError(err))
	}

	e.cmd.metrics.SetEvents(e.sender.Stats())

	for _, endpoint := range e.endpoints {
		e.cmd.screen.Printf("ends of runs go to %s", endpoint.Name)
	}

	return e, nil
}

// AddRun implements [pipeline.Events].
func (e *endEvents) AddRun(ctx context.Context, m proto.Manifest) error {
	if e.isBatch != nil && e.isBatch(m.Run) {
		return nil
	}
	return e.sender.AddRun(ctx, m)
}

// addBatch adds the end of a batch of the batch API, which may have no run. It is for [apiserver.Config].
func (e *endEvents) addBatch(ctx context.Context, b batch.Batch) error {
	return e.sender.Add(ctx, apiserver.NewEvent(b, pipeline.HostName()+":"+filepath.Join(e.dir, b.Run)))
}

// Run implements [pipeline.Events].
func (e *endEvents) Run(ctx context.Context) error { return e.sender.Run(ctx) }

// newWebhookBucket returns the bucket of webhooks of a bus.
func newWebhookBucket(link *busconn.Connection) webhook.Bucket { return bus.New(link.JS).Webhooks }

// runOnEnd runs the command at the end of a run, if there is one, until it is done or ctx, of
// untilSignals, ends. A failure is a warning.
func (c *activeCommand) runOnEnd(ctx context.Context, command *onend.Command, m proto.Manifest) {
	c.runOnEndFor(ctx, command, m, webhook.NewRunEvent(m))
}

// runOnEndFor is runOnEnd with the event of the run.
func (c *activeCommand) runOnEndFor(ctx context.Context, command *onend.Command, m proto.Manifest, e webhook.Event) {
	if command == nil || !m.State.Ended() {
		return
	}

	c.doing.Store(new("ending the command of --on-end"))
	command.Print = c.printOnEnd
	if err := command.Run(ctx, e); err != nil {
		c.log.Warn().Err(err).Str("run", m.Run).Msg("the command of --on-end has failed; the run is as it was")
	}
}

// runOnEndOf is runOnEnd for a run that this process has written.
func (c *activeCommand) runOnEndOf(ctx context.Context, command *onend.Command, res *pipeline.Result) {
	m := *res.Metadata.Manifest
	m.State, m.Output = res.Metadata.Status, pipeline.HostName()+":"+string(res.Output)

	e := webhook.NewRunEvent(m)
	for _, table := range res.Metadata.Test.Tables {
		e.Run.Tables = append(e.Run.Tables, pipeline.HostName()+":"+res.Output.Beside(table.File))
	}

	c.runOnEndFor(ctx, command, m, e)
}

// printOnEnd prints a line of the command at the end of a run.
func (c *activeCommand) printOnEnd(line string) { c.screen.Printf("--on-end: %s", line) }
