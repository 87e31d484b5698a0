package sweep

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/worker/sim"
)

// simVariable is the environment variable with which the test binary is a simulated model server.
const simVariable = "PROMPTMILL_TEST_SWEEP_SERVER"

// All goroutines of a trial have ended when it returns.
func TestMain(m *testing.M) {
	if text := os.Getenv(simVariable); text != "" {
		if err := serveSim(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}

	goleak.VerifyTestMain(m)
}

// simSettings are the settings of a simulated model server that is a process.
type simSettings struct {
	Model  string
	Slots  int
	TPOT   time.Duration
	Tokens int
	Load   time.Duration
	Spread float64
}

// serveSim is a simulated model server until a signal.
func serveSim(text string) error {
	var s simSettings
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)

	server, err := modelservers.StartSim("127.0.0.1:"+os.Args[len(os.Args)-1], sim.New(s.config()))
	if err != nil {
		return err
	}
	defer server.Stop()

	<-stop

	return nil
}

// config returns the configuration of the simulated server.
func (s simSettings) config() sim.Config {
	return sim.Config{
		Models: strings.Split(s.Model, ","),
		Slots:  s.Slots,
		TPOT:   s.TPOT,
		TTFT:   s.TPOT,
		Tokens: s.Tokens,
		Load:   s.Load,
		Spread: s.Spread,
	}
}

// command returns the command that starts the server.
func (s simSettings) command(t testing.TB) string {
	t.Helper()

	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}

	return fmt.Sprintf("env %s='%s' '%s' %s", simVariable, text, os.Args[0], "{port}")
}

// start starts the server in this process, and returns its URL.
func (s simSettings) start(t testing.TB) string {
	t.Helper()

	server, err := modelservers.StartSim("127.0.0.1:0", sim.New(s.config()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)

	return server.URL
}
