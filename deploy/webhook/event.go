package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
)

// The types of events, as OpenAI names them.
const (
	Completed = "batch.completed"
	Failed    = "batch.failed"
	Expired   = "batch.expired"
	Cancelled = "batch.cancelled"
)

// Event is the end of a batch.
type Event struct {
	// ID names the event. Defaults to a hash of BatchID, Type and Retries: a batch ends once, and again after
	// each retry of its run.
	ID string `json:"id"`
	// Type is the type, such as [Completed]. Required.
	Type string `json:"type"`
	// BatchID is batch_ and the id of the run. Required.
	BatchID string `json:"batch"`
	// At is the time of the end. Required.
	At time.Time `json:"at"`
	// Retries counts the retries of the run before this end.
	Retries int `json:"retries,omitempty"`
	// Run has more of the run, for commands. Nil for a batch that has none.
	Run *Run `json:"run,omitempty"`
}

// Run describes an ended run.
type Run struct {
	ID    string      `json:"id"`
	Label string      `json:"label,omitempty"`
	State proto.State `json:"state"`
	// Output is the run's output, as HOST:PATH without the suffixes of the files; empty if
	// there is none.
	Output string `json:"output,omitempty"`
	// Tables are the files of the run's table, as Output is named; empty if there is none.
	Tables []string `json:"tables,omitempty"`
	// Answered and Failed count the requests.
	Answered int `json:"answered"`
	Failed   int `json:"failed"`
}

// NewRunEvent returns the event of a run that has ended. A run that was retried, or made again
// under the id of an earlier one, has another event.
func NewRunEvent(m proto.Manifest) Event {
	at := m.StateSince()
	if m.EndedAt != nil {
		at = *m.EndedAt
	}

	return Event{
		ID:      hashID(m.Run, m.CreatedAt.UTC().Format(time.RFC3339Nano), fmt.Sprint(m.Retries), string(m.State)),
		Type:    "batch." + string(m.State),
		BatchID: "batch_" + m.Run,
		At:      at,
		Run: &Run{
			ID:       m.Run,
			Label:    m.Label,
			State:    m.State,
			Output:   m.Output,
			Answered: m.Counts.Done - m.Counts.Failed,
			Failed:   m.Counts.Failed,
		},
	}
}

// withID returns the event with its id.
func (e Event) withID() Event {
	switch {
	case e.ID != "":
	case e.Retries > 0:
		e.ID = hashID(e.BatchID, e.Type, fmt.Sprint(e.Retries))
	default:
		e.ID = hashID(e.BatchID, e.Type)
	}

	return e
}

// hashID makes the id of an event from the facts that make it another one.
func hashID(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return "evt_" + hex.EncodeToString(sum[:10])
}

// Body returns the event as its receivers get it, in the shape of OpenAI's events. It is the
// same with each attempt.
func (e Event) Body() []byte {
	type data struct {
		ID string `json:"id"`
	}

	body, err := json.Marshal(struct {
		ID        string `json:"id"`
		Object    string `json:"object"`
		CreatedAt int64  `json:"created_at"`
		Type      string `json:"type"`
		Data      data   `json:"data"`
	}{e.withID().ID, "event", e.At.Unix(), e.Type, data{e.BatchID}})
	if err != nil {
		panic(err) // texts and a number
	}

	return body
}

// Table returns the path of the first file of the table on a host; empty if it is not there.
func (r *Run) Table(host string) string {
	if r == nil || len(r.Tables) == 0 {
		return ""
	}

	path, ok := strings.CutPrefix(r.Tables[0], host+":")
	if !ok {
		return ""
	}

	return path
}

// OutputFiles returns the paths of the answers and of the metadata on a host; empty if they are
// not there.
func (r *Run) OutputFiles(host string) (results, meta string) {
	if r == nil {
		return "", ""
	}

	path, ok := strings.CutPrefix(r.Output, host+":")
	if !ok {
		return "", ""
	}

	return output.Prefix(path).Results(), output.Prefix(path).Meta()
}
