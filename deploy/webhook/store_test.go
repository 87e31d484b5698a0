package webhook

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

// writeText writes a file.
func writeText(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

// statMode returns the permissions of a file.
func statMode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Mode().Perm()
}

// newBucket returns the bucket of a real bus.
func newBucket(t *testing.T) Bucket {
	t.Helper()
	_, js := prototest.Server(t)
	return bus.New(js).Webhooks
}

// On a real bus, an event goes to each endpoint, and again where a person wants that.
func TestOverBus(t *testing.T) {
	t.Parallel()

	b := newBucket(t)
	store := NewStore(b)
	if _, _, err := store.List(t.Context()); !errors.Is(err, ErrNone) {
		t.Fatalf("before there is a webhook: %v", err)
	}

	got := make(chan string, 16)
	s := receive(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.URL.Path + " " + string(body)
	})

	var endpoints []Endpoint
	for _, path := range []string{"/1", "/2"} {
		u, err := ParseURL(s.URL + path)
		must(t, err)
		client := NewClient()
		t.Cleanup(client.CloseIdleConnections)
		endpoints = append(endpoints, NewURLEndpoint(u, &Signer{}, client, ""))
	}

	sender, _ := startSender(t, b, endpoints...)
	m := ended("r")
	must(t, sender.AddRun(t.Context(), m))
	must(t, sender.AddRun(t.Context(), m))

	arrived := map[string]bool{<-got: true, <-got: true}
	body := string(NewRunEvent(m).Body())
	if diff := cmp.Diff(map[string]bool{"/1 " + body: true, "/2 " + body: true}, arrived); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}

	prototest.Poll(t, 20*time.Second, "two deliveries", func() bool {
		_, states := states(t, b)
		return cmp.Equal(states, []string{Delivered, Delivered})
	})

	list, _ := states(t, b)
	_, err := store.Redeliver(t.Context(), list[1])
	must(t, err)

	if text := <-got; text != "/1 "+body && text != "/2 "+body {
		t.Errorf("sent again: %q", text)
	}

	if n := len(got); n > 0 {
		t.Errorf("%d events more", n)
	}

	if n := sender.Stats().Delivered.Load(); n < 2 {
		t.Errorf("%d events are counted", n)
	}
}

// What another version or a stranger has put into the bucket is left alone.
func TestForeignEntries(t *testing.T) {
	t.Parallel()

	b, a := newBucket(t), &attempts{answer: taken}
	e := a.endpoint("e")
	must(t, b.Make(t.Context(), bus.Limits{}))

	d := newDelivery(NewRunEvent(ended("r")), e.ID, e.Name, time.Now())
	other := d
	other.State = "asleep"

	for key, value := range map[string][]byte{
		"x":                              []byte("{"),
		"evt_1." + e.ID:                  d.encode(),
		other.Event.ID + "." + e.ID:      other.encode(),
		knownPrefix + e.ID:               []byte("no JSON"),
		"evt_2.0123456789abcdef":         nil,
		knownPrefix + "fedcba9876543210": []byte(`{"name":"gone","since":"2020-01-01T00:00:00Z"}`),
		"evt_0.fedcba9876543210": Delivery{
			Event:      Event{ID: "evt_0"},
			EndpointID: "fedcba9876543210",
			State:      Pending,
		}.encode(),
		"evt_0.fedcba9876543210.and.more": []byte("null"),
	} {
		must(t, b.Put(t.Context(), key, value))
	}

	s, _ := startSender(t, b, e)
	must(t, s.AddRun(t.Context(), ended("later")))
	prototest.Poll(t, 20*time.Second, "the event of this version", func() bool { return len(a.times()) == 1 })

	list, endpoints, err := NewStore(b).List(t.Context())
	must(t, err)
	if len(list) != 2 || len(endpoints) != 2 || len(a.times()) != 1 {
		t.Errorf("%d entries are read, %v, and %d attempts", len(list), endpoints, len(a.times()))
	}
}

// The event of a run is a function of the run.
func TestRunEvent(t *testing.T) {
	t.Parallel()

	created := time.Date(2026, 11, 1, 8, 0, 0, 1, time.UTC)
	at := created.Add(time.Hour)
	m := proto.Manifest{
		Run:       "nightly",
		Label:     "the label",
		State:     proto.StateExpired,
		CreatedAt: created,
		EndedAt:   &at,
		Output:    "head:/data/nightly",
		Counts:    proto.Counts{Done: 10, Failed: 3},
	}

	e := NewRunEvent(m)
	want := Event{
		ID:      "evt_a16cace988dc6536c033",
		Type:    Expired,
		BatchID: "batch_nightly",
		At:      at,
		Run: &Run{
			ID:       "nightly",
			Label:    "the label",
			State:    proto.StateExpired,
			Output:   "head:/data/nightly",
			Answered: 7,
			Failed:   3,
		},
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}

	m.CreatedAt = created.In(time.FixedZone("", 3600))
	if again := NewRunEvent(m); again.ID != e.ID {
		t.Errorf("the id of an event is %s, and in another time zone %s", e.ID, again.ID)
	}

	const body = `{"id":"evt_x","object":"event","created_at":1793523600,"type":"batch.expired","data":{"id":"batch_nightly"}}`
	e.ID = "evt_x"
	if got := string(e.Body()); got != body {
		t.Errorf("body %s\nwant %s", got, body)
	}

	if results, meta := e.Run.OutputFiles("head"); results != "/data/nightly.jsonl.zst" ||
		meta != "/data/nightly.meta.json" {
		t.Errorf("files %s, %s", results, meta)
	}

	e.Run.Tables = []string{"head:/data/nightly.csv"}
	if here, elsewhere := e.Run.Table("head"), e.Run.Table("other"); here != "/data/nightly.csv" || elsewhere != "" {
		t.Errorf("table %s, of another machine %s", here, elsewhere)
	}

	if results, meta := e.Run.OutputFiles("other"); results+meta != "" {
		t.Errorf("files of another machine: %s, %s", results, meta)
	}
}

func FuzzParseDelivery(f *testing.F) {
	d := newDelivery(NewTestEvent(), HashAddress("x"), "x", time.Unix(1e9, 0).UTC())
	f.Add(d.key(), d.encode())
	f.Add("evt_1.0123456789abcdef",
		[]byte(`{"event":{"id":"evt_1"},"endpoint_id":"0123456789abcdef","state":"pending"}`))
	f.Add("", []byte("null"))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		d, err := parseDelivery(key, value)
		if err != nil {
			return
		}

		again, err := parseDelivery(d.key(), d.encode())
		if err != nil || cmp.Diff(d, again) != "" {
			t.Errorf("%s: %+v becomes %+v, %v", key, d, again, err)
		}
	})
}
