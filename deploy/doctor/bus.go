package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// busCheck checks a bus with one question after the other.
type busCheck struct {
	*busconn.Connection
	role       proto.Role // empty: unknown
	minPayload int64      // bytes; less is a warning

	consumersHidden bool // this user may not see consumers

	// mu guards the fields below.
	mu             sync.Mutex
	refuseQuestion context.CancelCauseFunc // ends the open question
}

// checkBus runs all checks of a bus. minPayload is the smallest good max_payload in bytes.
func checkBus(ctx context.Context, l *busconn.Connection, role proto.Role, minPayload int64) []Finding {
	v := &busCheck{Connection: l, role: role, minPayload: minPayload}
	l.Conn.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if errors.Is(err, nats.ErrPermissionViolation) && v.refuseQuestion != nil {
			v.refuseQuestion(nats.ErrPermissionViolation)
		}
	})

	list := []Finding{v.checkServer(), v.checkPayload()}
	store := v.checkJetStream(ctx)
	if list = append(list, store); store.Status == StatusFail {
		return list // no other question has an answer
	}

	buckets, made := v.checkBuckets(ctx)
	if list = append(list, buckets...); made {
		list = append(append(list, v.checkRuns(ctx)...), v.checkClock(ctx))
	}

	return list
}

// answerTimeout is the time limit of an answer of the bus.
const answerTimeout = 3 * time.Second

// askJetStream asks the JetStream API. A refused question has no answer, only an asynchronous
// error: the returned error wraps [nats.ErrPermissionViolation] then.
func askJetStream[T any](ctx context.Context, v *busCheck, subject string) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()

	ctx, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)

	v.mu.Lock()
	v.refuseQuestion = refuse
	v.mu.Unlock()

	msg, err := v.Conn.RequestWithContext(ctx, "$JS.API."+subject, nil)
	if err != nil {
		return answer, cmp.Or(context.Cause(ctx), err)
	}

	var wrong struct{ Error *jetstream.APIError }
	if err = json.Unmarshal(msg.Data, &wrong); err != nil {
		return answer, fmt.Errorf("answer to %s: %w", subject, err)
	}

	if wrong.Error != nil {
		return answer, wrong.Error
	}

	return answer, json.Unmarshal(msg.Data, &answer)
}

// checkServer checks the round trip and the version of the server.
func (v *busCheck) checkServer() Finding {
	f := Finding{Name: "bus", Status: StatusOK}
	trip, err := v.Conn.RTT()
	if err != nil {
		return failedFinding("bus", exit.Unreachable(fmt.Errorf("%s does not answer: %w", v.Name, err),
			"look at the server's log"))
	}

	f.Detail = fmt.Sprintf("%s, NATS %s, %s", v.Name, v.Conn.ConnectedServerVersion(), formatTime(trip))
	if name := v.Conn.ConnectedClusterName(); name != "" {
		f.Detail += fmt.Sprintf(", cluster %s of %d known servers", name, len(v.Conn.Servers()))
	}

	if v.role != "" {
		f.Detail += ", as " + string(v.role)
	}
	if busconn.LosesStreams(v.Conn.ConnectedServerVersion()) {
		f.Status, f.Fix = StatusWarn, busconn.StreamLossNote
	}

	return f
}

// checkPayload checks that messages of shards, which are packed, and of results, which are not,
// fit.
func (v *busCheck) checkPayload() Finding {
	f := Finding{
		Name:   "bus messages",
		Status: StatusOK,
		Detail: fmt.Sprintf("of %d KiB at most (max_payload); larger ones go through the object store",
			v.Conn.MaxPayload()>>10),
	}
	if v.Conn.MaxPayload() < v.minPayload {
		f.Status, f.Fix = StatusWarn,
			fmt.Sprintf("set max_payload: %d in the server's configuration: below %d KiB almost every message goes through the object store",
				natsserver.MaxPayload, v.minPayload>>10)
	}

	return f
}

// checkJetStream checks that JetStream is on and has room for another run.
func (v *busCheck) checkJetStream(ctx context.Context) Finding {
	account, err := askJetStream[jetstream.AccountInfo](ctx, v, "INFO")
	if errors.Is(err, nats.ErrPermissionViolation) {
		// Not every role may see the account. Each may ask for a stream, even a missing one.
		if _, err = askJetStream[jetstream.StreamInfo](ctx, v, "STREAM.INFO.KV_"+proto.RunsBucket); err == nil ||
			errors.Is(err, jetstream.ErrStreamNotFound) {
			return Finding{Name: "JetStream", Status: StatusOK, Detail: "on; this user may not see its limits"}
		}
	}

	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled),
		errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return Finding{
			Name:   "JetStream",
			Status: StatusFail,
			Detail: "off: " + err.Error(),
			Fix:    "set jetstream: enabled in the server's configuration, and for the account of this user",
		}
	case errors.Is(err, nats.ErrPermissionViolation):
		return Finding{
			Name:   "JetStream",
			Status: StatusFail,
			Detail: "this user may not use it",
			Fix:    "promptmill nats-config prints the permissions of each role",
		}
	case err != nil:
		return Finding{
			Name:   "JetStream",
			Status: StatusFail,
			Detail: err.Error(),
			Fix:    "look at the server's log; a cluster without a leader does not answer",
		}
	}

	return judgeStore(account, v.Limits)
}

// judgeStore judges whether the account has room for the streams of another run. The server sets
// the full size of each stream aside.
func judgeStore(account jetstream.AccountInfo, run bus.Limits) Finding {
	f := Finding{Name: "JetStream", Status: StatusOK}
	taken := max(account.Store, account.ReservedStore)
	most := account.Limits.MaxStore
	if most <= 0 {
		f.Detail = fmt.Sprintf("on, %d streams, %s stored, %s set aside, no limit of the account",
			account.Streams, formatBytes(int64(account.Store)), formatBytes(int64(taken)))
		return f
	}

	f.Detail = fmt.Sprintf("on, %d streams, %s stored, %s of %s set aside",
		account.Streams, formatBytes(int64(account.Store)), formatBytes(int64(taken)), formatBytes(most))

	if need := (run.WorkBytes + run.ResultsBytes) * int64(max(1, run.Replicas)); most-int64(taken) < need {
		f.Status, f.Fix = StatusWarn,
			fmt.Sprintf("another run sets %s aside: promptmill delete takes ended runs off the bus, or let the account store more",
				formatBytes(need))
	}

	return f
}

// maxClockOffset is the largest good offset of the bus's clock: a larger one makes the expiry of
// heartbeats and the times in the output wrong.
const maxClockOffset = time.Second

// checkClock compares the clock of this machine with the time stamps in answers of the bus. The
// fastest of five answers is the most accurate.
func (v *busCheck) checkClock(ctx context.Context) Finding {
	var best, apart time.Duration
	for i := range 5 {
		sent := time.Now()
		info, err := askJetStream[jetstream.StreamInfo](ctx, v, "STREAM.INFO.KV_"+proto.RunsBucket)
		trip := time.Since(sent)
		if err != nil {
			return Finding{
				Name:   "clock",
				Status: StatusWarn,
				Detail: "cannot be compared: " + err.Error(),
				Fix:    "look at the server's log",
			}
		}

		if info.TimeStamp.IsZero() {
			return Finding{
				Name:   "clock",
				Status: StatusWarn,
				Detail: "cannot be compared: the server does not send its time",
				Fix:    "update nats-server, best to 2.15.3 or later",
			}
		}

		if i == 0 || trip < best {
			best, apart = trip, info.TimeStamp.Sub(sent.Add(trip/2))
		}
	}

	return judgeClock(apart, best)
}

// judgeClock judges how far the bus's clock is ahead, which is known to half a round trip.
func judgeClock(ahead, trip time.Duration) Finding {
	side := "ahead of"
	if ahead < 0 {
		side = "behind"
	}

	f := Finding{
		Name:   "clock",
		Status: StatusOK,
		Detail: fmt.Sprintf("the bus is %s %s this machine, give or take %s",
			formatTime(ahead.Abs()), side, formatTime(trip/2)),
	}
	if ahead.Abs() <= trip/2 {
		f.Detail = "bus and machine agree, give or take " + formatTime(trip/2)
	}

	if ahead.Abs()-trip/2 > maxClockOffset {
		f.Status = StatusWarn
		f.Fix = fmt.Sprintf("synchronise both clocks (timedatectl, chrony): announcements end after %s, runs expire and are deleted by the clock",
			proto.PresenceTTL)
	}

	return f
}

// checkOwnBus starts a bus as run does, in a folder that it removes, and creates the streams of a
// run there.
func checkOwnBus(ctx context.Context, state string) Finding {
	const name = "own bus"
	dir, err := os.MkdirTemp(nearestFolder(state), ".promptmill-doctor-")
	if err != nil {
		return Finding{
			Name:   name,
			Status: StatusFail,
			Detail: err.Error(),
			Fix:    "choose another place with --state DIR",
		}
	}
	defer os.RemoveAll(dir)

	begin := time.Now()
	b, err := natsserver.Start(natsserver.Config{State: dir, Dir: dir, Log: zerolog.Nop()})
	if err != nil {
		return failedFinding(name, err)
	}
	defer b.Stop()

	err = bus.CreateBuckets(ctx, b.JS, b.Limits)
	if err == nil {
		err = bus.EnsureStreams(ctx, b.JS, proto.Manifest{Run: "doctor"}, b.Limits)
	}
	if err != nil {
		return failedFinding(name, err)
	}

	return Finding{
		Name:   name,
		Status: StatusOK,
		Detail: fmt.Sprintf("promptmill run can start one here: NATS %s, with a run's streams after %s",
			server.VERSION, formatTime(time.Since(begin))),
	}
}
