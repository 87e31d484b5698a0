package main

import (
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
)

// The commands that keep answers are refused on Windows; workers and clients work there.
func TestCheckSystem(t *testing.T) {
	t.Parallel()

	for _, c := range newApp(environment{getenv: func(string) string { return "" }}).Commands {
		if err := checkSystem("linux", c.Name); err != nil {
			t.Errorf("%s on Linux: %v", c.Name, err)
		}

		err := checkSystem("windows", c.Name)
		keepsAnswers := c.Name == "run" || c.Name == "trial" || c.Name == "serve" || c.Name == "collect"
		if (err != nil) != keepsAnswers {
			t.Errorf("%s on Windows: %v", c.Name, err)
		}

		if err != nil && (exit.Code(err) != exit.CodeUsage || !strings.Contains(err.Error(), c.Name)) {
			t.Errorf("%s on Windows: code %d, %v", c.Name, exit.Code(err), err)
		}
	}
}
