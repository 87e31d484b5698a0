package producer

import (
	"testing"
)

func TestNewNamesTheField(t *testing.T) {
	t.Parallel()

	b := newBench(t, lines(1), settings, 1<<20)
	for _, tt := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no bus", Config{Run: "r"}, "producer: Config.JS is required"},
		{"no run", Config{JS: b.js}, `producer: Config.Run: run id "": must have 1 to 64 characters`},
	} {
		if _, err := New(tt.cfg); err == nil || err.Error() != tt.want {
			t.Errorf("%s: error %v, want %s", tt.name, err, tt.want)
		}
	}
}
