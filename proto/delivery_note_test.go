package proto

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
)

func TestDeliveryNotes(t *testing.T) {
	t.Parallel()

	for _, m := range []DeliveryNote{
		Returned(map[uint32]int{}),
		Returned(map[uint32]int{7: 1, 4_000_000_000: 2}),
		Isolating(0),
		Isolating(4_000_000_000),
		Sending([]uint32{3}),
		Sending([]uint32{0, 1, 2, 7, 4_000_000_000}),
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
			t.Errorf("note (-want +got):\n%s", diff)
		}
	}

	var zero DeliveryNote
	if got := EncodeDeliveryNote("r", "0-1", zero).Header.Get(HeaderDelivery); got != "returned" {
		t.Errorf("the zero value is %q", got)
	}

	if IsDeliveryNote(EncodeResults("r", "0-1", []uint32{1}, nil).Header) {
		t.Error("results are read as a delivery note")
	}
}

func FuzzParseDeliveryNote(f *testing.F) {
	for _, text := range []string{
		"returned", "returned 1=2 3=1", "isolated 5", "isolated", "returned 1", "away", "isolated -1",
		"returned 1=99999", "sent 0-3,9", "sent", "sent 3-1", "sent 0-4294967295",
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
