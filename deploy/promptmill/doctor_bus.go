package main

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

// visit is a bus that is being looked at, by one question after the other.
type visit struct {
	*busconn.Connection
	role proto.Role // empty: not known

	blind bool // it may not see consumers

	mu     sync.Mutex
	refuse context.CancelCauseFunc // of the question that is open
}

// lookAtBus makes all checks of a bus.
func lookAtBus(ctx context.Context, l *busconn.Connection, role proto.Role) []finding {
	v := &visit{Connection: l, role: role}
	l.Conn.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if errors.Is(err, nats.ErrPermissionViolation) && v.refuse != nil {
			v.refuse(nats.ErrPermissionViolation)
		}
	})

	list := []finding{v.server(), v.payload()}
	store := v.jetStream(ctx)
	if list = append(list, store); store.Status == broken {
		return list // nothing below could be asked
	}

	buckets, made := v.buckets(ctx)
	if list = append(list, buckets...); made {
		list = append(append(list, v.runs(ctx)...), v.clock(ctx))
	}

	return list
}

// askTime is how long the bus may take for one answer.
const askTime = 3 * time.Second

// ask asks the JetStream API for v. A refused question gets no answer, only a word on
// the side: its error wraps [nats.ErrPermissionViolation].
func ask[T any](ctx context.Context, v *visit, subject string) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()

	ctx, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)

	v.mu.Lock()
	v.refuse = refuse
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

// server: is it near, and new enough?
func (v *visit) server() finding {
	f := finding{Name: "bus", Status: fine}
	trip, err := v.Conn.RTT()
	if err != nil {
		return failed("bus", exit.Unreachable(fmt.Errorf("%s does not answer: %w", v.Name, err),
			"look at the server's log"))
	}

	f.Detail = fmt.Sprintf("%s, NATS %s, %s", v.Name, v.Conn.ConnectedServerVersion(), brief(trip))
	if name := v.Conn.ConnectedClusterName(); name != "" {
		f.Detail += fmt.Sprintf(", cluster %s of %d known servers", name, len(v.Conn.Servers()))
	}

	if v.role != "" {
		f.Detail += ", as " + string(v.role)
	}
	if busconn.LosesStreams(v.Conn.ConnectedServerVersion()) {
		f.Status, f.Mend = doubtful, busconn.StreamLossNote
	}

	return f
}

// smallestPayload is twice the text of a shard, which is packed, or of a message of
// results, which is not.
const smallestPayload = 2 * defaultShardBytes

// payload: do messages of shards and results fit?
func (v *visit) payload() finding {
	f := finding{
		Name:   "bus messages",
		Status: fine,
		Detail: fmt.Sprintf("of %d KiB at most (max_payload); what is larger goes through the object store",
			v.Conn.MaxPayload()>>10),
	}
	if v.Conn.MaxPayload() < smallestPayload {
		f.Status, f.Mend = doubtful,
			fmt.Sprintf("set max_payload: %d in the server's configuration: below %d KiB almost everything takes the long way",
				natsserver.MaxPayload, smallestPayload>>10)
	}

	return f
}

// jetStream: is it on, and is there room for one more run?
func (v *visit) jetStream(ctx context.Context) finding {
	account, err := ask[jetstream.AccountInfo](ctx, v, "INFO")
	if errors.Is(err, nats.ErrPermissionViolation) {
		// Not every role sees the account. Anybody may ask for a stream, there or not.
		if _, err = ask[jetstream.StreamInfo](ctx, v, "STREAM.INFO.KV_"+proto.RunsBucket); err == nil ||
			errors.Is(err, jetstream.ErrStreamNotFound) {
			return finding{Name: "JetStream", Status: fine, Detail: "on; this user may not see its limits"}
		}
	}

	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled),
		errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return finding{
			Name:   "JetStream",
			Status: broken,
			Detail: "off: " + err.Error(),
			Mend:   "set jetstream: enabled in the server's configuration, and for the account of this user",
		}
	case errors.Is(err, nats.ErrPermissionViolation):
		return finding{
			Name:   "JetStream",
			Status: broken,
			Detail: "this user may not use it",
			Mend:   "promptmill nats-config prints the permissions of each role",
		}
	case err != nil:
		return finding{
			Name:   "JetStream",
			Status: broken,
			Detail: err.Error(),
			Mend:   "look at the server's log; a cluster without a leader does not answer",
		}
	}

	return storeRoom(account, v.Limits)
}

// storeRoom judges what the account has left for the streams of another run. The
// server sets aside what streams may grow to.
func storeRoom(account jetstream.AccountInfo, run bus.Limits) finding {
	f := finding{Name: "JetStream", Status: fine}
	taken := max(account.Store, account.ReservedStore)
	most := account.Limits.MaxStore
	if most <= 0 {
		f.Detail = fmt.Sprintf("on, %d streams, %s stored, %s set aside, no limit of the account",
			account.Streams, size(int64(account.Store)), size(int64(taken)))
		return f
	}

	f.Detail = fmt.Sprintf("on, %d streams, %s stored, %s of %s set aside",
		account.Streams, size(int64(account.Store)), size(int64(taken)), size(most))

	if need := (run.WorkBytes + run.ResultsBytes) * int64(max(1, run.Replicas)); most-int64(taken) < need {
		f.Status, f.Mend = doubtful,
			fmt.Sprintf("another run sets %s aside: promptmill delete takes ended runs off the bus, or let the account store more",
				size(need))
	}

	return f
}

// clocks that differ by more make presence, which ends by itself, and times in the
// output wrong.
const clockApart = time.Second

// clock compares the clock of this machine with that of the bus, by the time stamp that
// the bus puts into answers. Of several the one that came fastest says most.
func (v *visit) clock(ctx context.Context) finding {
	var best, apart time.Duration
	for i := range 5 {
		sent := time.Now()
		info, err := ask[jetstream.StreamInfo](ctx, v, "STREAM.INFO.KV_"+proto.RunsBucket)
		trip := time.Since(sent)
		if err != nil {
			return finding{
				Name:   "clock",
				Status: doubtful,
				Detail: "cannot be compared: " + err.Error(),
				Mend:   "look at the server's log",
			}
		}

		if i == 0 || trip < best {
			best, apart = trip, info.TimeStamp.Sub(sent.Add(trip/2))
		}
	}

	return judgeClock(apart, best)
}

// judgeClock judges how far the bus's clock is ahead, known to half a round trip.
func judgeClock(ahead, trip time.Duration) finding {
	side := "ahead of"
	if ahead < 0 {
		side = "behind"
	}

	f := finding{
		Name:   "clock",
		Status: fine,
		Detail: fmt.Sprintf("the bus is %s %s this machine, give or take %s", brief(ahead.Abs()), side, brief(trip/2)),
	}
	if ahead.Abs() <= trip/2 {
		f.Detail = "bus and machine agree, give or take " + brief(trip/2)
	}

	if ahead.Abs()-trip/2 > clockApart {
		f.Status = doubtful
		f.Mend = fmt.Sprintf("synchronise both clocks (timedatectl, chrony): announcements end after %s, runs expire and are deleted by the clock",
			proto.PresenceTTL)
	}

	return f
}

// ownBus starts a bus as run does, in a folder that is removed, and makes the streams
// of a run on it.
func ownBus(ctx context.Context, state string) finding {
	const name = "own bus"
	dir, err := os.MkdirTemp(existing(state), ".promptmill-doctor-")
	if err != nil {
		return finding{
			Name:   name,
			Status: broken,
			Detail: err.Error(),
			Mend:   "choose another place with --state DIR",
		}
	}
	defer os.RemoveAll(dir)

	begin := time.Now()
	b, err := natsserver.Start(natsserver.Config{State: dir, Dir: dir, Log: zerolog.Nop()})
	if err != nil {
		return failed(name, err)
	}
	defer b.Stop()

	err = bus.CreateBuckets(ctx, b.JS, b.Limits)
	if err == nil {
		err = bus.EnsureStreams(ctx, b.JS, proto.Manifest{Run: "doctor"}, b.Limits)
	}
	if err != nil {
		return failed(name, err)
	}

	return finding{
		Name:   name,
		Status: fine,
		Detail: fmt.Sprintf("promptmill run can start one here: NATS %s, with a run's streams after %s",
			server.VERSION, brief(time.Since(begin))),
	}
}
