package proto

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
)

func TestMarks(t *testing.T) {
	t.Parallel()

	for _, m := range []DeliveryNote{
		{Returned: true, Crashes: map[uint32]int{}, Isolated: -1},
		{Returned: true, Crashes: map[uint32]int{7: 1, 4_000_000_000: 2}, Isolated: -1},
		{Isolated: 0},
		{Isolated: 4_000_000_000},
	} {
		msg := EncodeDeliveryNote("r", "0-1", m)
		if !IsDeliveryNote(msg.Header) || msg.Subject != "pm.r.results.0-1" || len(msg.Data) != 0 {
			t.Errorf("message %+v", msg)
		}

		got, err := ParseDeliveryNote(msg.Header)
		if err != nil {
			t.Fatal(err)
		}

		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("mark (-want +got):\n%s", diff)
		}
	}

	if IsDeliveryNote(EncodeResults("r", "0-1", []uint32{1}, nil).Header) {
		t.Error("results are taken for a mark")
	}
}

func FuzzParseMark(f *testing.F) {
	for _, text := range []string{
		"returned", "returned 1=2 3=1", "isolated 5", "isolated", "returned 1", "away", "isolated -1",
		"returned 1=99999",
	} {
		f.Add(text)
	}

	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseDeliveryNote(nats.Header{HeaderDelivery: {text}})
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error %v", err)
			}
			return
		}

		again, err := ParseDeliveryNote(EncodeDeliveryNote("r", "0-0", m).Header)
		if diff := cmp.Diff(m, again); err != nil || diff != "" {
			t.Errorf("again: %v\n%s", err, diff)
		}
	})
}
