package filestore

import (
	"testing"
	"time"
)

// The id of a file that is in no store is always the same, and has its time as all ids do.
func TestDeriveID(t *testing.T) {
	t.Parallel()

	at := time.Date(2026, 11, 29, 2, 29, 57, 123456000, time.UTC)
	id := DeriveID(at, "r1 output")
	if got, ok := TimeOf(id); !ok || !got.Equal(at) {
		t.Errorf("the time of %s is %s, %t; want %s", id, got, ok, at)
	}

	if again := DeriveID(at, "r1 output"); again != id {
		t.Errorf("then the id is %s, was %s", again, id)
	}

	if other := DeriveID(at, "r1 errors"); other == id {
		t.Errorf("two files have the id %s", id)
	}
}
