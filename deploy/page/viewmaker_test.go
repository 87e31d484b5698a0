package page

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/proto/prototest"
)

// A bus that has never answered has unknown runs, and none that is gone. Its lists are empty, and not null.
func TestFrameWithoutABus(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	js.Conn().Close()

	link := &busconn.Connection{Conn: js.Conn(), JS: js}
	m := newViewMaker(newObserver(link, false, t.TempDir()), describer{})

	overviews, details := m.render(t.Context(), []string{""}, []string{"r"})
	if len(details) > 0 {
		t.Errorf("details of a run that nobody has seen: %v", details)
	}

	var seen Overview
	if err := json.Unmarshal(overviews[""].data, &seen); err != nil {
		t.Fatal(err)
	}
	if seen.Problem == "" || seen.Bus == nil || seen.Bus.Streams == nil || seen.Bus.Warnings == nil {
		t.Errorf("%s", overviews[""].data)
	}
}

// A head that runs for months keeps nothing of the runs that nobody looks at any more.
func TestForgottenRuns(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	m := newViewMaker(newObserver(&busconn.Connection{Conn: js.Conn(), JS: js}, false, t.TempDir()), describer{})
	m.shown["seen"], m.shown["left"] = shownDetail{at: time.Now()}, shownDetail{at: time.Now()}

	m.keep([]string{"seen"})
	if _, kept := m.shown["seen"]; !kept || len(m.shown) != 1 {
		t.Errorf("kept %v", m.shown)
	}
}
