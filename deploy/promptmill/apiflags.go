package main

import (
	"context"
	"net/http"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/httpserver"
	"github.com/promptmill/promptmill/deploy/pipeline"
)

// apiFlags returns the flags of the batch API.
func apiFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:     "api",
			Category: groupAPI,
			Usage:    "`[HOST:]PORT`: address for clients of OpenAI's batch API; without a host, only this machine can connect",
		},
	}
}

// apiOptions are the flags of the batch API.
type apiOptions struct {
	// address is HOST:PORT. Empty: there is no batch API.
	address string
}

// enabled reports whether there is a batch API.
func (o apiOptions) enabled() bool { return o.address != "" }

// parseAPI reads and checks the flags of the batch API.
func parseAPI(c *cli.Command) (o apiOptions, err error) {
	address := c.String("api")
	if address == "" {
		return o, nil
	}

	if o.address, err = httpserver.ParseAddress(address); err != nil {
		return o, exit.Usage("for example --api 8080 or --api 0.0.0.0:8080", "--api %s: %w", address, err)
	}

	return o, nil
}

// door is the batch API of a serve.
type door struct {
	*httpserver.Server

	cmd *activeCommand
	cfg pipeline.ServeConfig
}

// openAPI listens for clients of the batch API.
func openAPI(cmd *activeCommand, cfg pipeline.ServeConfig, o apiOptions) (*door, error) {
	server, err := httpserver.Listen(httpserver.Config{
		Address: o.address,
		Flag:    "--api",
		Log:     cmd.log.With().Str("part", "api").Logger(),
	})
	if err != nil {
		return nil, err
	}

	return &door{server, cmd, cfg}, nil
}

// serve serves the batch API on a bus until ctx ends.
func (d *door) serve(ctx context.Context, link *busconn.Connection) error {
	d.cmd.screen.Printf("batch API on http://%s/v1", d.Addr())
	return d.Run(ctx, http.NotFoundHandler())
}
