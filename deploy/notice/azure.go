package notice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The protocol of Azure: https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
const (
	azureName   = "/metadata/instance/compute/name?api-version=2020-07-01&format=text"
	azureEvents = "/metadata/scheduledevents?api-version=2020-07-01"

	// azureEvery is half as often as Azure recommends: several workers of a box share five questions a second.
	azureEvery = 2 * time.Second
	// azureFirst is the time for the answer to a first question, which switches the service on: two minutes.
	azureFirst = 150 * time.Second
	// azureNotice is the time from the notice to the end of a spot machine, at least.
	azureNotice = 30 * time.Second
	// azureMaxName is the longest name of a machine, in bytes.
	azureMaxName = 256
)

// azure is the metadata service of Azure. It is only read: an event is never confirmed, since that has it begin at
// once.
type azure struct {
	client *client
	every  time.Duration

	machine string // its name, if it is known
	asked   bool   // for events, with success
}

func newAzure(bases ...string) *azure {
	return &azure{
		client: newClient(nil, bases...),
		every:  azureEvery,
	}
}

// String returns azure.
func (s *azure) String() string { return "azure" }

func (s *azure) watch(ctx context.Context, w *watcher) {
	defer s.client.close()

	pollUntilEnd(ctx, w, s, s.every, func() error {
		if err := s.learnName(ctx); err != nil {
			return err
		}

		a, err := s.readPath(ctx, azureEvents)
		if err != nil {
			return err
		}

		events, err := parseAzureEvents(a.body, s.machine, a.sent)
		for _, e := range events {
			w.announce(s, e.reason, e.left)
		}

		return err
	})
}

// learnName reads the name of this machine: the events concern all machines of a scale set.
func (s *azure) learnName(ctx context.Context) error {
	if s.machine != "" {
		return nil
	}

	a, err := s.readPath(ctx, azureName)
	if err != nil {
		return err
	}

	name := strings.TrimSpace(a.body)
	if name == "" || len(name) > azureMaxName {
		return fmt.Errorf("%s: the answer is no name: %s", azureName, quote(name))
	}

	s.machine = name

	return nil
}

// readPath reads a path of the service.
func (s *azure) readPath(ctx context.Context, path string) (answer, error) {
	patience := answerTime
	if path == azureEvents && !s.asked {
		patience = azureFirst
	}

	a, err := s.client.request(ctx, http.MethodGet, path, http.Header{"Metadata": {"true"}}, patience)
	switch {
	case err != nil:
		return answer{}, err
	case a.status != http.StatusOK:
		return answer{}, a.describeStatus(path)
	}

	s.asked = s.asked || path == azureEvents

	return a, nil
}

// azureEvent is an event that ends this machine, or all its processes.
type azureEvent struct {
	reason string
	left   time.Duration
}

// azureEnds are the types of events after which no process of a machine is there any more. Others freeze it for some
// seconds.
var azureEnds = []string{"Preempt", "Terminate", "Reboot", "Redeploy"}

// parseAzureEvents returns those events that end a machine. sent is the time of the service. Events can be used though
// there is an error.
func parseAzureEvents(text, machine string, sent time.Time) (ends []azureEvent, err error) {
	var document struct {
		Events []struct {
			EventType   string
			EventStatus string
			Resources   []string
			NotBefore   string
		}
	}

	if err := json.Unmarshal([]byte(text), &document); err != nil {
		return nil, fmt.Errorf("%s: %w", azureEvents, err)
	}

	isOurs := func(name string) bool { return strings.EqualFold(name, machine) }
	for _, e := range document.Events {
		if !slices.Contains(azureEnds, e.EventType) || !slices.ContainsFunc(e.Resources, isOurs) {
			continue
		}

		left := time.Duration(0) // it has begun, and names no time
		if e.EventStatus != "Started" {
			at, timeErr := readTimeLeft(time.RFC1123, e.NotBefore, sent)
			if timeErr != nil {
				at, err = azureNotice, errors.Join(err, fmt.Errorf("%s: %w", azureEvents, timeErr))
			}
			left = at
		}

		ends = append(ends, azureEvent{
			reason: "scheduled event: " + e.EventType,
			left:   left,
		})
	}

	return ends, err
}
