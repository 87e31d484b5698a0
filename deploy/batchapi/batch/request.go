package batch

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// Request describes a batch to create.
type Request struct {
	// Owner is the id of the API key; empty if none is needed.
	Owner string
	// Endpoint is the path of all requests, one of [proto.Endpoints].
	Endpoint string
	// InputFileID is the file of requests, of the purpose batch. The caller checks that Owner
	// may see it.
	InputFileID string
	// CompletionWindow is the time for the batch, such as 24h or 7d.
	CompletionWindow string
	// Metadata are pairs that the client keeps with the batch, at most [MaxPairs].
	Metadata map[string]string
	// Model is the model of requests that name none, of at most [MaxModel] bytes. Defaults to the
	// model of Config.Settings, or else to the one model that the workers serve.
	Model string
	// OutputExpiresAfter is the time after the end at which the output is removed, in whole
	// seconds. 0: never.
	OutputExpiresAfter time.Duration
	// IdempotencyKey names the request: another one of the owner with that key returns the same
	// batch. Optional.
	IdempotencyKey string
	// Retried reports that the client may have sent the same request before. The batch of an equal
	// request of the last ten minutes is returned then.
	Retried bool
}

// The limits of a [Request].
const (
	// MaxPairs is the most pairs of metadata.
	MaxPairs = 16
	// MaxKey and MaxValue are the longest key and value of metadata, in characters.
	MaxKey   = 64
	MaxValue = 512
	// MaxWindow is the longest completion window.
	MaxWindow = 365 * 24 * time.Hour
	// MaxIdempotencyKey is the longest idempotency key, in bytes.
	MaxIdempotencyKey = 255
	// MaxModel is the longest name of a model, in bytes. The run's manifest has it, which must
	// fit into a message of the bus.
	MaxModel = 1024
)

// retryTime is the time in which an equal request is taken for the same one.
const retryTime = 10 * time.Minute

// check returns a [RequestError] for a request that cannot be a batch, and else its completion
// window.
func (q Request) check() (window time.Duration, err error) {
	switch {
	case q.Endpoint == "":
		return 0, &RequestError{
			Message: "The batch has no endpoint: use one of " + strings.Join(proto.Endpoints, ", ") + ".",
			Param:   "endpoint",
			Code:    "missing_required_parameter",
		}
	case !slices.Contains(proto.Endpoints, q.Endpoint):
		return 0, &RequestError{
			Message: fmt.Sprintf("The endpoint %q is unknown: use one of %s.", proto.Excerpt(q.Endpoint),
				strings.Join(proto.Endpoints, ", ")),
			Param: "endpoint",
			Code:  "invalid_endpoint",
		}
	case q.InputFileID == "":
		return 0, &RequestError{
			Message: "The batch has no input_file_id: upload a file with the purpose \"batch\" first.",
			Param:   "input_file_id",
			Code:    "missing_required_parameter",
		}
	case q.OutputExpiresAfter < 0:
		return 0, &RequestError{
			Message: "output_expires_after must not be negative.",
			Param:   "output_expires_after",
			Code:    "invalid_output_expires_after",
		}
	case len(q.Model) > MaxModel:
		return 0, &RequestError{
			Message: fmt.Sprintf("The model has %d bytes: use at most %d.", len(q.Model), MaxModel),
			Param:   "model",
			Code:    "invalid_model",
		}
	case len(q.IdempotencyKey) > MaxIdempotencyKey:
		return 0, &RequestError{
			Message: fmt.Sprintf("The idempotency key has %d bytes: use at most %d.",
				len(q.IdempotencyKey), MaxIdempotencyKey),
			Code: "invalid_idempotency_key",
		}
	}

	if err := checkMetadata(q.Metadata); err != nil {
		return 0, err
	}

	return parseWindow(q.CompletionWindow)
}

// checkMetadata returns a [RequestError] for metadata of which the API takes no more.
func checkMetadata(metadata map[string]string) error {
	refuse := func(format string, args ...any) error {
		return &RequestError{Message: fmt.Sprintf(format, args...), Param: "metadata", Code: "invalid_metadata"}
	}

	if len(metadata) > MaxPairs {
		return refuse("The metadata has %d pairs: use at most %d.", len(metadata), MaxPairs)
	}

	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		switch n := utf8.RuneCountInString(key); {
		case n == 0:
			return refuse("The metadata has an empty key: give it a name.")
		case n > MaxKey:
			return refuse("The metadata key %q has %d characters: use at most %d.", proto.Excerpt(key), n, MaxKey)
		}

		if n := utf8.RuneCountInString(metadata[key]); n > MaxValue {
			return refuse("The value of the metadata key %q has %d characters: use at most %d.", proto.Excerpt(key), n,
				MaxValue)
		}
	}

	return nil
}

var (
	// days matches the days at the beginning of a duration.
	days = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)d`)
	// longDuration matches durations that are too long for Go to read.
	longDuration = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`)
)

// parseWindow reads a completion window: a duration of Go, with days at its beginning if there
// are some.
func parseWindow(text string) (time.Duration, error) {
	refuse := func(why string) error {
		return &RequestError{
			Message: fmt.Sprintf("The completion window %q %s, such as 24h, 90m or 7d.", proto.Excerpt(text), why),
			Param:   "completion_window",
			Code:    "invalid_completion_window",
		}
	}

	if text == "" {
		return 0, &RequestError{
			Message: "The batch has no completion_window: give the time that it may take, such as 24h.",
			Param:   "completion_window",
			Code:    "missing_required_parameter",
		}
	}

	rest := text
	var window time.Duration
	if found := days.FindStringSubmatch(text); found != nil {
		n, err := strconv.ParseFloat(found[1], 64)
		if err != nil || n*24 > MaxWindow.Hours() {
			return 0, refuse("is too long: it must be at most 365 days")
		}
		window, rest = time.Duration(n*24*float64(time.Hour)), text[len(found[0]):]
	}

	if rest != "" {
		d, err := time.ParseDuration(rest)
		switch {
		case err != nil && longDuration.MatchString(rest):
			return 0, refuse("is too long: it must be at most 365 days")
		case err != nil || rest != text && d < 0:
			return 0, refuse("is no duration: give a number and a unit")
		case d > MaxWindow:
			return 0, refuse("is too long: it must be at most 365 days")
		}

		window += d
	}

	switch {
	case window <= 0:
		return 0, refuse("must be more than 0")
	case window > MaxWindow:
		return 0, refuse("is too long: it must be at most 365 days")
	}

	return window, nil
}

// newRecord returns the record of a new batch.
func (q Request) newRecord(input filestore.File, settings proto.Settings, window time.Duration, now time.Time) *record {
	if settings.OverrideModel == "" {
		settings.Model = cmp.Or(q.Model, settings.Model)
	}

	return &record{
		Version:            recordVersion,
		Run:                proto.NewRunID(now),
		Owner:              q.Owner,
		Endpoint:           q.Endpoint,
		InputFileID:        q.InputFileID,
		CompletionWindow:   q.CompletionWindow,
		Metadata:           maps.Clone(q.Metadata),
		IdempotencyKey:     q.IdempotencyKey,
		InputSHA256:        input.SHA256,
		InputName:          input.Filename,
		Settings:           settings,
		OutputExpiresAfter: int64(q.OutputExpiresAfter / time.Second),
		OutputFileID:       newFileID(),
		ErrorFileID:        newFileID(),
		State:              proto.StateValidating,
		CreatedAt:          now,
		ExpiresAt:          now.Add(window),
	}
}

// isSameRequest reports whether two records are of equal requests. The same bytes under another id
// are the same input: a client that sends requests inline uploads them again with each attempt.
func isSameRequest(a, b *record) bool {
	sameInput := a.InputFileID == b.InputFileID || a.InputSHA256 != "" && a.InputSHA256 == b.InputSHA256

	return a.Owner == b.Owner && a.Endpoint == b.Endpoint && sameInput && a.CompletionWindow == b.CompletionWindow &&
		maps.Equal(a.Metadata, b.Metadata) && a.Settings.Model == b.Settings.Model &&
		a.OutputExpiresAfter == b.OutputExpiresAfter
}

// getInput returns the input of a request, or a [RequestError].
func (s *Service) getInput(id string, now time.Time) (filestore.File, error) {
	input, err := s.cfg.Files.Get(id)
	switch expired := !input.ExpiresAt.IsZero() && !now.Before(input.ExpiresAt); {
	case errors.Is(err, filestore.ErrNotFound) || err == nil && expired:
		return input, &RequestError{
			Message: fmt.Sprintf("There is no file %q: upload it with the purpose \"batch\" first.", proto.Excerpt(id)),
			Param:   "input_file_id",
			Code:    "file_not_found",
		}
	case err != nil:
		return input, err
	case input.Purpose != filestore.PurposeBatch:
		return input, &RequestError{
			Message: fmt.Sprintf("File %s has the purpose %q: upload it with the purpose \"batch\".", id,
				proto.Excerpt(input.Purpose)),
			Param: "input_file_id",
			Code:  "invalid_file_purpose",
		}
	}

	return input, nil
}

// makeLabel returns the label of a run whose input has a name, empty if the name has no part of
// one.
func makeLabel(name string) string {
	label := strings.TrimSpace(terminal.Printable(strings.ToValidUTF8(name, "")))
	for len(label) > proto.MaxLabel {
		_, size := utf8.DecodeLastRuneInString(label)
		label = strings.TrimSpace(label[:len(label)-size])
	}

	if proto.CheckLabel(label) != nil {
		return ""
	}

	return label
}
