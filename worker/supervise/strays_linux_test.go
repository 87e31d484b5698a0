package supervise

import (
	"os/exec"
	"testing"
	"time"
)

// strayScript starts a process that leaves the group of the server, as the shards of text-generation-launcher do, and
// is ready when that one runs.
const strayScript = `setsid sh -c 'touch up; exec sleep 1000' & `

func needSetsid(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("needs setsid")
	}
}

func TestStrayDiesWithTheSupervisor(t *testing.T) {
	t.Parallel()
	needSetsid(t)

	s := newSupervisor(t, `sh -c "`+strayScript+`wait"`)
	s.awaitReady(t)
	s.Process.Kill()
	s.Wait()
	s.awaitAllDead(t)
}

func TestStrayDiesWithTheServer(t *testing.T) {
	t.Parallel()
	needSetsid(t)

	for _, tt := range []struct{ name, end string }{
		{"stopped", "wait"},
		{"dead by itself", "while [ ! -e up ]; do sleep 0.01; done; sleep 0.3; exit 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newSupervisedScript(t, "exec 4>alive\n"+strayScript+tt.end)
			b.tuning.pauseMin, b.tuning.pauseMax = time.Hour, time.Hour
			b.cfg.Grace = time.Second
			b.start(t)
			if tt.end == "wait" {
				b.awaitPhase(t, Ready, 1)
				b.cancel()
			} else {
				b.awaitPhase(t, Waiting, 1)
			}

			b.awaitAllDead(t)
		})
	}
}
