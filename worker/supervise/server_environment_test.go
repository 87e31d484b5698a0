package supervise

import (
	"slices"
	"strings"
	"testing"
)

// The server gets no secret of this process, except for the secrets that its command names.
func TestServerEnvironment(t *testing.T) {
	for _, name := range []string{
		"PROMPTMILL_API_KEY", "PROMPTMILL_JOIN", "PROMPTMILL_URL", "NATS_PASSWORD", "NATS_URL", "HF_TOKEN",
	} {
		t.Setenv(name, "value-of-"+name)
	}

	b := newSupervisedScript(t, `env > environment; : > up; exec sleep 1000 > alive`)
	b.cfg.Command += " --api-key $PROMPTMILL_API_KEY"
	b.start(t)
	b.awaitPhase(t, Ready, 1)

	got := b.readFile(t, "environment")
	for name, want := range map[string]bool{
		"HF_TOKEN":           true,
		"PROMPTMILL_API_KEY": true,
		"PROMPTMILL_JOIN":    false,
		"PROMPTMILL_URL":     false,
		"NATS_PASSWORD":      false,
		"NATS_URL":           false,
	} {
		if strings.Contains(got, "value-of-"+name) != want {
			t.Errorf("%s: %v\n%s", name, !want, got)
		}
	}
}

// A server that is itself a promptmill has the marks of both starts in the processes that it starts.
func TestMarkEnvironment(t *testing.T) {
	t.Parallel()

	inner := markEnvironment(markEnvironment([]string{"A=1"}, "outer"), "inner")
	if want := []string{"A=1", "PROMPTMILL_STARTED_BY=outer,inner"}; !slices.Equal(inner, want) {
		t.Errorf("got %q, want %q", inner, want)
	}
}
