package gpu

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseReading(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, line string
		want       Reading
		count      int
	}{
		{"a card", "1, GPU-8a17c2d0-3b5e-4f6a-9c1d-2e7f8091a2b3, NVIDIA H200, 143771, 1031, 412.53, 97, 61, 2",
			Reading{
				Index:              1,
				UUID:               "GPU-8a17c2d0-3b5e-4f6a-9c1d-2e7f8091a2b3",
				Name:               "NVIDIA H200",
				MemoryBytes:        143771 << 20,
				MemoryUsedBytes:    1031 << 20,
				PowerWatts:         new(412.53),
				UtilizationPercent: new(97.0),
				TemperatureC:       new(61.0),
			}, 2},
		{"one whose memory is the machine's own", "0, GPU-1, NVIDIA GB10, [N/A], [N/A], 4.51, 0, 41, 1",
			Reading{
				UUID:               "GPU-1",
				Name:               "NVIDIA GB10",
				PowerWatts:         new(4.51),
				UtilizationPercent: new(0.0),
				TemperatureC:       new(41.0),
			}, 1},
		{"one that does not report its power", "0, GPU-1, NVIDIA GeForce GT 710, 2002, 3, [Not Supported], N/A, 30, 1",
			Reading{
				UUID:            "GPU-1",
				Name:            "NVIDIA GeForce GT 710",
				MemoryBytes:     2002 << 20,
				MemoryUsedBytes: 3 << 20,
				TemperatureC:    new(30.0),
			}, 1},
		{"one with an error",
			"0, GPU-1, NVIDIA A100, 81920, [Unknown Error], [Unknown Error], [Unknown Error], ERR!, 1",
			Reading{UUID: "GPU-1", Name: "NVIDIA A100", MemoryBytes: 81920 << 20}, 1},
		{"one that is lost",
			"3, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [N/A]",
			Reading{Index: 3}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got, count, ok := parseReading(tt.line)
			if !ok || count != tt.count {
				t.Fatalf("ok %v, %d cards", ok, count)
			}

			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("reading (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseReadingFails(t *testing.T) {
	t.Parallel()

	for _, line := range []string{
		"",
		"No devices were found",
		"index, uuid, name, memory.total [MiB], memory.used [MiB], power.draw [W], utilization.gpu [%], temperature.gpu, count",
		"0, GPU-1, NVIDIA H200, 143771, 4, 76.02, 0, 29",          // a field too few
		"0, GPU-1, NVIDIA, H200, 143771, 4, 76.02, 0, 29, 1",      // a field too many
		"0,GPU-1,NVIDIA H200,143771,4,76.02,0,29,1",               // not as nvidia-smi writes it
		"[N/A], GPU-1, NVIDIA H200, 143771, 4, 76.02, 0, 29, 1",   // which card?
		"-1, GPU-1, NVIDIA H200, 143771, 4, 76.02, 0, 29, 1",      //
		"0, GPU-1, NVIDIA H200, 143771 MiB, 4, 76.02, 0, 29, 1",   // a unit
		"0, GPU-1, NVIDIA H200, 143771, 4, NaN, 0, 29, 1",         // not a number
		"0, GPU-1, NVIDIA H200, 143771, 4, -3, 0, 29, 1",          // gives no energy back
		"0, GPU-1, NVIDIA H200, 143771, 4, 1e300, 0, 29, 1",       //
		"0, GPU-1, NVIDIA H200, 143771, 4, , 0, 29, 1",            // nothing
		"0, GPU-1, NVIDIA\x1b[31m, 143771, 4, 76.02, 0, 29, 1",    // would write on a terminal
		"0, GPU-1, NVIDIA \xff H200, 143771, 4, 76.02, 0, 29, 1",  //
		"0, GPU-1, NVIDIA H200, 143771, 4, 76.02, 0, 29, 1\n1, G", //
	} {
		if r, count, ok := parseReading(line); ok || count != 0 || r != (Reading{}) {
			t.Errorf("%q: %+v, %d", line, r, count)
		}
	}
}

func FuzzOutput(f *testing.F) {
	f.Add([]byte(readRecording(f)), uint8(7))
	f.Add([]byte("No devices were found\n"), uint8(3))
	f.Add([]byte(
		"0, GPU-1, NVIDIA GB10, [N/A], [N/A], 4.51, 0, 41, 1\r\n0, GPU-1, NVIDIA GB10, [N/A], [N/A], [N/A], 0, 41, 0",
	), uint8(200))

	f.Add([]byte(strings.Repeat("x", longestLine+9)+"\n0, GPU-1, H, 1, 1, 1, 1, 1, 1\n"), uint8(0))
	f.Fuzz(func(t *testing.T, text []byte, cut uint8) {
		// The result does not depend on how the output is cut.
		whole, pieces := newOutput(), newOutput()
		whole.Write(text)

		for rest := text; len(rest) > 0; {
			n := min(len(rest), int(cut)+1)
			pieces.Write(rest[:n])
			rest = rest[n:]
		}

		for _, o := range []*outputParser{whole, pieces} {
			o.flushLine()
			if len(o.partialLine) > longestLine || len(o.message) > longestLine {
				t.Fatalf("%d bytes kept, a message of %d", len(o.partialLine), len(o.message))
			}
		}

		a, b := whole.watch.Now(), pieces.watch.Now()
		for i := range a {
			if i > 0 && a[i].Index <= a[i-1].Index {
				t.Errorf("card %d after card %d", a[i].Index, a[i-1].Index)
			}
			if a[i].Joules != nil && !(*a[i].Joules >= 0) {
				t.Errorf("%f J", *a[i].Joules)
			}
		}

		// it depends on the clock
		noEnergy := cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "Joules" }, cmp.Ignore())
		if diff := cmp.Diff(a, b, noEnergy); diff != "" || whole.message != pieces.message {
			t.Errorf("messages %q and %q, cards:\n%s", whole.message, pieces.message, diff)
		}
	})
}
