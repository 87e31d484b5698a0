package main

import (
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/cmdline"
)

// flagRules returns how the flags of all commands depend on each other.
func flagRules() cmdline.Rules {
	return cmdline.Rules{
		Needs:      flagNeeds(),
		Exclusions: flagExclusions,
		NotEmpty:   []string{"run", "output"},
	}
}

// flagExclusions are the pairs of flags that exclude each other.
var flagExclusions = [][2]string{
	{"sim", "url"},
	{"sim", "exec"},
	{"model", "override-model"},
	{"prompt", "prompt-file"},
	{"limit", "sample"},
	{"concurrency", "max-concurrency"},
	{"listen", "nats"},
	{"listen", "join"},
	{"listen", "join-file"},
	{"join", "nats"},
	{"join-file", "nats"},
	{"join", "join-file"},
	{"api-key", "model-key-file"},
	{"context", "join"},
	{"context", "join-file"},
	{"context", "nats"},
	{"context", "listen"},
	{"api-tls", "api-cert"},
	{"own-only", "read-only"},
}

// flagNeeds returns the flags that do nothing without another one.
func flagNeeds() []cmdline.Need {
	return []cmdline.Need{
		{
			Flags: namesOf(simFlags()),
			Any:   []string{"sim"},
		},
		{
			Flags: []string{"nats-creds", "nats-user", "nats-password-file", "tls-ca", "tls-cert", "tls-key"},
			Any:   []string{"nats"},
		},
		{
			Flags:    []string{"advertise", "write-join"},
			Any:      []string{"listen"},
			Commands: []string{"run", "serve"},
		},
		{
			Flags: []string{"scale-within"},
			Any:   []string{"metrics", "api", "otlp"},
		},
		{
			Flags: apiFlagsAlone,
			Any:   []string{"api", "page"},
		},
		{
			Flags: []string{"otlp-traces"},
			Any:   []string{"otlp"},
		},
		{
			Flags: []string{"api-cert-key"},
			Any:   []string{"api-cert"},
		},
		{
			Flags: rowFlagsAlone,
			Any:   templateFlags,
		},
		{
			Flags:    []string{"set", "endpoint"}, // doctor checks no fields of lines
			Any:      templateFlags,
			Commands: []string{"doctor"},
		},
		{
			Flags: []string{"currency"},
			Any:   priceFlags,
		},
		{
			Flags: []string{"vary", "side-by-side", "tune"},
			Any:   []string{"exec"},
		},
		{
			Flags:    []string{"gpus"},
			Any:      []string{"exec"},
			Commands: []string{"run", "worker"},
		},
		{
			Flags: []string{"match"},
			Any:   []string{"expect"},
		},
		{
			Flags:    []string{"replicas"}, // a bus of a command is no cluster
			Any:      []string{"nats", "join", "join-file", "context"},
			Commands: []string{"run", "serve"},
		},
		{
			Flags:    []string{"webhook-secret-file"},
			Any:      []string{"webhook"},
			Commands: []string{"serve"},
		},
		{
			Flags:    []string{"on-end"}, // else the command does not see the end
			Any:      []string{"wait"},
			Commands: []string{"submit"},
		},
		{
			Flags:    []string{"keep", "priority"}, // the bus of run has no other run, and ends with it
			Any:      []string{"nats", "join", "join-file", "context"},
			Commands: []string{"run"},
		},
	}
}

// namesOf returns the names of flags.
func namesOf(flags []cli.Flag) (names []string) {
	for _, f := range flags {
		names = append(names, f.Names()...)
	}
	return names
}
