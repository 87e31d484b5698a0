package cmdline_test

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/cmdline"
	"github.com/promptmill/promptmill/deploy/exit"
)

func ExamplePrepare() {
	newProgram := func() *cli.Command {
		app := &cli.Command{
			Name:  "boil",
			Usage: "boil things",
			Commands: []*cli.Command{{
				Name:      "egg",
				Usage:     "boil an egg",
				ArgsUsage: "EGG",
				Flags: []cli.Flag{
					&cli.DurationFlag{
						Name:     "time",
						Category: "Cooking",
						Value:    5 * time.Minute,
						Usage:    "`DURATION`: how long it stays in the water",
					},
				},
				Action: func(_ context.Context, c *cli.Command) error {
					fmt.Println(c.Args().First(), "is boiled for", c.Duration("time"))
					return nil
				},
			}},
		}

		cmdline.Prepare(app, cmdline.Rules{})

		return app
	}

	newProgram().Run(context.Background(), []string{"boil", "egg", "--help"})
	newProgram().Run(context.Background(), []string{"boil", "egg", "e1", "--time", "1d"})
	err := newProgram().Run(context.Background(), []string{"boil", "egg", "e1", "--tine", "3m"})
	fmt.Println(err)
	fmt.Println(exit.Hint(err))
	// Output:
	// boil egg: boil an egg
	//
	// Usage: boil egg [FLAGS] EGG
	//
	// Cooking:
	//       --time DURATION       how long it stays in the water (default: 5m)
	//
	// General:
	//   -h, --help                print this help
	//
	// Each flag is also an environment variable: --time is PROMPTMILL_TIME.
	// e1 is boiled for 24h0m0s
	// unknown flag --tine
	// did you mean --time? boil egg --help lists all flags
}
