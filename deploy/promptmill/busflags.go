package main

import (
	"path/filepath"
	"regexp"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/cmdline"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/secretfile"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// busFlags returns the flags of commands that use a bus.
func busFlags() []cli.Flag { return namedBusFlags("PROMPTMILL_NATS", "NATS_URL") }

// ownBusFlags returns the flags of commands that start a bus unless one is named. NATS_URL,
// which may be set for other programs, does not name one.
func ownBusFlags() []cli.Flag { return namedBusFlags("PROMPTMILL_NATS") }

// noteUnusedURL prints that NATS_URL is not used, if it is set.
func noteUnusedURL(env environment, o busconn.Options, screen *terminal.Screen) {
	if env.getenv("NATS_URL") != "" && !o.External() {
		screen.Printf("NATS_URL is set, but %s uses its own bus; give --nats URL to use that one", o.Command)
	}
}

// namedBusFlags returns the flags of a bus. The names are the environment variables of the flag for
// a NATS server.
func namedBusFlags(names ...string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:     "join",
			Category: groupBus,
			Usage:    "`STRING`: join string that promptmill serve, run --listen or join prints",
		},
		&cli.StringFlag{
			Name:     "join-file",
			Category: groupBus,
			Usage:    "`FILE`: file with the join string, which is read again when the bus is lost",
		},
		contextFlag(),
		&cli.StringFlag{
			Name:     "nats",
			Category: groupBus,
			Usage:    "`URL`: NATS server to use as the bus; several are separated by commas",
			Sources:  cli.EnvVars(names...),
		},
		&cli.StringFlag{
			Name:     "nats-creds",
			Category: groupBus,
			Usage:    "`FILE`: credentials for the NATS server",
			Sources:  cli.EnvVars("PROMPTMILL_NATS_CREDS", "NATS_CREDS"),
		},
		&cli.StringFlag{
			Name:     "nats-user",
			Category: groupBus,
			Usage:    "`USER`: user name at the NATS server; give its password as NATS_PASSWORD, not as USER:PASSWORD",
			Sources:  cli.EnvVars("PROMPTMILL_NATS_USER", "NATS_USER"),
		},
		&cli.StringFlag{
			Name:     "nats-password-file",
			Category: groupBus,
			Usage:    "`FILE`: password of that user; it takes precedence over NATS_PASSWORD",
			Sources:  cli.EnvVars("PROMPTMILL_NATS_PASSWORD_FILE", "NATS_PASSWORD_FILE"),
		},
		&cli.StringFlag{
			Name:     "tls-ca",
			Category: groupBus,
			Usage:    "`FILE`: certificates to trust for the bus; --model-ca is for model servers",
		},
		&cli.StringFlag{
			Name:     "tls-cert",
			Category: groupBus,
			Usage:    "`FILE`: client certificate for the bus",
		},
		&cli.StringFlag{
			Name:        "tls-key",
			Category:    groupBus,
			Usage:       "`FILE`: key of the client certificate",
			DefaultText: "the file of --tls-cert",
		},
		stateFlag(),
		verboseFlag(),
	}
}

// verboseFlag is the flag of commands with a log.
func verboseFlag() cli.Flag {
	return &cli.BoolFlag{
		Name:     "verbose",
		Category: groupGeneral,
		Aliases:  []string{"v"},
		Usage:    "log more details",
	}
}

// stateFlag is the flag of commands that keep state on this machine.
func stateFlag() cli.Flag {
	return &cli.StringFlag{
		Name:        "state",
		Category:    groupGeneral,
		Usage:       "`DIR`: folder for the state of promptmill on this machine",
		DefaultText: "$XDG_STATE_HOME/promptmill",
	}
}

// advertiseFlag is the flag of commands that print or start a bus for other boxes.
func advertiseFlag() cli.Flag {
	return &cli.StringFlag{
		Name:        "advertise",
		Category:    groupBus,
		Usage:       "`HOST[:PORT]`: address of this box as other boxes see it",
		DefaultText: "all addresses of this box",
	}
}

// advertised matches HOST or HOST:PORT. An IPv6 address may have brackets.
var advertised = regexp.MustCompile(`^([A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?|[0-9A-Fa-f:.]+)$`)

// checkAdvertise refuses the value of --advertise if no other box could connect to it.
func checkAdvertise(address string) error {
	if address == "" || advertised.MatchString(address) {
		return nil
	}
	return exit.Usage("for example --advertise head.example or --advertise head.example:4333",
		"--advertise %s: want the name or address of this box, and perhaps a port", address)
}

// replicasFlag is the flag of commands that create streams on a NATS server.
func replicasFlag() cli.Flag {
	return &cli.IntFlag{
		Name:     "replicas",
		Category: groupBus,
		Value:    1,
		Usage:    "`N`: copies of each stream, on a cluster of NATS servers",
	}
}

// stateOf returns the state folder of a command.
func stateOf(env environment, c *cli.Command) (string, error) {
	state := c.String("state")
	if state == "" {
		return statedir.Default(env.getenv)
	}

	state, err := filepath.Abs(state)
	if err != nil {
		return "", err
	}

	return state, checkFolder("--state", state)
}

// parseConnect reads the flags of the bus, and the context that they name or that is selected. Connecting
// checks them.
func parseConnect(env environment, c *cli.Command) busconn.Options {
	o := parseNamedBus(env, c)
	applyContext(env, c, &o)

	if (o.Joins() || o.URL == "") && !cmdline.IsTyped(c, "replicas") {
		o.Replicas = 0 // a variable may be set for another command
	}

	return o
}

// parseNamedBus reads the flags that name a bus other than by a context.
func parseNamedBus(env environment, c *cli.Command) busconn.Options {
	state, _ := stateOf(env, c) // needed only if no bus is named; ConnectAll returns the error then
	o := busconn.Options{
		Join:        c.String("join"),
		URL:         c.String("nats"),
		User:        c.String("nats-user"),
		Password:    env.getenv("NATS_PASSWORD"),
		Credentials: c.String("nats-creds"),
		CA:          c.String("tls-ca"),
		Certificate: c.String("tls-cert"),
		Key:         c.String("tls-key"),
		Replicas:    c.Int("replicas"), // 0 where the command has no such flag
		State:       state,
		Command:     strings.TrimPrefix(cmdline.NameOf(c), c.Root().Name+" "),
	}
	if path := c.String("join-file"); path != "" {
		o.JoinFile = secretfile.New("--join-file", path)
	}
	if path := c.String("nats-password-file"); path != "" {
		o.PasswordFile = secretfile.New("--nats-password-file", path)
	}

	if env.getenv("PROMPTMILL_NATS") == "" && o.URL == env.getenv("NATS_URL") && !cmdline.IsTyped(c, "nats") {
		o.URLVariable = "NATS_URL"
	}

	return o
}
