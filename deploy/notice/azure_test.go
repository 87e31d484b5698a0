package notice

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

const (
	azureNamePath   = "/metadata/instance/compute/name"
	azureEventsPath = "/metadata/scheduledevents"
)

func startAzure(t *testing.T) (*metadataService, *azure) {
	service := startService(t, func(r *http.Request) int {
		if r.Header.Get("Metadata") != "true" || r.FormValue("api-version") != "2020-07-01" {
			return http.StatusBadRequest
		}
		return 0
	})
	service.set(azureNamePath, "box_7")
	service.set(azureEventsPath, `{"DocumentIncarnation": 1, "Events": []}`)

	source := newAzure(service.URL)
	source.every = quick

	return service, source
}

// azureDocument returns a document with one event, as Azure's documentation shows it.
func azureDocument(kind, status, resource, notBefore string) string {
	return fmt.Sprintf(`{"DocumentIncarnation": 2, "Events": [{"EventId": "C7061BAC-AFDC-4513-B24B-AA5F13A16123",
		"EventType": %q, "ResourceType": "VirtualMachine", "Resources": ["other", %q], "EventStatus": %q,
		"NotBefore": %q, "Description": "", "EventSource": "Platform", "DurationInSeconds": -1}]}`,
		kind, resource, status, notBefore)
}

func TestAzure(t *testing.T) {
	at := func(d time.Duration) string { return time.Now().UTC().Add(d).Format(http.TimeFormat) }

	tests := []struct {
		name   string
		events string
		reason string
		left   time.Duration
		log    string
	}{
		{"preempted", azureDocument("Preempt", "Scheduled", "box_7", at(time.Minute)),
			"scheduled event: Preempt", time.Minute, ""},
		{"rebooted", azureDocument("Reboot", "Scheduled", "BOX_7", at(15*time.Minute)),
			"scheduled event: Reboot", 15 * time.Minute, ""},
		{"begun", azureDocument("Terminate", "Started", "box_7", ""), "scheduled event: Terminate", 0, ""},
		{"in the past", azureDocument("Preempt", "Scheduled", "box_7", "Mon, 19 Sep 2016 18:29:47 GMT"),
			"scheduled event: Preempt", 0, ""},
		{"no time", azureDocument("Preempt", "Scheduled", "box_7", "soon"),
			"scheduled event: Preempt", 30 * time.Second, "soon"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			service, source := startAzure(t)
			w := startWatching(t, 0, source)
			service.awaitAsked(t, azureEventsPath, 2)

			service.set(azureEventsPath, tt.events)
			w.expect("azure", tt.reason, tt.left)
			w.expectLog(tt.log)
		})
	}
}

// TestAzureStays: what is no reason to leave.
func TestAzureStays(t *testing.T) {
	for name, events := range map[string]string{
		"another machine": azureDocument("Preempt", "Scheduled", "box_77", "Mon, 19 Sep 2016 18:29:47 GMT"),
		"freeze":          azureDocument("Freeze", "Scheduled", "box_7", "Mon, 19 Sep 2016 18:29:47 GMT"),
		"junk":            "<html>",
	} {
		t.Run(name, func(t *testing.T) {
			service, source := startAzure(t)
			service.set(azureEventsPath, events)
			w := startWatching(t, 0, source)
			service.awaitAsked(t, azureEventsPath, 1)
			w.expectNone()
		})
	}
}

func FuzzParseAzureEvents(f *testing.F) {
	f.Add(azureDocument("Preempt", "Scheduled", "box_7", "Mon, 19 Sep 2016 18:29:47 GMT"))
	f.Add(azureDocument("Preempt", "Started", "box_7", ""))
	f.Add(azureDocument("Preempt", "Scheduled", "box_7", "Mon, 19 Sep 9999 18:29:47 GMT"))
	f.Add(`{"Events": null}`)

	sent := time.Date(2016, 9, 19, 18, 29, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		events, _ := parseAzureEvents(text, "box_7", sent)
		for _, e := range events {
			if e.left < 0 || e.left > maxLeft || e.reason == "" {
				t.Errorf("%+v", e)
			}
		}
	})
}
