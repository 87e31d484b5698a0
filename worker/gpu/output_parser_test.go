package gpu

import (
	"bytes"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// readRecording returns the output of nvidia-smi 580.159 in three seconds on a machine of two
// cards.
func readRecording(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("testdata/two.csv")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// newOutput returns the parser of a watch that runs.
func newOutput() *outputParser {
	w := New(zerolog.Nop())
	w.meters = make(map[string]*energyMeter)
	return &outputParser{watch: w}
}

// currentWatts returns the powers of the cards, -1 for unknown.
func currentWatts(w *Watch) []float64 {
	var all []float64
	for _, card := range w.Now() {
		if card.PowerWatts == nil {
			all = append(all, -1)
			continue
		}
		all = append(all, *card.PowerWatts)
	}

	return all
}

// currentJoules returns the energies of the cards, -1 for unknown.
func currentJoules(w *Watch) []float64 {
	var all []float64
	for _, card := range w.Now() {
		if card.Joules == nil {
			all = append(all, -1)
			continue
		}
		all = append(all, *card.Joules)
	}

	return all
}

// cardLine returns a card's line with its power.
func cardLine(index, power, count string) []byte {
	return []byte(index + ", GPU-" + index + ", NVIDIA H200, 143771, 4, " + power + ", 0, 29, " + count + "\n")
}

func TestThreeSecondsOfTwoCards(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		o := newOutput()
		for i, text := range slices.Collect(strings.Lines(readRecording(t))) {
			if i > 0 && i%2 == 0 {
				time.Sleep(time.Second)
			}
			o.Write([]byte(text))
		}

		want := []Card{{
			Reading: Reading{
				Index:              0,
				UUID:               "GPU-c836056b-0000-4000-8000-000000000000",
				Name:               "NVIDIA H200",
				MemoryBytes:        143771 << 20,
				PowerWatts:         new(76.53),
				UtilizationPercent: new(0.0),
				TemperatureC:       new(32.0),
			},
			Joules: new((119.15+77.90)/2 + (77.90+76.53)/2),
		}, {
			Reading: Reading{
				Index:              1,
				UUID:               "GPU-4b63c6f1-0000-4000-8000-000000000001",
				Name:               "NVIDIA H200",
				MemoryBytes:        143771 << 20,
				PowerWatts:         new(78.11),
				UtilizationPercent: new(0.0),
				TemperatureC:       new(31.0),
			},
			Joules: new((110.99+78.29)/2 + (78.29+78.11)/2),
		}}

		almost := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })
		if diff := cmp.Diff(want, o.watch.Now(), almost); diff != "" {
			t.Errorf("cards (-want +got):\n%s", diff)
		}
	})
}

func TestSetOfReadingsIsComplete(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		lines []string // index, power, count
		want  []float64
	}{
		{"when each card was read", []string{"0 10 2", "1 11 2"}, []float64{10, 11}},
		{"not before", []string{"0 10 2", "1 11 2", "0 20 2"}, []float64{10, 11}},
		{"each time", []string{"0 10 2", "1 11 2", "0 20 2", "1 21 2"}, []float64{20, 21}},
		{"in any order", []string{"1 11 2", "0 10 2"}, []float64{10, 11}},
		{"when a card comes again, if there is no number of cards", []string{"0 10 [N/A]", "1 11 [N/A]", "0 20 [N/A]"},
			[]float64{10, 11}},
		{"when a card comes again, if one is lost", []string{"0 10 3", "1 11 3", "0 20 3", "1 21 3"},
			[]float64{10, 11}},
		{"not with the first of several cards", []string{"0 10 [N/A]"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			o := newOutput()
			for _, fields := range tt.lines {
				f := strings.Fields(fields)
				o.Write(cardLine(f[0], f[1], f[2]))
			}

			if diff := cmp.Diff(tt.want, currentWatts(o.watch)); diff != "" {
				t.Errorf("watts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEnergyIsThePowerOverTheTime(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		o := newOutput()
		var log bytes.Buffer
		o.watch.log = zerolog.New(&log)

		for _, step := range []struct {
			says  string
			after time.Duration
			power string
			want  float64
		}{
			{"nothing is known of a card without a power", 0, "[N/A]", -1},
			{"a first power is no energy yet", time.Second, "100", 0},
			{"the power goes straight from one to the next", time.Second, "300", 200},
			{"the time between the readings counts", 1500 * time.Millisecond, "100", 500},
			{"two at once give nothing", 0, "400", 500},
			{"a power that is not reported for a moment is bridged", time.Second, "[N/A]", 500},
			{"from the last reported power", time.Second, "200", 1100},
			{"5 s are no gap", 5 * time.Second, "200", 2100},
			{"more is a gap", 5*time.Second + time.Millisecond, "200", 2100},
			{"after a gap it counts again", time.Second, "200", 2300},
		} {
			time.Sleep(step.after)
			o.Write(cardLine("0", step.power, "1"))
			if diff := cmp.Diff([]float64{step.want}, currentJoules(o.watch)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", step.says, diff)
			}
		}

		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"seconds":5.001`) {
			t.Errorf("the gap is not noted once: %s", got)
		}
	})
}

func TestEnergyBelongsToTheCardNotToTheIndex(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		o := newOutput()
		for range 2 {
			o.Write(cardLine("0", "100", "2"))
			o.Write(cardLine("1", "300", "2"))
			time.Sleep(time.Second)
		}

		// Card 0 is lost, nvidia-smi restarts and calls the other one 0.
		o = &outputParser{watch: o.watch}
		o.Write(bytes.Replace(cardLine("0", "300", "1"), []byte("GPU-0"), []byte("GPU-1"), 1))
		if diff := cmp.Diff([]float64{600}, currentJoules(o.watch)); diff != "" {
			t.Errorf("joules (-want +got):\n%s", diff)
		}
	})
}

func TestOldReadingsAreUnknown(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		o := newOutput()
		if cards := o.watch.Now(); cards != nil {
			t.Errorf("cards before the first reading: %+v", cards)
		}

		o.Write(cardLine("0", "100", "1"))
		time.Sleep(time.Second)
		o.Write(cardLine("0", "100", "1"))
		time.Sleep(longestGap)

		if got := currentWatts(o.watch)[0]; got != 100 {
			t.Errorf("%g W after 5 s", got)
		}

		time.Sleep(time.Millisecond)

		want := []Card{
			{Reading: Reading{UUID: "GPU-0", Name: "NVIDIA H200", MemoryBytes: 143771 << 20}, Joules: new(100.0)},
		}
		if diff := cmp.Diff(want, o.watch.Now()); diff != "" {
			t.Errorf("cards after more than 5 s (-want +got):\n%s", diff)
		}
	})
}
