package bus_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

// A bucket of an earlier version gets the bounds and the locks of this version, and keeps its
// entries.
func TestUpdateOlder(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	for _, bucket := range []string{proto.RunsBucket, proto.PresenceBucket, proto.ReadersBucket} {
		cfg := jetstream.KeyValueConfig{Bucket: bucket, History: 1}
		if bucket == proto.PresenceBucket {
			cfg.TTL = proto.PresenceTTL
		}
		_, err := js.CreateKeyValue(t.Context(), cfg)
		must(t, err)
	}

	must(t, bus.CreateBuckets(t.Context(), js, bus.Limits{}))
	opened, err := bus.Open(t.Context(), js)
	must(t, err)
	runs := opened.Runs
	create(t, runs, manifest("r"))
	work := bus.WorkStreamConfig("r", limits)
	work.AllowDirect = true
	_, err = js.CreateStream(t.Context(), work)
	must(t, err)
	_, err = js.CreateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: proto.ObjectsBucket("r")})
	must(t, err)
	must(t, bus.New(js).Objects("r").Put(t.Context(), "x", []byte("x")))

	for range 2 {
		must(t, bus.UpgradeBuckets(t.Context(), js, bus.Limits{}))
	}

	for _, want := range bus.BucketConfigs(bus.Limits{}) {
		stream, err := js.Stream(t.Context(), want.Name)
		must(t, err)
		has := stream.CachedInfo().Config
		if has.MaxBytes != want.MaxBytes || has.MaxMsgSize != want.MaxMsgSize || has.AllowRollup || !has.AllowDirect {
			t.Errorf("%s is %+v, want %+v", want.Name, has, want)
		}
	}

	for _, name := range []string{proto.WorkStream("r"), "OBJ_" + proto.ObjectsBucket("r")} {
		stream, err := js.Stream(t.Context(), name)
		must(t, err)
		if stream.CachedInfo().Config.AllowDirect {
			t.Errorf("%s allows direct gets", name)
		}
	}

	if list, err := runs.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("runs %v, %v", list, err)
	}

	if got, err := bus.New(js).Objects("r").Get(t.Context(), "x"); err != nil || string(got) != "x" {
		t.Errorf("object %q, %v", got, err)
	}
}

// One client can neither empty a bucket by a header nor fill the disk with it.
func TestBucketsHoldTheirWritersBack(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	must(t, bus.CreateBuckets(t.Context(), js, bus.Limits{ResultsBytes: 4 << 20}))

	for _, bucket := range bus.BucketConfigs(bus.Limits{}) {
		subject := strings.TrimSuffix(bucket.Subjects[0], ">")
		put := func(key, value string, rollup string) error {
			msg := nats.NewMsg(subject + key)
			msg.Data = []byte(value)
			if rollup != "" {
				msg.Header.Set(jetstream.MsgRollup, rollup)
			}
			_, err := js.PublishMsg(t.Context(), msg)
			return err
		}

		must(t, put("a", "x", ""))
		for _, rollup := range []string{"all", "sub"} {
			if put("b", "x", rollup) == nil {
				t.Errorf("%s: rolled up", bucket.Name)
			}
		}

		if put("b", strings.Repeat("x", 2<<20), "") == nil {
			t.Errorf("%s takes a value of 2 MiB", bucket.Name)
		}

		full := false
		for i := range 30 {
			full = full || put(strings.Repeat("k", i+1), strings.Repeat("x", 200<<10), "") != nil
		}

		stream, err := js.Stream(t.Context(), bucket.Name)
		must(t, err)
		if size := stream.CachedInfo().State.Bytes; !full || size > 1<<20 {
			t.Errorf("%s took %d bytes (refused: %v)", bucket.Name, size, full)
		}

		if _, err := stream.GetLastMsgForSubject(t.Context(), subject+"a"); err != nil {
			t.Errorf("%s: %v", bucket.Name, err)
		}
	}
}
