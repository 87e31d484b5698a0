package collector

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// newSuffix is what the name of a journal ends in that is being filled.
const newSuffix = ".new"

// ErrPlain is returned for an output that does not say which line is which request's.
var ErrPlain = errors.New("the output was written with --plain, so its lines do not tell their requests' numbers")

// Reopen makes a journal of the answered requests of a complete output, so that the
// failed ones can be run again. meta is the output's metadata, m the run's manifest as
// it is to be now, and at the position from which results count: those before are of
// the attempts that failed. The output files stay until the journal is complete.
func Reopen(out Output, meta *metadata.Run, m proto.Manifest, at Position) (*Journal, error) {
	if meta.Config.Plain {
		return nil, fmt.Errorf("%s: %w", out.Results(), ErrPlain)
	}

	path, err := follow(out.Journal())
	if err != nil {
		return nil, err
	}

	file, err := createLocked(path+newSuffix, outputMode)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}

	j, err := initJournal(path+newSuffix, file, m)
	if err != nil {
		return nil, err
	}

	err = j.fill(out, meta, at)
	if err == nil {
		err = os.Rename(j.path, path)
	}
	if err == nil {
		j.path = path
		err = syncDir(j.path)
	}
	if err != nil {
		os.Remove(path + newSuffix)
		j.Close()
		return nil, fmt.Errorf("reopen %s: %w", out.Results(), err)
	}

	return j, nil
}

// fill appends the answered requests of an output.
func (j *Journal) fill(out Output, meta *metadata.Run, at Position) error {
	file, err := os.Open(out.Results())
	if err != nil {
		return err
	}
	defer file.Close()

	if info, err := file.Stat(); err != nil {
		return err
	} else if err := j.file.Chmod(info.Mode().Perm()); err != nil { // it holds the same answers
		return err
	}

	dec, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("zstd decoder: %w", err)
	}
	defer dec.Close()

	var scan jsonscan.Scanner
	f, lines := &frame{}, bufio.NewReaderSize(dec, 1<<20)
	seen := roaring.New()
	workers := stintsOf(meta) // what they have spent is spent
	first := j.history(meta)
	flush := func(position Position) error {
		seqs, text := f.lines()
		h := f.header(seqs)
		h.Run, h.At, h.Position, h.Workers = j.state.Manifest.Run, time.Now().UTC(), position, workers
		h.Series, h.Worked, h.Idle, h.Lost, h.Sessions = first.Series, first.Worked, first.Idle,
			first.Lost, first.Sessions
		first, workers, f = header{}, nil, &frame{}
		return j.append(h, seqs, text)
	}
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return flush(at)
		}
		if err != nil {
			return err
		}

		info, err := proto.ParseLine(&scan, line)
		if err != nil {
			return err
		}

		if !info.OK {
			continue
		}

		if info.Index < 0 || info.Index >= int64(meta.Test.NumRequests) || !seen.CheckedAdd(uint32(info.Index)) {
			return fmt.Errorf("%w: a line of request %d of %d", proto.ErrFormat, info.Index, meta.Test.NumRequests)
		}

		if !info.Hashed {
			return fmt.Errorf("%w: the line of request %d has no request_hash", proto.ErrFormat, info.Index)
		}

		f.add(uint32(info.Index), line, info)
		if f.full() {
			if err := flush(Position{}); err != nil {
				return err
			}
		}
	}
}

// history is what a frame says of the run until now, but for its lines. What went by
// since its end counts as idle.
func (j *Journal) history(meta *metadata.Run) header {
	j.old = true // it is gone on with
	r := meta.Results
	idle := time.Since(meta.Timestamp).Seconds() - r.InferenceTimeSeconds - orEmpty(r.LostTimeSeconds)

	return header{
		Series:   meta.Series,
		Sessions: r.Interruptions - 1,
		Worked:   int64(1000 * r.InferenceTimeSeconds),
		Idle:     int64(1000 * max(0, idle)),
		Lost:     int64(1000 * orEmpty(r.LostTimeSeconds)),
	}
}

// EndOfResults is the position of the newest message of a run's results stream, from
// which the results of a retry count.
func EndOfResults(ctx context.Context, js jetstream.JetStream, run string) (Position, error) {
	stream, err := bus.FindStream(ctx, js, proto.ResultsStream(run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return Position{}, nil
	}
	if err != nil {
		return Position{}, err
	}

	info := stream.CachedInfo()

	return Position{Created: info.Created, Seq: info.State.LastSeq, Time: info.State.LastTime}, nil
}
