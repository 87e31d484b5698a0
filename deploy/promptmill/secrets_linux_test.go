package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// No secret of the command line is visible to other users of the machine, or in the output of
// the process.
func TestNoSecretInTheListOfProcesses(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	_, bus := c.start("serve", "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1")
	join := strings.Fields(joinOf(t, bus))[0]
	in := c.input("in.jsonl", 1)
	for name, tt := range map[string]struct {
		args   []string
		secret string
		said   string // when it has read its command line
	}{
		"join":         {[]string{"worker", "--sim", "--join", join}, join, "worker "},
		"join and =":   {[]string{"worker", "--sim", "--join=" + join}, join, "worker "},
		"key":          {[]string{"worker", "--url", "http://127.0.0.1:9", "--api-key", "s3cret"}, "s3cret", "worker "},
		"user of URL":  {[]string{"worker", "--url", "http://bob:s3cret@127.0.0.1:9/v1"}, "s3cret", "worker "},
		"query of URL": {[]string{"worker", "-url=http://127.0.0.1:9/v1?api-key=s3cret"}, "s3cret", "worker "},
		"bus and user": {[]string{"worker", "--sim", "--nats", "nats://127.0.0.1:9", "--nats-user", "bob:s3cret"},
			"s3cret", "127.0.0.1:9"},
		"user of bus": {[]string{"worker", "--sim", "--nats", "nats://bob:s3cret@127.0.0.1:9"},
			"s3cret", "127.0.0.1:9"},
		"not a bus": {[]string{"run", in, "--sim", "--nats", "nats://bob:s3cret@127.0.0.1:x"}, "s3cret", "127.0.0.1:x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			process, out := c.start(tt.args...)
			poll(t, pollTime, "its output", func() bool { return strings.Contains(out.String(), tt.said) })

			shown, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", process.Process.Pid))
			if err == nil && strings.Contains(string(shown), tt.secret) { // it may have ended
				t.Errorf("ps shows %q", shown)
			}

			if strings.Contains(out.String(), tt.secret) {
				t.Errorf("it says\n%s", out)
			}
		})
	}
}
