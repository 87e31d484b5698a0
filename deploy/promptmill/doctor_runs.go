package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// buckets looks at those that all runs share. made is false if the first run is still
// to make them.
func (v *visit) buckets(ctx context.Context) (list []finding, made bool) {
	const name = "buckets"
	missing := 0
	all := bus.BucketConfigs(bus.Limits{})
	for _, want := range all {
		bucket := strings.TrimPrefix(want.Name, "KV_")
		info, err := ask[jetstream.StreamInfo](ctx, v, "STREAM.INFO."+want.Name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			missing++
			continue
		case err != nil:
			list = append(list, finding{
				Name:   name,
				Status: broken,
				Detail: fmt.Sprintf("look at bucket %s: %v", bucket, refusal(err)),
				Mend:   "promptmill nats-config prints the permissions of each role",
			})

			return list, false
		}

		if changed := bucketDrift(info.Config, want); len(changed) > 0 {
			list = append(list, finding{
				Name:   name,
				Status: doubtful,
				Detail: fmt.Sprintf("%s is not as promptmill makes it: %s", bucket, strings.Join(changed, ", ")),
				Mend: "promptmill serve sets bounds and rights when it starts; set back the rest with nats stream edit " +
					want.Name,
			})
		}

		list = append(list, copies(name, want.Name, info)...)
	}

	switch {
	case missing == len(all):
		return []finding{
			{
				Name:   name,
				Status: fine,
				Detail: "none yet: the first promptmill serve, submit or run makes them, and then there are runs and a clock to look at",
			},
		}, false
	case missing > 0:
		list = append(list, finding{
			Name:   name,
			Status: doubtful,
			Detail: fmt.Sprintf("%d of %d are missing", missing, len(all)),
			Mend:   "promptmill serve makes what is missing when it starts",
		})
	case len(list) == 0:
		list = append(list, finding{
			Name:   name,
			Status: fine,
			Detail: "manifests, presence and readers' positions are there",
		})
	}

	_, err := ask[jetstream.StreamInfo](ctx, v, "STREAM.INFO.KV_"+proto.RunsBucket)

	return list, err == nil
}

// refusal is an error in words that a person knows.
func refusal(err error) error {
	if errors.Is(err, nats.ErrPermissionViolation) {
		return errors.New("this user may not")
	}
	return err
}

// bucketDrift says what of a bucket's configuration is not as it should be.
func bucketDrift(has, want jetstream.StreamConfig) []string {
	changed := drift([]setting{
		{"max_age", has.MaxAge, want.MaxAge},
		{"storage", has.Storage, want.Storage},
		{"max_msgs_per_subject", has.MaxMsgsPerSubject, want.MaxMsgsPerSubject},
		{"allow_rollup_hdrs", has.AllowRollup, want.AllowRollup},
		{"allow_direct", has.AllowDirect, want.AllowDirect},
	})
	if has.MaxBytes <= 0 {
		changed = append(changed, "max_bytes is not set, so one client can fill the disk")
	}

	return changed
}

// setting is a field of a configuration, as it is and as it should be.
type setting struct {
	field     string
	has, want any
}

// drift says which settings are not as they should be.
func drift(settings []setting) (changed []string) {
	for _, s := range settings {
		if !reflect.DeepEqual(s.has, s.want) {
			changed = append(changed, fmt.Sprintf("%s is %v instead of %v", s.field, s.has, s.want))
		}
	}
	return changed
}

// streamDrift says what of a stream's configuration would harm its run. How large it
// may grow is its maker's choice, but a work stream must have a bound.
func streamDrift(has, want jetstream.StreamConfig) []string {
	changed := drift([]setting{
		{"subjects", has.Subjects, want.Subjects},
		{"retention", has.Retention, want.Retention},
		{"storage", has.Storage, want.Storage},
		{"discard", has.Discard, want.Discard},
		{"allow_direct", has.AllowDirect, want.AllowDirect},
		// A limit of these kinds would lose messages or refuse them for good.
		{"max_age", has.MaxAge, want.MaxAge},
		{"max_msgs", has.MaxMsgs, int64(-1)},
		{"max_msgs_per_subject", has.MaxMsgsPerSubject, int64(-1)},
		{"max_msg_size", has.MaxMsgSize, int32(-1)},
		{"no_ack", has.NoAck, false},
		{"sealed", has.Sealed, false},
		{"deny_delete", has.DenyDelete, false},
		{"deny_purge", has.DenyPurge, false},
	})
	if want.Retention == jetstream.WorkQueuePolicy && has.MaxBytes <= 0 {
		changed = append(changed, "max_bytes is not set, so nothing holds the producer back")
	}

	return changed
}

// consumerDrift says what of a consumer's configuration would harm its run.
func consumerDrift(has, want jetstream.ConsumerConfig) []string {
	return drift([]setting{
		{"filter_subject", has.FilterSubject, want.FilterSubject},
		{"ack_policy", has.AckPolicy, want.AckPolicy},
		{"ack_wait", has.AckWait, want.AckWait},
		{"max_deliver", has.MaxDeliver, want.MaxDeliver},
		{"backoff", len(has.BackOff), len(want.BackOff)},
		{"max_ack_pending", has.MaxAckPending, want.MaxAckPending},
		{"max_waiting", has.MaxWaiting, want.MaxWaiting},
		{"inactive_threshold", has.InactiveThreshold, want.InactiveThreshold},
		{"headers_only", has.HeadersOnly, false},
	})
}

// runs looks at the streams and consumers of the runs that have not ended.
func (v *visit) runs(ctx context.Context) (list []finding) {
	const name = "runs"
	b, err := bus.Open(ctx, v.JS)
	var all []proto.Manifest
	if err == nil {
		listing, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		all, err = b.Runs.List(listing)
	}
	if err != nil {
		return []finding{{
			Name:   name,
			Status: broken,
			Detail: err.Error(),
			Mend:   "promptmill nats-config prints the permissions of each role",
		}}
	}

	open := slices.DeleteFunc(slices.Clone(all), func(m proto.Manifest) bool {
		return m.State.Ended() || m.State == proto.StateValidating
	})
	for i, m := range open {
		if ctx.Err() != nil {
			return append(list, finding{
				Name:   name,
				Status: doubtful,
				Detail: fmt.Sprintf("there was time for %d of %d unfinished runs", i, len(open)),
				Mend:   "run promptmill doctor nearer to the bus",
			})
		}

		list = append(list, v.run(ctx, m)...)
	}

	if len(list) == 0 {
		f := finding{
			Name:   name,
			Status: fine,
			Detail: fmt.Sprintf("%d on the bus, %d of them unfinished", len(all), len(open)),
		}
		switch {
		case v.blind:
			f.Detail += ", streams as they should be; this user may not see consumers"
		case len(open) > 0:
			f.Detail += ", streams and consumers as they should be"
		}

		list = append(list, f)
	}

	return list
}

// run looks at the streams and consumers of one run.
func (v *visit) run(ctx context.Context, m proto.Manifest) (list []finding) {
	name := "run " + m.Run
	warn := func(mend, format string, args ...any) {
		list = append(list, finding{
			Name:   name,
			Status: doubtful,
			Detail: fmt.Sprintf(format, args...),
			Mend:   mend,
		})
	}

	const again = "start promptmill serve, collect or run again: it makes what is missing"
	for _, want := range bus.RunStreamConfigs(m.Run, bus.Limits{}) {
		info, err := ask[jetstream.StreamInfo](ctx, v, "STREAM.INFO."+want.Name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			warn(again, "stream %s is missing", want.Name)
			continue
		case err != nil:
			warn("", "stream %s: %v", want.Name, refusal(err))
			continue
		}

		if changed := streamDrift(info.Config, want); len(changed) > 0 {
			warn("set it back with nats stream edit "+want.Name+", or delete the run and submit it again",
				"stream %s: %s", want.Name, strings.Join(changed, ", "))
		}

		list = append(list, copies(name, want.Name, info)...)
	}

	for _, model := range m.Models() {
		want := bus.ConsumerConfig(m.Run, model)
		stream := proto.WorkStream(m.Run)
		info, err := ask[jetstream.ConsumerInfo](ctx, v, "CONSUMER.INFO."+stream+"."+want.Durable)
		switch {
		case errors.Is(err, nats.ErrPermissionViolation):
			v.blind = true // as a reader is
			return list
		case errors.Is(err, jetstream.ErrStreamNotFound): // said above
		case errors.Is(err, jetstream.ErrConsumerNotFound):
			warn(again, "consumer %s of model %q is missing", want.Durable, model)
		case err != nil:
			warn("", "consumer %s of model %q: %v", want.Durable, model, err)
		default:
			if changed := consumerDrift(info.Config, want); len(changed) > 0 {
				warn(fmt.Sprintf("nats consumer rm %s %s, then start promptmill serve, collect or run again: it makes a new one, and no shard is lost",
					stream, want.Durable),
					"consumer %s of model %q: %s", want.Durable, model, strings.Join(changed, ", "))
			}
		}
	}

	return list
}

// copies looks at the copies of a stream in a cluster.
func copies(name, stream string, info jetstream.StreamInfo) (list []finding) {
	if info.Cluster == nil || info.Cluster.Name == "" {
		return nil // not a cluster
	}

	warn := func(mend, format string, args ...any) {
		list = append(list, finding{
			Name:   name,
			Status: doubtful,
			Detail: fmt.Sprintf(format, args...),
			Mend:   mend,
		})
	}
	if info.Config.Replicas < 2 {
		warn("nats stream edit "+stream+" --replicas 3; promptmill takes --replicas 3 for new runs",
			"stream %s has one copy in cluster %s: it is away with its server", stream, info.Cluster.Name)
	}

	if info.Cluster.Leader == "" {
		warn("start the servers that are away: more than half of them must be there", "stream %s has no leader", stream)
	}

	for _, peer := range info.Cluster.Replicas {
		if peer.Offline || !peer.Current {
			warn("look at that server", "the copy of stream %s on server %s is away or behind", stream, peer.Name)
		}
	}

	return list
}
