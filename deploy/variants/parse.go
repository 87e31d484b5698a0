package variants

import (
	"encoding/csv"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// axisName matches the name of an axis: that of a placeholder.
var axisName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)

// ParseAxes reads values of placeholders, as NAME=VALUE,VALUE each. The values are fields of CSV, so that one with a
// comma has quotes. A name that comes again adds values.
func ParseAxes(texts []string) (axes []Axis, err error) {
	const example = "for example --vary seqs=64,256"
	for _, text := range texts {
		name, list, ok := strings.Cut(text, "=")
		switch {
		case !ok || list == "":
			return nil, exit.Usage(example, "--vary %s has no values", report.ShellWords(text))
		case name == modelName:
			return nil, exit.Usage("give --model NAME, once for each model", "--vary cannot have the models")
		case name == portName:
			return nil, exit.Usage("leave it out, and write {port} in --exec", "--vary port: each server gets its own")
		case !axisName.MatchString(name):
			return nil, exit.Usage(example, "--vary %s: a name has letters, digits, - and _, and begins with a letter",
				report.ShellWords(text))
		}

		values, err := parseValues(text, list)
		if err != nil {
			return nil, err
		}

		i := slices.IndexFunc(axes, func(a Axis) bool { return a.Name == name })
		if i < 0 {
			i, axes = len(axes), append(axes, Axis{Name: name})
		}

		for _, value := range values {
			if slices.Contains(axes[i].Values, value) {
				return nil, exit.Usage("leave out one of them", "--vary %s has the value %s twice", name,
					report.ShellWords(value))
			}
			axes[i].Values = append(axes[i].Values, value)
		}
	}

	return axes, nil
}

// parseValues reads the values of one flag.
func parseValues(text, list string) ([]string, error) {
	fields := csv.NewReader(strings.NewReader(list))
	fields.LazyQuotes, fields.TrimLeadingSpace = true, true

	values, err := fields.Read()
	if err == nil {
		_, err = fields.Read()
	}

	isOpen := strings.Count(list, `"`)%2 != 0 // which LazyQuotes takes for a part of the value
	if !errors.Is(err, io.EOF) || len(values) == 0 || isOpen {
		return nil, exit.Usage(`for example --vary seqs=64,256, with quotes around a value with a comma: --vary 'cards="0,1","2,3"'`,
			"--vary %s: the values are not one line of CSV", report.ShellWords(text))
	}

	return values, nil
}

// serverName matches the name of a server.
var serverName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// ParseServers reads servers, as URL or NAME=URL each.
func ParseServers(texts []string) (servers []Server, err error) {
	for _, text := range texts {
		s := Server{URL: text}
		if name, address, ok := strings.Cut(text, "="); ok && !strings.ContainsAny(name, ":/") {
			s = Server{Name: name, URL: address}
			if !serverName.MatchString(name) {
				return nil, exit.Usage("for example --url fast=http://gpu1:8000",
					"--url %s: a name has letters, digits, dots, - and _", report.ShellWords(text))
			}
		}

		checked, err := modelserver.New(s.URL, "")
		if err != nil {
			return nil, exit.Usage("", "--url: %w", err)
		}

		checked.Close()
		s.URL = checked.URL()
		for _, other := range servers {
			switch {
			case other.URL == s.URL:
				return nil, exit.Usage("name each model server once", "--url %s is given twice", s.URL)
			case other.Name == s.Name && s.Name != "":
				return nil, exit.Usage("give each its own name", "--url: two servers have the name %s", s.Name)
			}
		}

		servers = append(servers, s)
	}

	return servers, nil
}
