package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// grafanaFolder has the dashboard and the alert rules.
var grafanaFolder = filepath.Join("..", "grafana")

// readGrafana reads a file of grafanaFolder.
func readGrafana(t *testing.T, name string) string {
	t.Helper()

	text, err := os.ReadFile(filepath.Join(grafanaFolder, name))
	if err != nil {
		t.Fatal(err)
	}

	return string(text)
}

// lookForProgram skips the test, aloud, without a program.
func lookForProgram(t *testing.T, name string) string {
	t.Helper()

	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("needs %s: apt-get install --no-install-recommends prometheus", name)
	}

	return path
}

var alertName = regexp.MustCompile(`(?m)^ +- alert: (\w+)$`)

// Each alert has a severity, says what it is and what to do, has its paragraph in the manual, and a test.
func TestAlertRules(t *testing.T) {
	text, manual := readGrafana(t, "alerts.yaml"), documents(t)[filepath.Join("deploy", "README.md")]
	tests := readGrafana(t, "alerts_test.yaml")

	places := alertName.FindAllStringSubmatchIndex(text, -1)
	if len(places) < 10 {
		t.Fatalf("only %d alerts found: the pattern does not match them", len(places))
	}

	for i, place := range places {
		end := len(text)
		if i+1 < len(places) {
			end = places[i+1][0]
		}

		name, rule := text[place[2]:place[3]], text[place[0]:end]
		for _, part := range []string{"severity: ", "summary: ", "description: >-\n", "runbook_url: "} {
			if !strings.Contains(rule, part) {
				t.Errorf("alert %s has no %s", name, part)
			}
		}

		anchor := strings.ToLower(name)
		if !strings.Contains(rule, "deploy/README.md#"+anchor+"\n") || !anchors(manual)[anchor] {
			t.Errorf("alert %s leads to no paragraph of the manual", name)
		}

		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(tests) {
			t.Errorf("alert %s has no test in alerts_test.yaml", name)
		}
	}
}

// promtool accepts the rules, and each fires when it must, and not before.
func TestAlertRulesWithPromtool(t *testing.T) {
	promtool := lookForProgram(t, "promtool")

	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"},
		{"test", "rules", "alerts_test.yaml"},
	} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = grafanaFolder
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, text)
		}
	}
}

var (
	ourMetric  = regexp.MustCompile(`(?:^|[^:\w])(promptmill_[a-z_]+)\b`) // no part of the name of a recorded rule
	documented = regexp.MustCompile("`(promptmill_[a-z_]+)`")
)

// documentedMetrics returns the metrics in the tables of the manual.
func documentedMetrics(t *testing.T) []string {
	t.Helper()

	var names []string
	for line := range strings.Lines(documents(t)[filepath.Join("deploy", "README.md")]) {
		if first, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | "); ok && strings.HasPrefix(line, "| `promptmill_") {
			for _, name := range documented.FindAllStringSubmatch(first, -1) {
				names = append(names, name[1])
			}
		}
	}

	slices.Sort(names)

	return slices.Compact(names)
}

// baseName returns the name of a metric without the endings that a histogram adds.
func baseName(name string) string {
	for _, end := range []string{"_bucket", "_count", "_sum"} {
		if base, ok := strings.CutSuffix(name, end); ok {
			return base
		}
	}

	return name
}

// The rules and the dashboard name metrics that the manual has.
func TestGrafanaMetricsAreDocumented(t *testing.T) {
	names := documentedMetrics(t)
	if len(names) < 30 {
		t.Fatalf("only %d metrics are documented: the pattern does not match them", len(names))
	}

	for _, file := range []string{"alerts.yaml", "dashboard.json"} {
		for _, found := range ourMetric.FindAllStringSubmatch(readGrafana(t, file), -1) {
			if name := found[1]; !slices.Contains(names, baseName(name)) {
				t.Errorf("%s: the metric %s is not in the manual", file, name)
			}
		}
	}
}
