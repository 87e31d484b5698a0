// Package variants makes the variants of a trial from what a person gives for them: models, commands with
// placeholders, values for these, and addresses of servers that run already.
//
// [Grid.Specs] has one variant for each command, model and combination of values, and one for each server. Their names
// are short: they have what differs, "gemma-3-4b-it seqs=64", and not what all have in common.
package variants

import (
	"fmt"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/cmdline"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/sweep"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// Most is the largest number of variants of a trial. With ten minutes each, they take more than a day.
const Most = 200

// The placeholders of commands that are no names of values: the model, and a free port, which the trial fills in as it
// starts the server.
const (
	modelName = "model"
	portName  = "port"
)

// Grid is what the variants of a trial are made of.
type Grid struct {
	// Models are the models to try. Required if a command has {model}. Servers are asked for each of them, unless a
	// command has {model}: then each has one model of its own.
	Models []string
	// Commands start servers, see [modelservers.Template].
	Commands []string
	// Axes are the values of placeholders. A command has the combinations of those that it has placeholders for.
	Axes []Axis
	// Servers run already. Required without Commands.
	Servers []Server
	// SideBySide starts the servers of all commands at once.
	SideBySide bool
	// Prices are prices of an hour.
	Prices []Price
}

// Axis is a placeholder of commands with its values.
type Axis struct {
	Name   string
	Values []string
}

// Server is a server that runs already.
type Server struct {
	// Name names it for people. Defaults to the host and port of its URL.
	Name string
	// URL is where it answers. Required.
	URL string
}

// candidate is a variant with the names that its price may be given for, besides its own.
type candidate struct {
	spec  sweep.Spec
	names []string
}

// Specs returns the variants, those of commands first, in the order of the commands, models and values. The error is a
// wrong usage of the flags that the grid was made of.
func (g Grid) Specs() (sweep.List, error) {
	templates, err := g.checkCommands()
	if err != nil {
		return nil, err
	}

	if err := g.checkModels(templates); err != nil {
		return nil, err
	}

	if err := g.checkAxes(templates); err != nil {
		return nil, err
	}

	if err := g.checkCount(templates); err != nil {
		return nil, err
	}

	var list []candidate
	for i, t := range templates {
		started, err := g.startedBy(t, nameCommand(templates, i))
		if err != nil {
			return nil, err
		}
		list = append(list, started...)
	}

	list = append(list, g.running(templates)...)
	if err := checkNames(list); err != nil {
		return nil, err
	}

	return setPrices(list, g.Prices)
}

// checkCommands reads the commands.
func (g Grid) checkCommands() (templates []*modelservers.Template, err error) {
	if len(g.Commands)+len(g.Servers) == 0 {
		return nil, exit.Usage(`for example --exec "vllm serve {model} --port {port}", or --url http://gpu1:8000`,
			"neither --exec nor --url says which servers to try")
	}

	for i, command := range g.Commands {
		if slices.Contains(g.Commands[:i], command) {
			return nil, exit.Usage("leave out one of them", "--exec has the same command twice: %s", command)
		}

		t, err := modelservers.ParseTemplate(command)
		if err != nil {
			return nil, exit.Usage(`for example --exec "vllm serve {model} --port {port}"`, "--exec: %w", err)
		}
		templates = append(templates, t)
	}

	return templates, nil
}

// checkModels refuses models that no server would have.
func (g Grid) checkModels(templates []*modelservers.Template) error {
	for i, model := range g.Models {
		switch {
		case strings.TrimSpace(model) == "":
			return exit.Usage("give --model NAME, or leave it out", "--model names no model")
		case slices.Contains(g.Models[:i], model):
			return exit.Usage("leave out one of them", "--model %s is given twice", report.ShellWords(model))
		}
	}

	for i, t := range templates {
		switch {
		case t.Has(modelName) && len(g.Models) == 0:
			return exit.Usage("give --model NAME, once for each model to try", "--exec has {model}, and there is no --model")
		case !t.Has(modelName) && len(g.Models) > 1:
			return exit.Usage("write {model} where the command names its model",
				"there are %d --model, and --exec has no {model}: %s", len(g.Models), g.Commands[i])
		}
	}

	return nil
}

// checkAxes refuses placeholders without values, and values without placeholders.
func (g Grid) checkAxes(templates []*modelservers.Template) error {
	var known, used []string
	for _, a := range g.Axes {
		known = append(known, a.Name)
	}

	for _, t := range templates {
		used = append(used, t.Names()...)
	}

	for _, name := range used {
		if slices.Contains([]string{modelName, portName}, name) || slices.Contains(known, name) {
			continue
		}

		hint := fmt.Sprintf("give its values, for example --vary %s=64,256; for the braces themselves, write {{%s}}", name, name)
		if meant := cmdline.Suggest(name, append([]string{modelName, portName}, known...)); meant != "" {
			hint = "did you mean {" + meant + "}?"
		}

		return exit.Usage(hint, "--exec has {%s}, and no --vary has values for it", name)
	}

	for _, name := range known {
		if !slices.Contains(used, name) {
			return exit.Usage("write {"+name+"} where the command has this value, or leave out --vary "+name,
				"--vary %s has no effect: no --exec has {%s}", name, name)
		}
	}

	return nil
}

// checkCount refuses more variants than anyone waits for, and several at once that cannot run at once.
func (g Grid) checkCount(templates []*modelservers.Template) error {
	started := 0
	for _, t := range templates {
		n := max(1, len(g.Models))
		for _, a := range g.axesOf(t) {
			if n *= len(a.Values); n > Most { // before it overflows
				break
			}
		}
		started += n
	}

	if all := started + len(g.Servers)*len(g.modelsOfServers(templates)); all > Most {
		return exit.Usage("try fewer values first, and then those around the best",
			"there are more than %d variants", Most)
	}

	for i, t := range templates {
		if g.SideBySide && started > 1 && !t.Has(portName) {
			return exit.Usage("write {port} where the command names its port",
				"--side-by-side starts %d servers at once, and they would have one port: %s", started, g.Commands[i])
		}
	}

	return nil
}

// axesOf returns the axes that a command has placeholders for.
func (g Grid) axesOf(t *modelservers.Template) (axes []Axis) {
	for _, a := range g.Axes {
		if t.Has(a.Name) {
			axes = append(axes, a)
		}
	}
	return axes
}

// startedBy returns the variants of a command. program is empty if there is no other command.
func (g Grid) startedBy(t *modelservers.Template, program string) (list []candidate, err error) {
	models := g.Models
	if len(models) == 0 {
		models = []string{""}
	}

	short := shorten(models)
	for i, model := range models {
		for _, settings := range combine(g.axesOf(t)) {
			values := map[string]string{modelName: model}
			for _, s := range settings {
				values[s.Name] = s.Value
			}

			command, err := t.Fill(values)
			if err != nil {
				return nil, exit.Usage("", "--exec: %w", err)
			}

			words := []string{program}
			if len(models) > 1 {
				words = append(words, short[i])
			}

			list = append(list, candidate{
				spec: sweep.Spec{
					Name:     joinName(append(words, g.nameSettings(settings)...), short[i], t.Program(), "exec"),
					Model:    model,
					Settings: settings,
					Command:  command,
				},
				names: []string{program, model, short[i]},
			})
		}
	}

	return list, nil
}

// modelsOfServers returns the models that servers are asked for; an empty one is the only one of a server.
func (g Grid) modelsOfServers(templates []*modelservers.Template) []string {
	hasModel := func(t *modelservers.Template) bool { return t.Has(modelName) }
	if len(g.Models) == 0 || slices.ContainsFunc(templates, hasModel) {
		return []string{""}
	}
	return g.Models
}

// running returns the variants of the servers that run already.
func (g Grid) running(templates []*modelservers.Template) (list []candidate) {
	models := g.modelsOfServers(templates)
	short := shorten(models)
	for _, s := range nameServers(g.Servers) {
		for i, model := range models {
			words := []string{s.Name}
			if len(models) > 1 {
				words = append(words, short[i])
			}

			list = append(list, candidate{
				spec: sweep.Spec{
					Name:  joinName(words),
					Model: model,
					URL:   s.URL,
				},
				names: []string{s.Name, model, short[i]},
			})
		}
	}

	return list
}

// combine returns all combinations of values, of which the last axis changes first.
func combine(axes []Axis) [][]trial.Setting {
	all := [][]trial.Setting{nil}
	for _, a := range axes {
		var longer [][]trial.Setting
		for _, settings := range all {
			for _, value := range a.Values {
				longer = append(longer, append(slices.Clone(settings), trial.Setting{Name: a.Name, Value: value}))
			}
		}
		all = longer
	}

	return all
}

// checkNames refuses variants that have one name.
func checkNames(list []candidate) error {
	var names []string
	for _, c := range list {
		if slices.Contains(names, c.spec.Name) {
			return exit.Usage("give the servers names of their own: --url NAME=URL", "two variants have the name %s",
				report.ShellWords(c.spec.Name))
		}
		names = append(names, c.spec.Name)
	}

	return nil
}

// listNames lists the names of some variants for a hint.
func listNames(list []candidate) string {
	var names []string
	for _, c := range list {
		names = append(names, report.ShellWords(c.spec.Name))
	}
	return terminal.JoinFew(names, 6)
}
