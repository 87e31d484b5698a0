package doctor

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

// checkBuckets checks the buckets that all runs share. made is false before the first run.
func (v *busCheck) checkBuckets(ctx context.Context) (list []Finding, made bool) {
	const name = "buckets"
	missing := 0
	all := bus.BucketConfigs(bus.Limits{})
	for _, want := range all {
		bucket := strings.TrimPrefix(want.Name, "KV_")
		info, err := askJetStream[jetstream.StreamInfo](ctx, v, "STREAM.INFO."+want.Name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			missing++
			continue
		case err != nil:
			list = append(list, Finding{
				Name:   name,
				Status: StatusFail,
				Detail: fmt.Sprintf("look at bucket %s: %v", bucket, describeRefusal(err)),
				Fix:    "promptmill nats-config prints the permissions of each role",
			})

			return list, false
		}

		if changed := findBucketDrift(info.Config, want); len(changed) > 0 {
			list = append(list, Finding{
				Name:   name,
				Status: StatusWarn,
				Detail: fmt.Sprintf("%s differs from promptmill's settings: %s", bucket, strings.Join(changed, ", ")),
				Fix: "promptmill serve sets bounds and rights when it starts; set back the rest with nats stream edit " +
					want.Name,
			})
		}

		list = append(list, checkReplicas(name, want.Name, info)...)
	}

	switch {
	case missing == len(all):
		return []Finding{
			{
				Name:   name,
				Status: StatusOK,
				Detail: "none yet: the first promptmill serve, submit or run creates them, and doctor then checks the runs and the clock",
			},
		}, false
	case missing > 0:
		list = append(list, Finding{
			Name:   name,
			Status: StatusWarn,
			Detail: fmt.Sprintf("%d of %d are missing", missing, len(all)),
			Fix:    "promptmill serve creates the missing ones when it starts",
		})
	case len(list) == 0:
		list = append(list, Finding{
			Name:   name,
			Status: StatusOK,
			Detail: "manifests, presence and readers' positions are there",
		})
	}

	_, err := askJetStream[jetstream.StreamInfo](ctx, v, "STREAM.INFO.KV_"+proto.RunsBucket)

	return list, err == nil
}

// describeRefusal returns an error that names a refusal plainly.
func describeRefusal(err error) error {
	if errors.Is(err, nats.ErrPermissionViolation) {
		return errors.New("this user may not")
	}
	return err
}

// findBucketDrift returns the differences in the configuration of a bucket.
func findBucketDrift(has, want jetstream.StreamConfig) []string {
	changed := findDrift([]setting{
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

// setting is a field of a configuration: its value and the expected one.
type setting struct {
	field     string
	has, want any
}

// findDrift returns the settings that differ.
func findDrift(settings []setting) (changed []string) {
	for _, s := range settings {
		if !reflect.DeepEqual(s.has, s.want) {
			changed = append(changed, fmt.Sprintf("%s is %v instead of %v", s.field, s.has, s.want))
		}
	}
	return changed
}

// findStreamDrift returns the settings of a stream that would harm its run. Its size is the choice
// of its creator, but a work stream must have a limit.
func findStreamDrift(has, want jetstream.StreamConfig) []string {
	changed := findDrift([]setting{
		{"subjects", has.Subjects, want.Subjects},
		{"retention", has.Retention, want.Retention},
		{"storage", has.Storage, want.Storage},
		{"discard", has.Discard, want.Discard},
		{"allow_direct", has.AllowDirect, want.AllowDirect},
		// These limits would lose messages or refuse them for good.
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

// findConsumerDrift returns the settings of a consumer that would harm its run.
func findConsumerDrift(has, want jetstream.ConsumerConfig) []string {
	return findDrift([]setting{
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

// checkRuns checks the streams and consumers of the runs that have not ended.
func (v *busCheck) checkRuns(ctx context.Context) (list []Finding) {
	const name = "runs"
	b, err := bus.Open(ctx, v.JS)
	var all []proto.Manifest
	if err == nil {
		listing, cancel := context.WithTimeout(ctx, answerTimeout)
		defer cancel()
		all, err = b.Runs.List(listing)
	}
	if err != nil {
		return []Finding{{
			Name:   name,
			Status: StatusFail,
			Detail: err.Error(),
			Fix:    "promptmill nats-config prints the permissions of each role",
		}}
	}

	open := slices.DeleteFunc(slices.Clone(all), func(m proto.Manifest) bool {
		return m.State.Ended() || m.State == proto.StateValidating
	})
	for i, m := range open {
		if ctx.Err() != nil {
			return append(list, Finding{
				Name:   name,
				Status: StatusWarn,
				Detail: fmt.Sprintf("there was time for %d of %d unfinished runs", i, len(open)),
				Fix:    "run promptmill doctor nearer to the bus",
			})
		}

		list = append(list, v.checkRun(ctx, m)...)
	}

	if len(list) == 0 {
		f := Finding{
			Name:   name,
			Status: StatusOK,
			Detail: fmt.Sprintf("%d on the bus, %d of them unfinished", len(all), len(open)),
		}
		switch {
		case v.consumersHidden:
			f.Detail += ", streams as they should be; this user may not see consumers"
		case len(open) > 0:
			f.Detail += ", streams and consumers as they should be"
		}

		list = append(list, f)
	}

	return list
}

// checkRun checks the streams and consumers of one run.
func (v *busCheck) checkRun(ctx context.Context, m proto.Manifest) (list []Finding) {
	name := "run " + m.Run
	warn := func(fix, format string, args ...any) {
		list = append(list, Finding{
			Name:   name,
			Status: StatusWarn,
			Detail: fmt.Sprintf(format, args...),
			Fix:    fix,
		})
	}

	const again = "start promptmill serve, collect or run again: it creates missing streams and consumers"
	for _, want := range bus.RunStreamConfigs(m.Run, bus.Limits{}) {
		info, err := askJetStream[jetstream.StreamInfo](ctx, v, "STREAM.INFO."+want.Name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			warn(again, "stream %s is missing", want.Name)
			continue
		case err != nil:
			warn("", "stream %s: %v", want.Name, describeRefusal(err))
			continue
		}

		if changed := findStreamDrift(info.Config, want); len(changed) > 0 {
			warn("set it back with nats stream edit "+want.Name+", or delete the run and submit it again",
				"stream %s: %s", want.Name, strings.Join(changed, ", "))
		}

		list = append(list, checkReplicas(name, want.Name, info)...)
	}

	for _, model := range m.Models() {
		want := bus.ConsumerConfig(m.Run, model)
		stream := proto.WorkStream(m.Run)
		info, err := askJetStream[jetstream.ConsumerInfo](ctx, v, "CONSUMER.INFO."+stream+"."+want.Durable)
		switch {
		case errors.Is(err, nats.ErrPermissionViolation):
			v.consumersHidden = true // as a reader is
			return list
		case errors.Is(err, jetstream.ErrStreamNotFound): // said above
		case errors.Is(err, jetstream.ErrConsumerNotFound):
			warn(again, "consumer %s of model %q is missing", want.Durable, model)
		case err != nil:
			warn("", "consumer %s of model %q: %v", want.Durable, model, err)
		default:
			if changed := findConsumerDrift(info.Config, want); len(changed) > 0 {
				warn(fmt.Sprintf("nats consumer rm %s %s, then start promptmill serve, collect or run again: it creates a new one, and no shard is lost",
					stream, want.Durable),
					"consumer %s of model %q: %s", want.Durable, model, strings.Join(changed, ", "))
			}
		}
	}

	return list
}

// checkReplicas checks the copies of a stream in a cluster.
func checkReplicas(name, stream string, info jetstream.StreamInfo) (list []Finding) {
	if info.Cluster == nil || info.Cluster.Name == "" {
		return nil // not a cluster
	}

	warn := func(fix, format string, args ...any) {
		list = append(list, Finding{
			Name:   name,
			Status: StatusWarn,
			Detail: fmt.Sprintf(format, args...),
			Fix:    fix,
		})
	}
	if info.Config.Replicas < 2 {
		warn("nats stream edit "+stream+" --replicas 3; promptmill takes --replicas 3 for new runs",
			"stream %s has one copy in cluster %s: it is lost with its server", stream, info.Cluster.Name)
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
