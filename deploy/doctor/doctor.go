// Package doctor checks the needs of a run: the bus with its streams and consumers, the model
// servers, the disks, the clock, the limit of open files and the GPUs.
//
// [Examine] runs all checks at once, each with a timeout, and reports a [Finding] for each thing
// that it has checked: its status, the details, and a fix where there is something to do. A check
// changes nothing, except for one small request to each model server.
package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

// Options are the options of Examine.
type Options struct {
	// Bus is the bus to check. Without a name it is each bus of this machine or, if there is none,
	// a bus that run would start.
	Bus busconn.Options
	// Servers are the model servers to check. Without URLs, the servers of this machine.
	Servers modelservers.Config
	// Model is the model to ask. Defaults to one that the server has.
	Model string
	// State is the state folder. Required.
	State string
	// Output is the path of a future output. Defaults to the working directory.
	Output string
	// Inputs are the files that the free space must suffice for. Defaults to a run's reserve.
	Inputs []string
	// Settings say how requests are made of Inputs. With Settings.Rows, each row makes one.
	Settings proto.Settings
	// Opener opens the inputs. Required with Inputs.
	Opener inputfile.Opener
	// Concurrency is the number of requests at once at each model server. Required.
	Concurrency int
	// ShardBytes is the most text in a shard, in bytes. Required.
	ShardBytes int64
	// Version is the version of promptmill.
	Version string
	// Log gets the log of the parts.
	Log zerolog.Logger
}

// Examine runs all checks at once and reports their findings in the order of the checks. It returns
// an error only if ctx ends before the last check.
func Examine(ctx context.Context, o Options, report func(Finding)) (Diagnosis, error) {
	return runChecks(ctx, o.checks(), report)
}

// checks returns the checks in the order of the output.
func (o Options) checks() []check {
	list := []check{
		{"versions", time.Second, func(context.Context) []Finding { return []Finding{checkVersions(o.Version)} }},
		{"bus", 30 * time.Second, func(ctx context.Context) []Finding { return checkBuses(ctx, o) }},
	}

	for _, url := range o.Servers.URLs {
		list = append(list, check{"model server", modelTimeout, func(ctx context.Context) []Finding {
			return checkNamedServer(ctx, o.Servers, url, o.Model)
		}})
	}

	if len(o.Servers.URLs) == 0 {
		list = append(list, check{"model server", modelTimeout, func(ctx context.Context) []Finding {
			return checkLocalServers(ctx, o.Servers.APIKey, o.Model, o.Servers.Options())
		}})
	}

	requests := o.Concurrency * max(1, len(o.Servers.URLs))

	return append(list,
		check{"disk", 15 * time.Second, func(ctx context.Context) []Finding {
			return o.checkDisks(ctx)
		}},
		check{"open files", time.Second, func(context.Context) []Finding {
			return []Finding{checkOpenFiles(requests)}
		}},
		check{"GPU", 10 * time.Second, func(ctx context.Context) []Finding { return []Finding{checkGPUs(ctx)} }},
	)
}

// runChecks runs checks at once and reports their findings in the order of the checks.
func runChecks(ctx context.Context, checks []check, report func(Finding)) (Diagnosis, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	var results []<-chan []Finding
	for _, c := range checks {
		results = append(results, c.start(ctx))
	}

	d := Diagnosis{SchemaVersion: 1}
	for _, result := range results {
		var found []Finding
		select {
		case found = <-result:
		case <-ctx.Done():
		}

		if ctx.Err() != nil { // also where a check has only noticed that
			return d, context.Cause(ctx)
		}

		d.Checks = append(d.Checks, found...)
		for _, f := range found {
			report(f)
		}
	}

	d.OK = d.Count(StatusFail) == 0

	return d, nil
}

// check is one thing to check. A run that exceeds its timeout is not waited for: a disk or a driver
// that hangs ignores its context.
type check struct {
	name    string
	timeout time.Duration
	run     func(context.Context) []Finding
}

// checkGrace is the time that a check has to report that its timeout was too short.
const checkGrace = time.Second

// start starts a check. Its findings arrive within its timeout and checkGrace.
func (c check) start(ctx context.Context) <-chan []Finding {
	result, done := make(chan []Finding, 1), make(chan []Finding, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		done <- c.run(ctx)
	}()

	go func() {
		late := time.NewTimer(c.timeout + checkGrace)
		defer late.Stop()

		select {
		case found := <-done:
			result <- found
		case <-late.C:
			result <- []Finding{{
				Name:   c.name,
				Status: StatusFail,
				Detail: fmt.Sprintf("it hangs: no answer within %s", c.timeout),
				Fix:    "look at the log of the system; a disk, a network file system or a driver may be stuck",
			}}
		case <-ctx.Done():
		}
	}()

	return result
}

// checkBuses checks the named bus, or all of this machine, or starts one as run does.
func checkBuses(ctx context.Context, o Options) []Finding {
	role := proto.RoleCollector // it sees the most
	if o.Bus.External() {
		role = proto.RoleReader // any join string covers it
	}

	links, err := busconn.ConnectAll(o.Bus, role, o.Log)
	switch {
	case err == nil:
	case o.Bus.External():
		return []Finding{failedFinding("bus", err)}
	default:
		return []Finding{
			{
				Name:   "bus",
				Status: StatusWarn,
				Detail: err.Error(),
				Fix:    "promptmill run starts its own; to share one, promptmill serve starts it, and --join or --nats names another",
			},
			checkOwnBus(ctx, o.State),
		}
	}

	var list []Finding
	for _, l := range links {
		list = append(list, checkBus(ctx, l, roleOnBus(o.Bus, role), 2*o.ShardBytes)...)
		l.Close()
	}

	return list
}

// roleOnBus returns the role that a command has on its bus, or an empty one if it is unknown.
func roleOnBus(o busconn.Options, local proto.Role) proto.Role {
	switch {
	case o.Joins():
		j, _ := o.ParseJoin() // ConnectAll has parsed it
		return j.Role
	case o.External():
		return ""
	}

	return local
}
