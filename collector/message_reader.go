package collector

import (
	"context"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// messageReader reads messages of results.
type messageReader struct {
	bounds  proto.Bounds
	answers *bus.AnswerStore
	scan    jsonscan.Scanner
	dropped *proto.DropCounter
	log     zerolog.Logger
}

// decodeMessage reads a message of results up to its lines. ending says that the run is ending, so
// it may have lines of requests that were not executed. [bus.IsUnrecoverable] recognises
// the error of a message that can never be read.
func (r *messageReader) decodeMessage(msg jetstream.Msg, ending bool) (batch proto.Batch, lines [][]byte, err error) {
	batch, err = r.bounds.ParseBatch(msg.Subject(), msg.Headers())
	if err != nil {
		return batch, nil, err
	}

	if batch.Ending && !ending {
		return batch, nil, &proto.FieldError{
			Field: proto.HeaderShard,
			Why:   batch.Shard + " of a run that is not ending",
		}
	}

	payload := msg.Data()
	if batch.Object != "" {
		if payload, err = r.fetchAnswer(msg); err != nil {
			return batch, nil, err
		}
	}

	lines, err = batch.SplitLines(payload)

	return batch, lines, err
}

// fetchAnswer returns the lines of a message that were too big for it.
func (r *messageReader) fetchAnswer(msg jetstream.Msg) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return r.answers.Payload(ctx, msg.Headers(), msg.Data())
}

// addLines adds the lines of a batch to a frame. seen are the requests that have a line, and
// stored is the time at which the bus got the batch. It returns the longest time that a request of the batch
// took.
func (r *messageReader) addLines(
	f *pendingFrame, seen *roaring.Bitmap, subject string, batch proto.Batch, lines [][]byte, stored time.Time,
) (took time.Duration) {
	whole, size := true, 0
	for i, index := range batch.Indexes {
		size += len(lines[i])

		info, err := batch.ParseLine(&r.scan, i, lines[i])
		if err != nil {
			r.dropResult(f, subject, info.Worker, err)
			whole = false

			continue
		}

		took = max(took, time.Duration(max(info.TotalMS, info.LatencyMS))*time.Millisecond)
		if !seen.CheckedAdd(index) {
			f.AddDuplicate(info)
			continue
		}

		f.Add(index, lines[i], info)
		if info.OK && info.TotalMS >= 0 {
			f.Latencies.Add(stored, info.TotalMS)
		}
	}

	if batch.Source != "" && whole {
		f.sources = append(f.sources, batch.Source)
	}
	if batch.Object != "" && whole {
		f.answers = append(f.answers, largeAnswer{batch.Object, int64(size)})
	}

	return took
}

// dropResult counts results that do not fit the run, and logs the first of each kind and worker,
// which may be unknown. Their requests are found missing in the end, and run again.
func (r *messageReader) dropResult(f *pendingFrame, subject string, worker []byte, err error) {
	f.Counts.Dropped++
	if !r.dropped.Add(proto.ErrorField(err), string(worker)) {
		return
	}

	r.log.Error().Err(err).Str("subject", subject).Str("worker", string(worker)).
		Msg("dropped results that do not fit the run; more of this kind are only counted")
}
