package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/cmdline"
)

// realRun makes the command that runs the whole input of a trial with one of its variants.
type realRun struct {
	inputs []string // as they were named
	words  []string // flags of the trial that a run has too
}

// usualPort stands for {port} in the command of a real run.
const usualPort = "8000"

// command returns the words of the command with a variant.
func (r realRun) command(v trial.Variant) []string {
	words := append([]string{"promptmill", "run"}, r.inputs...)
	if v.Command != "" {
		words = append(words, "--exec", strings.ReplaceAll(v.Command, "{port}", usualPort))
		if v.Command != strings.ReplaceAll(v.Command, "{port}", usualPort) {
			words = append(words, "--url", "http://127.0.0.1:"+usualPort)
		}
	} else {
		words = append(words, "--url", v.URL)
	}

	if v.Run != nil && v.Run.Manifest != nil && v.Run.Manifest.Settings.OverrideModel != "" {
		words = append(words, "--override-model", v.Run.Manifest.Settings.OverrideModel)
	}

	return append(words, r.words...)
}

// notShared are flags of a trial that a run does not have, or has with another meaning, and those that are a secret.
var notShared = append([]string{
	"model", "exec", "url", "sample", "retry", "output", "progress", "json", "dry-run", "verbose", "help", "api-key", "state",
}, namesOf(trialFlags())...)

// sharedWords returns the flags of the command line that the real run needs too.
func sharedWords(c *cli.Command) (words []string) {
	skip := map[string]bool{}
	for _, name := range notShared {
		skip[name] = true
	}

	hasPrice := slices.ContainsFunc(priceFlags, func(name string) bool {
		return !skip[name] && cmdline.IsTyped(c, name)
	})
	skip["currency"] = !hasPrice // which a run refuses alone

	for _, f := range c.Flags {
		name := f.Names()[0]
		if skip[name] || !cmdline.IsTyped(c, name) {
			continue
		}

		switch value := c.Value(name).(type) {
		case bool:
			words = append(words, fmt.Sprintf("--%s=%t", name, value))
		case []string:
			for _, text := range value {
				words = append(words, "--"+name, text)
			}
		default:
			words = append(words, "--"+name, fmt.Sprint(value))
		}
	}

	return words
}
