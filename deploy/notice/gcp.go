package notice

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// The protocol of Google Compute Engine: https://cloud.google.com/compute/docs/metadata/querying-metadata,
// https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption and
// https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice
const (
	gcpIPv6   = "http://[fd20:ce::254]" // where the instance has IPv6 only
	gcpFolder = "/computeMetadata/v1/instance/"

	// gcpWait is the longest time for which the service waits for a change.
	gcpWait = time.Minute
	// gcpEvery is the least time between two questions.
	gcpEvery = time.Second
	// gcpPreemption is the time from the notice to the end of a spot instance.
	gcpPreemption = 30 * time.Second
	// gcpMaintenance is the time from the notice to the end of an instance with graphics cards, which cannot move to
	// another host: https://cloud.google.com/compute/docs/gpus/gpu-host-maintenance. Where the notice is older than
	// this process, the signal of the shutdown comes first.
	gcpMaintenance = time.Hour
)

// gcp is the metadata service of Google Compute Engine.
type gcp struct {
	client *client
	every  time.Duration
	wait   time.Duration
}

func newGCP(bases ...string) *gcp {
	return &gcp{
		client: newClient(nil, bases...),
		every:  gcpEvery,
		wait:   gcpWait,
	}
}

// String returns gcp.
func (s *gcp) String() string { return "gcp" }

// gcpKey is a value of the service that says whether the instance goes.
type gcpKey struct {
	name   string
	gone   string // the value that says so
	left   time.Duration
	reason string
}

var gcpKeys = []gcpKey{
	{name: "preempted", gone: "TRUE", left: gcpPreemption, reason: "spot instance: preempted"},
	{name: "maintenance-event", gone: "TERMINATE_ON_HOST_MAINTENANCE", left: gcpMaintenance, reason: "host maintenance"},
}

func (s *gcp) watch(ctx context.Context, w *watcher) {
	defer s.client.close()

	var watching sync.WaitGroup
	for _, key := range gcpKeys {
		watching.Go(func() {
			etag := ""
			pollUntilEnd(ctx, w, s, s.every, func() error {
				value, next, err := s.readKey(ctx, key.name, etag)
				if err != nil {
					return err
				}

				if etag = next; value == key.gone {
					w.announce(s, key.reason, key.left)
				}

				return nil
			})
		})
	}

	watching.Wait()
}

// readKey reads a value. With the etag of the value before, it waits until it is another.
func (s *gcp) readKey(ctx context.Context, name, etag string) (value, next string, err error) {
	path, patience := gcpFolder+name, answerTime
	if etag != "" {
		path += "?" + url.Values{
			"wait_for_change": {"true"},
			"timeout_sec":     {fmt.Sprint(int(s.wait.Seconds()))},
			"last_etag":       {etag},
		}.Encode()
		patience += s.wait
	}

	a, err := s.client.request(ctx, http.MethodGet, path, http.Header{"Metadata-Flavor": {"Google"}}, patience)
	switch {
	case err != nil:
		return "", "", err
	case a.status != http.StatusOK:
		return "", "", a.describeStatus(path)
	case a.header.Get("Metadata-Flavor") != "Google":
		return "", "", fmt.Errorf("%s: the answer is not from Google's metadata service", path)
	}

	return strings.TrimSpace(a.body), a.header.Get("Etag"), nil
}
