package main

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// wholeTextsFlag is a flag that is given several times, whose values may have commas, which
// [cli.StringSliceFlag] takes for the ends of values.
type wholeTextsFlag = cli.FlagBase[[]string, cli.NoConfig, wholeTexts]

// wholeTexts are the values of a wholeTextsFlag.
type wholeTexts struct{ texts *[]string }

// Create implements [cli.ValueCreator].
func (wholeTexts) Create(texts []string, to *[]string, _ cli.NoConfig) cli.Value {
	*to = slices.Clone(texts)
	return wholeTexts{to}
}

// ToString implements [cli.ValueCreator].
func (wholeTexts) ToString(texts []string) string { return strings.Join(texts, ", ") }

// Set implements [flag.Value].
func (t wholeTexts) Set(text string) error {
	*t.texts = append(*t.texts, text)
	return nil
}

// Get implements [flag.Getter].
func (t wholeTexts) Get() any { return *t.texts }

// String implements [flag.Value].
func (t wholeTexts) String() string {
	if t.texts == nil {
		return ""
	}
	return t.ToString(*t.texts)
}

// textsOf returns the values of a wholeTextsFlag. It has none in a command without the flag.
func textsOf(c *cli.Command, name string) []string {
	texts, _ := c.Value(name).([]string)
	return texts
}

// numberExamples are values of body fields that are numbers.
var numberExamples = map[string]string{
	"temperature":           "0.7",
	"top_p":                 "0.9",
	"top_k":                 "40",
	"min_p":                 "0.05",
	"n":                     "1",
	"seed":                  "1",
	"max_tokens":            "256",
	"max_completion_tokens": "256",
	"max_output_tokens":     "256",
	"presence_penalty":      "0.5",
	"frequency_penalty":     "0.5",
	"repetition_penalty":    "1.1",
}

// parseSet reads the values of --set, KEY=JSON each. With rows, a template in a value becomes JSON later.
func parseSet(values []string, rows bool) (map[string]string, error) {
	if len(values) == 0 {
		return nil, nil
	}

	set := map[string]string{}
	for _, text := range values {
		key, value, ok := strings.Cut(text, "=")
		_, again := set[key]

		switch {
		case !ok:
			return nil, exit.Usage("for example --set "+key+"="+exampleOf(key), "--set %s has no value", text)
		case key == "":
			return nil, exit.Usage("for example --set temperature=0", "--set %s names no field", text)
		case key == "model":
			return nil, exit.Usage("--override-model NAME sends all requests to one model, and --model NAME those without one",
				"--set cannot set the model")
		case key == "stream":
			return nil, exit.Usage("leave it out", "--set stream: a batch has one whole answer for each request")
		case again:
			return nil, exit.Usage("leave out one of them", "--set %s is there twice", key)
		case rows && strings.Contains(value, "{{"):
		case !jsontext.Value(value).IsValid():
			return nil, exit.Usage(hintForValue(key, value), "--set %s: %q is not JSON", text, value)
		}

		set[key] = strings.NewReplacer("\n", " ", "\r", " ").Replace(value)
	}

	return set, nil
}

// exampleOf returns an example of a value.
func exampleOf(key string) string {
	if number := numberExamples[key]; number != "" {
		return number
	}
	return "1"
}

// hintForValue returns the way to a value that is JSON.
func hintForValue(key, value string) string {
	switch {
	case numberExamples[key] != "":
		return "for example --set " + key + "=" + numberExamples[key]
	case value == "":
		return "a text that is empty is --set " + report.ShellWords(key+`=""`)
	case strings.ContainsAny(value[:1], `[{"`):
		return "the shell takes quotes away unless others are around them: --set '" + key + `=["END"]'`
	}

	return "a text has quotes of its own: --set " + report.ShellWords(key+"="+string(jsonscan.Quote(value)))
}
