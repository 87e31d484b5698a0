package progress

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/sim"
)

// Start describes a run as a process begins to work for it. It is the first object of --progress
// json, whose names are stable. A null value is unknown.
type Start struct {
	// Type is "start".
	Type string `json:"type"`
	Time string `json:"time"`
	// Command is "run" or "collect".
	Command string `json:"command"`
	Run     string `json:"run"`
	// Label is the label of the run. Empty if it has none.
	Label string `json:"label"`
	// Input is the name of the input, for people.
	Input string `json:"input"`
	// Models are the models that requests name.
	Models []string `json:"models"`
	// ContextLength is the number of tokens that a request and its answer may have together, where
	// the run has one model and the server reports it.
	ContextLength *int `json:"context_length"`

	// Resumed is set if an earlier process has begun the run.
	Resumed bool `json:"resumed"`
	// Total is the number of requests, Durable the ones that have their line, and OnBus the ones
	// that have none and whose results are on the bus.
	Total   int `json:"total"`
	Durable int `json:"durable"`
	OnBus   int `json:"on_bus"`

	// Server describes the model servers of this process. Nil if only others have some.
	Server *StartServer `json:"server"`
	Bus    StartBus     `json:"bus"`

	// FailIf and MaxTokens are the limits that stop the run. MaxTokens is null if there is none.
	FailIf    []proto.Threshold `json:"fail_if"`
	MaxTokens *int64            `json:"max_tokens"`

	// Results is the path of the answers at the end, and Journal that of the ones so far.
	Results string `json:"results"`
	Journal string `json:"journal"`
	// Tables are the paths of the files of the table at the end. Empty if there is none.
	Tables []string `json:"tables"`
}

// StartServer describes the model servers of a process at the start of a run.
type StartServer struct {
	URLs []string `json:"urls"`
	// Simulated is set if the server is a simulated one of this process.
	Simulated bool `json:"simulated"`
	// Flavour and Version are empty if they are unknown, or if several servers differ.
	Flavour string `json:"flavour"`
	Version string `json:"version"`
	// Slots is the number of requests that the server runs at once, if it reports that.
	Slots *int `json:"slots"`
	// Concurrency is the number of requests in flight at each server. Null if the worker finds it.
	Concurrency *int `json:"concurrency"`
}

// StartBus describes the bus of a run at its start.
type StartBus struct {
	// Own is set if the bus is in this process.
	Own bool `json:"own"`
	// Shared is set if other processes may work for the run over it.
	Shared bool `json:"shared"`
	// Address is its listen address, HOST:PORT.
	Address string `json:"address"`
	// Version is the version of its NATS server.
	Version string `json:"version"`
}

// NewStart returns the description of a run without its servers and bus. command is "run" or
// "collect".
func NewStart(command string, m proto.Manifest, out output.Prefix, durable int) Start {
	models := slices.DeleteFunc(m.Models(), func(model string) bool { return model == "" })
	failIf := append([]proto.Threshold{}, m.Policy.FailIf...)

	var maxTokens *int64
	if m.Policy.MaxTokens > 0 {
		maxTokens = &m.Policy.MaxTokens
	}

	return Start{
		Type:    "start",
		Time:    time.Now().UTC().Format(time.RFC3339),
		Command: command,
		Run:     m.Run,
		Label:   m.Label,
		Input:   m.Input.Name(),
		Models:  models,
		Total:   m.Input.Requests,
		Durable: durable,
		Results: out.Results(),
		Journal: out.Journal(),
		Tables:  []string{},

		FailIf:    failIf,
		MaxTokens: maxTokens,
	}
}

// SetServer sets the servers of this process. concurrency is 0 if the workers find it.
func (v *Start) SetServer(urls []string, simulated bool, info modelserver.Info, concurrency int) {
	v.Server = &StartServer{
		URLs:      urls,
		Simulated: simulated,
		Flavour:   sim.NameKind(info.Flavour, info.Version),
		Version:   info.Version,
	}
	if info.Slots > 0 {
		v.Server.Slots = &info.Slots
	}
	if concurrency > 0 {
		v.Server.Concurrency = &concurrency
	}

	for _, model := range info.Models {
		if len(v.Models) == 1 && model.ID == v.Models[0] && model.ContextLength > 0 {
			v.ContextLength = new(model.ContextLength)
		}
	}
}

// Lines returns the description for people.
func (v Start) Lines() []terminal.Line {
	lines := []terminal.Line{terminal.NewLine(v.formatHeadline())}
	add := func(label, text string, whole bool) {
		if text != "" {
			lines = append(lines, terminal.Line{
				{Text: fmt.Sprintf("  %-10s", label), Colour: terminal.Dim},
				{Text: text, Whole: whole},
			})
		}
	}

	add("model", v.formatModels(), false)
	add("server", v.formatServer(), false)
	add("bus", v.Bus.format(), false)
	add("stops if", v.formatLimits(), false)
	add("table", formatTables(v.Tables), true)
	add("answers", files.Short(v.Results), true)
	add("read now", report.ShellWords("zstd", "-dc", files.Short(v.Journal)), true)

	return lines
}

// formatTables formats the paths of a table.
func formatTables(paths []string) string {
	if len(paths) == 0 {
		return ""
	}

	text := files.Short(paths[0])
	if n := len(paths) - 1; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}

	return text
}

// formatHeadline formats the run and its requests.
func (v Start) formatHeadline() string {
	run := proto.Manifest{Run: v.Run, Label: v.Label}.DisplayName()
	if !v.Resumed && v.Command == "run" {
		return fmt.Sprintf("run %s: %s from %s", run, terminal.CountOf(v.Total, "request"), v.Input)
	}

	verb := "collecting"
	if v.Command == "run" {
		verb = "resuming"
	}

	return fmt.Sprintf("%s run %s: %s", verb, run, FormatKept(v.Durable, v.Total, v.OnBus))
}

// FormatKept formats the requests that no stop costs: those with a line, and those with a result on
// the bus.
func FormatKept(durable, total, onBus int) string {
	text := fmt.Sprintf("%s of %s requests have their line", terminal.FormatCount(durable),
		terminal.FormatCount(total))
	if onBus > 0 {
		text += fmt.Sprintf(", %s more are on the bus", terminal.FormatCount(onBus))
	}

	return text
}

// formatLimits formats the limits that stop the run.
func (v Start) formatLimits() string {
	var list []string
	for _, t := range v.FailIf {
		list = append(list, t.String())
	}

	if v.MaxTokens != nil {
		list = append(list, "the run has used "+terminal.FormatCount(*v.MaxTokens)+" tokens")
	}

	return strings.Join(list, ", or ")
}

// formatModels formats the models of the requests.
func (v Start) formatModels() string {
	text := terminal.JoinFew(v.Models, 3)
	if v.ContextLength != nil && (v.Server == nil || !v.Server.Simulated) {
		text += fmt.Sprintf(", %s tokens of context", terminal.FormatCount(*v.ContextLength))
	}
	return text
}

// formatServer formats the model servers.
func (v Start) formatServer() string {
	s := v.Server
	switch {
	case s == nil && v.Command == "run":
		return "none here, waiting for workers"
	case s == nil:
		return ""
	}

	kind := strings.TrimSpace(s.Flavour + " " + s.Version)
	text := terminal.JoinFew(s.URLs, 3)
	switch {
	case s.Simulated:
		text = "simulated in this process"
	case kind != "":
		text = kind + " at " + text
	}

	slots := s.Slots != nil && !s.Simulated
	if slots {
		text += fmt.Sprintf(", %s slots", terminal.FormatCount(*s.Slots))
	}

	switch several := len(s.URLs) > 1; {
	case s.Concurrency == nil && slots:
	case s.Concurrency == nil && several:
		text += ", as many requests at once as each can use"
	case s.Concurrency == nil:
		text += ", as many requests at once as it can use"
	case several:
		text += fmt.Sprintf(", %s requests at once each", terminal.FormatCount(*s.Concurrency))
	default:
		text += fmt.Sprintf(", %s requests at once", terminal.FormatCount(*s.Concurrency))
	}

	return text
}

// format formats the bus.
func (b StartBus) format() string {
	switch {
	case b.Own && b.Shared:
		return "in this process, at " + b.Address
	case b.Own:
		return "in this process"
	}
	return fmt.Sprintf("NATS %s at %s", b.Version, b.Address)
}

// ShowStart shows the description of a run, before its samples.
func (d *Display) ShowStart(v Start) {
	switch d.screen.Mode() {
	case terminal.ModeNone:
	case terminal.ModeJSON:
		d.screen.WriteJSON(v)
	default:
		d.screen.Print(v.Lines()...)
	}
}
