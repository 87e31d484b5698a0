package worker

import (
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

func TestNewNamesTheField(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		change func(*Config)
		want   string // "": the configuration works
	}{
		{func(*Config) {}, ""},
		{func(c *Config) { c.JS = nil }, "worker: Config.JS is required"},
		{func(c *Config) { c.Server = nil }, "worker: Config.Server is required"},
		{func(c *Config) { c.Limiter = nil }, "worker: Config.Limiter is required"},
		{func(c *Config) { c.Name = strings.Repeat("n", proto.MaxWorkerName) }, ""},
		{
			func(c *Config) { c.Name = strings.Repeat("n", proto.MaxWorkerName+1) },
			"worker: Config.Name has 257 bytes, more than 256",
		},
		{func(c *Config) { c.Attempts = -1 }, "worker: Config.Attempts is -1, below 0"},
		{func(c *Config) { c.Timeout = -time.Second }, "worker: Config.Timeout is -1s, below 0"},
		{func(c *Config) { c.Stall = -time.Second }, "worker: Config.Stall is -1s, below 0"},
		{func(c *Config) { c.Grace = -time.Second }, "worker: Config.Grace is -1s, below 0"},
	} {
		cfg := Config{JS: noBus{}, Server: new(modelserver.Server), Limiter: limit.Fixed(1)}
		tt.change(&cfg)

		w, err := New(cfg)
		switch {
		case tt.want == "" && (err != nil || w == nil):
			t.Errorf("worker %v, error %v; want a worker", w, err)
		case tt.want != "" && (err == nil || err.Error() != tt.want):
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
}
