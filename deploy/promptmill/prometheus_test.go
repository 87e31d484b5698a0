package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is the part of a dashboard of Grafana that tests read.
type dashboard struct {
	UID           string
	Title         string
	SchemaVersion int
	Panels        []dashboardPanel
	Templating    struct{ List []dashboardVariable }
}

type dashboardPanel struct {
	ID          int
	Type        string
	Title       string
	Description string
	GridPos     struct{ X, Y, W, H int }
	FieldConfig struct{ Defaults struct{ Unit string } }
	Datasource  struct{ UID string }
	Targets     []struct{ RefID, Expr string }
}

type dashboardVariable struct{ Name, Type string }

func readDashboard(t *testing.T) dashboard {
	t.Helper()

	var d dashboard
	if err := json.Unmarshal([]byte(readGrafana(t, "dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}

	if len(d.Panels) < 30 {
		t.Fatalf("the dashboard has %d panels", len(d.Panels))
	}

	return d
}

// Grafana imports the dashboard as it is: panels have ids of their own and do not overlap, each says what it shows in
// which unit, and asks the data source that is chosen at the top.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 {
		t.Errorf("the dashboard is %q, %q, of schema %d", d.UID, d.Title, d.SchemaVersion)
	}

	for _, name := range []string{"datasource", "job", "instance", "run", "worker"} {
		if !slices.ContainsFunc(d.Templating.List, func(v dashboardVariable) bool { return v.Name == name }) {
			t.Errorf("the dashboard has no variable %s", name)
		}
	}

	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID <= 0 {
			t.Errorf("panel %q: the id %d is taken", p.Title, p.ID)
		}
		ids[p.ID] = true

		at := p.GridPos
		if at.W < 1 || at.H < 1 || at.X < 0 || at.X+at.W > 24 {
			t.Errorf("panel %q is at %+v; Grafana's grid has 24 columns", p.Title, at)
		}
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("panels %q and %q overlap", other, p.Title)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}

		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d, %q, lacks a title, a description, a unit or a query", p.ID, p.Title)
		}
		if p.Datasource.UID != "${datasource}" {
			t.Errorf("panel %q asks the data source %q", p.Title, p.Datasource.UID)
		}
	}
}

// prometheusServer is a real Prometheus.
type prometheusServer struct{ url string }

// startPrometheus starts a Prometheus that scrapes a head and a worker every 2 s, with the rules of alerts.yaml.
// Alerts wait no longer than a second.
func startPrometheus(t *testing.T, head, worker string) prometheusServer {
	t.Helper()

	dir := t.TempDir()
	rules := regexp.MustCompile(`(?m)^( +for:) \w+$`).ReplaceAllString(readGrafana(t, "alerts.yaml"), "$1 1s")
	config := fmt.Sprintf(`global: {scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 1s}
rule_files: [alerts.yaml]
scrape_configs:
  - {job_name: promptmill, static_configs: [{targets: [%q]}]}
  - {job_name: promptmill-workers, static_configs: [{targets: [%q]}]}
`, head, worker)
	must(t, os.WriteFile(filepath.Join(dir, "alerts.yaml"), []byte(rules), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o644))

	listen := fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)[0])
	out := &lockedBuffer{}
	cmd := exec.Command(lookForProgram(t, "prometheus"), "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+listen)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = endWithTest()
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("output of Prometheus:\n%s", out)
		}
	})

	return prometheusServer{"http://" + listen}
}

// ask asks Prometheus for a path of its API, and reads the data of the answer. It reports whether there is any.
func (p prometheusServer) ask(path string, data any) bool {
	res, err := http.Get(p.url + path)
	if err != nil {
		return false // it is starting
	}
	defer res.Body.Close()

	answer := struct{ Data any }{data}

	return json.NewDecoder(res.Body).Decode(&answer) == nil && res.StatusCode == http.StatusOK
}

// hasData reports whether a query has a number as its answer.
func (p prometheusServer) hasData(query string) bool {
	var data struct {
		Result []struct{ Value [2]any }
	}
	if !p.ask("/api/v1/query?query="+url.QueryEscape(query), &data) {
		return false
	}

	return slices.ContainsFunc(data.Result, func(r struct{ Value [2]any }) bool { return r.Value[1] != "NaN" })
}

// firing returns the values of a label of the alerts of a name that fire.
func (p prometheusServer) firing(name, label string) (values []string) {
	var data struct {
		Alerts []struct {
			Labels map[string]string
			State  string
		}
	}
	p.ask("/api/v1/alerts", &data)
	for _, a := range data.Alerts {
		if a.Labels["alertname"] == name && a.State == "firing" {
			values = append(values, a.Labels[label])
		}
	}

	return values
}

// servedMetrics returns the names of our metrics on a page, after promtool has checked the page.
func servedMetrics(t *testing.T, page string) (names []string) {
	t.Helper()

	res, err := http.Get(page)
	must(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(t, err)

	check := exec.CommandContext(t.Context(), lookForProgram(t, "promtool"), "check", "metrics")
	check.Stdin = strings.NewReader(string(text))
	if said, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics of %s: %v\n%s", page, err, said)
	}

	for _, line := range regexp.MustCompile(`(?m)^# TYPE (promptmill_\w+) `).FindAllStringSubmatch(string(text), -1) {
		names = append(names, line[1])
	}

	return names
}

// panelQueries returns the queries of the dashboard by their panels, with all runs, workers and processes chosen.
func panelQueries(t *testing.T) map[string]string {
	t.Helper()

	queries := map[string]string{}
	variables := strings.NewReplacer("$__rate_interval", "20s", "$job", ".*", "$instance", ".*", "$run", ".*",
		"$worker", ".*")
	for _, panel := range readDashboard(t).Panels {
		for _, target := range panel.Targets {
			queries[panel.Title+" "+target.RefID] = variables.Replace(target.Expr)
		}
	}

	return queries
}

// checkManual compares the metrics of the manual with those that a head and a worker serve.
func checkManual(t *testing.T, head, worker string) {
	t.Helper()

	names, served := documentedMetrics(t), slices.Concat(servedMetrics(t, head), servedMetrics(t, worker))
	for _, name := range served {
		if !slices.Contains(names, name) {
			t.Errorf("the metric %s is served, and is not in the manual", name)
		}
	}

	// The bus of serve has the disk as its limit. No key has files here.
	unseen := []string{"promptmill_bus_store_limit_bytes", "promptmill_api_disk_bytes"}
	for _, name := range names {
		if !slices.Contains(served, name) && !slices.Contains(unseen, name) {
			t.Errorf("the metric %s is in the manual, and is not served", name)
		}
	}
}

// In a real Prometheus that scrapes a head and a worker, each panel of the dashboard has data while a run works, and
// the alert on a run without a worker fires when the worker is stopped. The manual has the metrics that are served.
func TestDashboardInPrometheus(t *testing.T) {
	lookForProgram(t, "prometheus")
	lookForProgram(t, "promtool")
	if testing.Short() {
		t.Skip("takes as long as Prometheus needs for its rates")
	}

	t.Parallel()

	c := newCommand(t)
	tools := t.TempDir()
	script := "#!/bin/sh\nwhile echo '0, GPU-1, Card, 1000, 10, 100, 50, 40, 1'; do sleep 0.2; done\n"
	must(t, os.WriteFile(filepath.Join(tools, "nvidia-smi"), []byte(script), 0o755))

	_, _, api := c.startAPI("--api", "0", "--webhook", c.newReceiver(200).url)
	workerPort := loopbackPort(t)
	worker, said := c.startAs([]string{"PATH=" + tools + ":" + os.Getenv("PATH")}, "worker", "--name", "w",
		"--sim", "--sim-ttft", "100ms", "--sim-faults", "500=0.2", "--attempts", "2", "--concurrency", "4",
		"--metrics", workerPort)
	c.must("submit", c.input("few.jsonl", 3), "--run", "few", "--model", "sim")
	c.must("submit", c.input("many.jsonl", 20_000), "--run", "many", "--label", "night", "--model", "sim",
		"--expires", "2h")

	p := startPrometheus(t, strings.TrimPrefix(api, "http://"), "127.0.0.1"+workerPort)
	missing := panelQueries(t)
	missing["of a run that has ended"] = `promptmill_run_ended_timestamp_seconds{run="few"}`
	defer func() {
		for panel, query := range missing {
			t.Errorf("panel %s has no data: %s", panel, query)
		}
	}()
	poll(t, patience, "data of all panels", func() bool {
		call(t, http.DefaultClient, "GET", api+"/v1/files", "")
		for panel, query := range missing {
			if p.hasData(query) {
				delete(missing, panel)
			}
		}
		return len(missing) == 0
	})

	checkManual(t, api+"/metrics", "http://127.0.0.1"+workerPort+"/metrics")

	if runs := p.firing("PromptmillNoWorker", "run"); len(runs) > 0 {
		t.Errorf("no worker for %q, while one works", runs)
	}
	terminate(t, worker, said)
	poll(t, patience, "the alert", func() bool {
		return slices.Equal(p.firing("PromptmillNoWorker", "run"), []string{"many"})
	})
}
