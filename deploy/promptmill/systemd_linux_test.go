package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// systemdUnits are the units of deploy/systemd and the highest exposure, in tenths, that systemd-analyze may
// find: 0 is hardened, 100 is not.
var systemdUnits = map[string]string{"promptmill-serve.service": "15", "promptmill-worker.service": "20"}

// systemd accepts the units and finds them hardened, also with the drop-in for model servers.
func TestSystemdUnits(t *testing.T) {
	t.Parallel()

	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze")
	}

	dir := t.TempDir()
	program, err := exec.LookPath("promptmill")
	must(t, err)
	for name, threshold := range systemdUnits {
		unit := filepath.Join(dir, name)
		text := strings.ReplaceAll(readUnit(t, name), "/usr/local/bin/promptmill", program)
		must(t, os.WriteFile(unit, []byte(text), 0o644))
		analyze(t, "verify", "--man=no", unit)
		analyze(t, "security", "--offline=true", "--threshold="+threshold, unit)
	}

	worker := filepath.Join(dir, "promptmill-worker.service")
	must(t, os.Mkdir(worker+".d", 0o755))
	must(t, os.WriteFile(filepath.Join(worker+".d", "model-server.conf"), []byte(readUnit(t, "model-server.conf")), 0o644))
	analyze(t, "verify", "--man=no", worker)
}

// readUnit reads a file of deploy/systemd.
func readUnit(t *testing.T, name string) string {
	t.Helper()

	text, err := os.ReadFile(filepath.Join("..", "systemd", name))
	must(t, err)

	return string(text)
}

// analyze runs systemd-analyze, which has nothing to complain about.
func analyze(t *testing.T, args ...string) {
	t.Helper()

	out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
	if err != nil || args[0] == "verify" && len(out) > 0 {
		t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Each variable of the units is that of a flag, a wrong command line is not tried again, and the worker has
// its grace before systemd kills it.
func TestSystemdUnitsFitTheFlags(t *testing.T) {
	t.Parallel()

	for name, command := range map[string]string{
		"promptmill-serve.service":  "serve",
		"promptmill-worker.service": "worker",
		"model-server.conf":         "worker",
	} {
		known := map[string]bool{}
		for _, f := range newApp(environment{getenv: os.Getenv}).Command(command).Flags {
			for _, flag := range f.Names() {
				known["PROMPTMILL_"+strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))] = true
			}
		}

		text := readUnit(t, name)
		variables := regexp.MustCompile(`(?m)^Environment="?(PROMPTMILL_\w+)=`).FindAllStringSubmatch(text, -1)
		if len(variables) == 0 {
			t.Errorf("%s sets no flag", name)
		}

		for _, v := range variables {
			if !known[v[1]] {
				t.Errorf("%s sets %s, which is no flag of %s", name, v[1], command)
			}
		}

		if name != "model-server.conf" && !regexp.MustCompile(`(?m)^RestartPreventExitStatus=2\b`).MatchString(text) {
			t.Errorf("%s tries a wrong command line again", name)
		}
	}

	text := readUnit(t, "promptmill-worker.service")
	grace, stop := unitDuration(t, text, "Environment=PROMPTMILL_GRACE"), unitDuration(t, text, "TimeoutStopSec")
	if stop < grace+30*time.Second {
		t.Errorf("systemd kills a worker after %s, and its grace is %s", stop, grace)
	}
}

// unitDuration is the duration of a line of a unit.
func unitDuration(t *testing.T, unit, key string) time.Duration {
	t.Helper()

	found := regexp.MustCompile(`(?m)^` + key + `=(\S+)$`).FindStringSubmatch(unit)
	if found == nil {
		t.Fatalf("the unit has no %s", key)
	}

	d, err := time.ParseDuration(found[1])
	must(t, err)

	return d
}
