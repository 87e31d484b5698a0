package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// ErrPlain is returned for an output whose lines do not name their requests.
var ErrPlain = errors.New("the output was written with --plain, so its lines do not say which requests they answer")

// CreateFromOutput makes a journal of the answered requests of a complete output, so that
// the failed ones can be run again. meta is the output's metadata, m the run's manifest from
// now on, and at the position after which results count: earlier ones are of the attempts
// that failed. The output files stay until the journal is complete.
//
// The journal has the lines in the order of the output, so a reader of the answers continues
// at the byte where it stopped.
func CreateFromOutput(
	out output.Prefix, meta *metadata.Run, m proto.Manifest, at Position,
) (*Journal, error) {
	if meta.Config.Plain {
		return nil, fmt.Errorf("%s: %w", out.Results(), ErrPlain)
	}

	path, err := atomicfile.FollowLinks(out.Journal())
	if err != nil {
		return nil, err
	}

	newPath := path + output.NewJournalSuffix

	file, err := atomicfile.CreateLocked(newPath, output.Mode)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}

	j, err := initJournal(newPath, file, m)
	if err != nil {
		return nil, err
	}

	err = j.appendOutput(out, meta, at)
	if err == nil {
		err = os.Rename(newPath, path)
	}
	if err == nil {
		j.path, j.resumed, j.reopened = path, true, true
		err = atomicfile.SyncDir(path)
	}
	if err != nil {
		os.Remove(newPath)
		j.Close()
		return nil, fmt.Errorf("reopen %s: %w", out.Results(), err)
	}

	return j, nil
}

// appendOutput appends the answered requests of an output.
func (j *Journal) appendOutput(out output.Prefix, meta *metadata.Run, at Position) error {
	file, err := os.Open(out.Results())
	if err != nil {
		return err
	}
	defer file.Close()

	info, err := file.Stat()
	if err != nil {
		return err
	}

	// The journal holds the same answers, so it has the same permissions.
	if err := j.file.Chmod(info.Mode().Perm()); err != nil {
		return err
	}

	dec, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("zstd decoder: %w", err)
	}
	defer dec.Close()

	return j.appendLines(bufio.NewReaderSize(dec, 1<<20), meta, at)
}

// appendLines appends the lines of an output whose requests were answered.
func (j *Journal) appendLines(lines *bufio.Reader, meta *metadata.Run, at Position) error {
	var (
		scan  jsonscan.Scanner
		frame = frameOfHistory(meta)
		seen  = roaring.New()
		next  int64 // the least index that the frame takes
	)

	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			frame.Position = at
			return j.Append(frame)
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

		if err := checkOutputLine(info, meta.Test.NumRequests, seen); err != nil {
			return err
		}

		// A frame sorts its lines by their indexes.
		if info.Index < next || frame.IsFull() {
			// The last frame is synced, and these with it.
			if err := j.appendFrame(frame, false); err != nil {
				return err
			}
			frame = &Frame{}
		}

		frame.Add(uint32(info.Index), line, info)
		next = info.Index + 1
	}
}

// checkOutputLine adds the request of a line to those that were seen, or refuses the line.
func checkOutputLine(info proto.Line, requests int, seen *roaring.Bitmap) error {
	if info.Index < 0 || info.Index >= int64(requests) || !seen.CheckedAdd(uint32(info.Index)) {
		return fmt.Errorf("%w: a line of request %d of %d", proto.ErrFormat, info.Index, requests)
	}

	if !info.Hashed {
		return fmt.Errorf("%w: the line of request %d has no request_hash", proto.ErrFormat, info.Index)
	}

	return nil
}

// frameOfHistory returns a frame with the metadata's figures of the run until now, without
// lines. The time since the run ended counts as idle.
func frameOfHistory(meta *metadata.Run) *Frame {
	r := meta.Results
	lost := metadata.OrZero(r.LostTimeSeconds)
	idle := time.Since(meta.Timestamp).Seconds() - r.InferenceTimeSeconds - lost

	f := &Frame{
		WorkerSessions:  SessionsOf(meta), // their usage stays
		Worked:          seconds(r.InferenceTimeSeconds),
		Idle:            seconds(max(0, idle)),
		Lost:            seconds(lost),
		Stops:           r.Stops,
		earlierSessions: r.Interruptions - 1,

		earlierInterruptions: r.InterruptedAt,
	}
	if meta.Series != nil {
		f.Latencies.addHistory(meta.Series)
		f.Series = *meta.Series.Clone()
	}

	return f
}

// seconds returns a duration of whole milliseconds.
func seconds(s float64) time.Duration { return time.Duration(int64(1000*s)) * time.Millisecond }

// SessionsOf returns worker sessions from which a journal arrives at the same metadata.
func SessionsOf(meta *metadata.Run) (sessions []WorkerSession) {
	for _, w := range meta.Workers {
		for i, of := range w.Sessions {
			s := WorkerSession{
				ID:             of.ID,
				Name:           w.Name,
				FirstSeen:      of.FirstSeen,
				LastSeen:       of.LastSeen,
				Host:           metadata.OrZero(w.Host),
				Version:        metadata.OrZero(of.Version),
				Platform:       metadata.OrZero(of.Platform),
				Models:         w.Models,
				Since:          of.Since,
				LoadSeconds:    w.ModelLoadTimeSeconds,
				ModelLoad:      w.ModelLoad,
				MemoryBytes:    w.MemoryBytes,
				SeveralServers: w.SeveralServers,
				Engines:        w.Engines,
			}
			if of.Requests != nil {
				s.Usage = &proto.RunUsage{
					Requests:     *of.Requests,
					EnergyJoules: of.EnergyJoules,
					Redeliveries: metadata.OrZero(of.Redeliveries),

					Rerun:             of.Rerun,
					DiscardedAttempts: of.DiscardedAttempts,
					DiscardedTokens:   of.DiscardedTokens,
					DiscardedSeconds:  of.DiscardedSeconds,
				}
			}

			if i == len(w.Sessions)-1 {
				// Of all sessions. The readings of the cards' meters are forgotten.
				s.GPUs, s.Slots = w.GPUs, w.Slots
			}

			sessions = append(sessions, s)
		}
	}

	return addDepartures(sessions, meta)
}
