package main

import (
	"context"
	"slices"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/history"
	"github.com/promptmill/promptmill/deploy/cmdline"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// completionTime is the time limit of the runs on a bus for the completion of a shell: a person waits
// for it at each Tab.
const completionTime = 300 * time.Millisecond

// completionValues are the values that shells complete, by the names that flags and arguments have in
// the help.
func completionValues(env environment) map[string]cmdline.Values {
	return map[string]cmdline.Values{
		"MODE":          fixedValues("auto", "bar", "plain", "json", "none"),
		"FORMAT":        fixedValues("md", "html", "json"),
		"ENCODING":      fixedValues(string(proto.Snappy), string(proto.Zstd), string(proto.Plain)),
		"GOAL":          fixedValues(goals...),
		"HOW":           fixedValues(matches...),
		"TYPE":          fixedValues(proto.TableFormats...),
		"ENDPOINT":      fixedValues(proto.Endpoints...),
		"ENCODING-NAME": fixedValues(commonEncodings...),
		"FLAVOUR":       fixedValues(flavourNames()...),
		"NAME=RATE,...": func(context.Context, *cli.Command) []string { return faultNames() },
		"RUN": func(ctx context.Context, c *cli.Command) []string {
			return withinTime(ctx, func(ctx context.Context) []string { return runsOnBus(ctx, env, c) })
		},
		"SOURCE": fixedValues("auto", "none", "aws", "gcp", "azure", "file:", "SIGUSR1", "SIGUSR2"),
		"ROLE":   fixedValues("worker", "producer", "collector", "reader"),
		"BOX":    func(_ context.Context, c *cli.Command) []string { return joinsOfState(env, c) },
		"KEY":    func(_ context.Context, c *cli.Command) []string { return keysOfFile(env, c) },
		"EVENT": func(ctx context.Context, c *cli.Command) []string {
			return withinTime(ctx, func(ctx context.Context) []string { return eventsOnBus(ctx, env, c) })
		},
		"CONTEXT": func(context.Context, *cli.Command) []string { return namesOfContexts(env) },
		"META":    func(_ context.Context, c *cli.Command) []string { return runsOfHistory(env, c) },
	}
}

// commonEncodings are encodings of tables that --encoding is given for.
var commonEncodings = []string{
	"utf-16le", "utf-16be", "windows-1250", "windows-1251", "windows-1252", "iso-8859-2", "iso-8859-15", "shift_jis",
	"euc-jp", "euc-kr", "gbk", "gb18030", "big5",
}

// fixedValues are values that are always the same.
func fixedValues(list ...string) cmdline.Values {
	return func(context.Context, *cli.Command) []string { return list }
}

// faultNames are the faults of the simulator, each before its rate.
func faultNames() []string {
	names := []string{"all="}
	for _, name := range sim.FaultNames {
		names = append(names, name+"=")
	}
	return names
}

// maxPastRuns is how many runs of the history a shell offers: more would fill the terminal.
const maxPastRuns = 30

// runsOfHistory are the ids and labels of the latest runs that have ended on this machine, the last one
// first.
func runsOfHistory(env environment, c *cli.Command) (list []string) {
	state, err := stateOf(env, c)
	if err != nil {
		return nil
	}

	known, _ := history.Load(state) // a damaged history completes nothing
	for _, e := range slices.Backward(known[max(0, len(known)-maxPastRuns):]) {
		list = append(list, e.TestID+"\t"+proto.Printable(e.Model+" "+e.InputFile))
		if e.Label != "" {
			list = append(list, proto.Printable(e.Label)+"\t"+e.TestID)
		}
	}

	return list
}

// runsOnBus are the ids and labels of the runs on the bus that the flags name, or on this machine's.
func runsOnBus(ctx context.Context, env environment, c *cli.Command) (list []string) {
	sessions, err := openSessions(ctx, env, parseBus(env, c), proto.RoleReader)
	if err != nil {
		return nil
	}
	defer closeSessions(sessions)

	for _, s := range sessions {
		runs, _ := s.Runs.List(ctx)
		for _, m := range runs {
			list = append(list, m.Run+"\t"+proto.Printable(string(m.State)+" "+m.Label))
			if m.Label != "" {
				list = append(list, proto.Printable(m.Label)+"\t"+m.Run)
			}
		}
	}

	return list
}

// withinTime returns the values of a source, or none if it takes too long. It leaves the source behind,
// since connecting to a bus has a time limit of its own; the process ends with the answer.
func withinTime(ctx context.Context, source func(context.Context) []string) []string {
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()

	values := make(chan []string, 1)
	go func() { values <- source(ctx) }()

	select {
	case list := <-values:
		return list
	case <-ctx.Done():
		return nil
	}
}
