package notice

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// writeVendor writes what the firmware of a machine says.
func writeVendor(t *testing.T, vendor, tag string) string {
	t.Helper()

	folder := t.TempDir()
	for name, text := range map[string]string{"sys_vendor": vendor, "chassis_asset_tag": tag} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	return folder
}

// nowhere is a base at which nobody listens.
const nowhere = "http://127.0.0.1:1"

// TestAutoVendor: the cloud is known from the firmware, and nothing is asked.
func TestAutoVendor(t *testing.T) {
	for _, tt := range []struct{ vendor, tag, want string }{
		{"Amazon EC2", "Amazon EC2", "aws"},
		{"Google", "", "gcp"},
		{"Microsoft Corporation", azureTag, "azure"},
		{"Microsoft Corporation", "", ""}, // Hyper-V
		{"Dell Inc.", "", ""},
		{"QEMU", "", ""},
		{"", "", ""},
	} {
		s := &auto{
			folder: writeVendor(t, tt.vendor, tt.tag),
			clouds: clouds{
				aws:   newAWS(nowhere),
				gcp:   newGCP(nowhere),
				azure: newAzure(nowhere),
			},
		}

		found := ""
		if source := s.find(t.Context()); source != nil {
			found = source.String()
		}

		if found != tt.want {
			t.Errorf("%q with tag %q is %q, want %q", tt.vendor, tt.tag, found, tt.want)
		}
	}
}

// TestAutoProbe: where the firmware says nothing, the services are asked once.
func TestAutoProbe(t *testing.T) {
	amazon, onAWS := startAWS(t)
	amazon.set(awsAction, `{"action": "hibernate"}`)
	google, onGCP := startGCP(t)
	google.values["id"] = "7"
	google.values["preempted"] = "TRUE"
	_, onAzure := startAzure(t)

	for want, c := range map[string]clouds{
		"aws":   {aws: onAWS, gcp: newGCP(nowhere), azure: newAzure(nowhere)},
		"gcp":   {aws: newAWS(nowhere), gcp: onGCP, azure: newAzure(nowhere)},
		"azure": {aws: newAWS(nowhere), gcp: newGCP(nowhere), azure: onAzure},
	} {
		s := &auto{
			folder: t.TempDir(), // without files
			clouds: c,
		}

		if found := s.find(t.Context()); found == nil || found.String() != want {
			t.Errorf("found %v, want %s", found, want)
		}
	}
}

// TestAutoWatches: the notices are those of the cloud that was found, and a cloud that is silent later is no warning.
func TestAutoWatches(t *testing.T) {
	service, source := startAWS(t)
	w := startWatching(t, 0, &auto{
		folder: writeVendor(t, "Amazon EC2", ""),
		clouds: clouds{aws: source},
	})
	service.awaitAsked(t, awsRebalance, 1)

	service.set(awsAction, `{"action": "stop"}`)
	w.expect("aws", "spot instance: stop", awsNotice)
	w.expectLog(`"level":"debug","source":"aws","error":"/latest/meta-data/spot/instance-action: the time of the event`)
}

// TestAutoElsewhere: outside of the known clouds, the watch of them ends at once.
func TestAutoElsewhere(t *testing.T) {
	var log lockedBuffer
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(t.Context(), Config{
			Sources: []Source{&auto{
				folder: t.TempDir(),
				clouds: clouds{
					aws:   newAWS(nowhere),
					gcp:   newGCP(nowhere),
					azure: newAzure(nowhere),
				},
			}},
			Announce: func(n Notice) { t.Errorf("a notice: %+v", n) },
			Log:      zerolog.New(&log).Level(zerolog.InfoLevel),
		})
	}()

	select {
	case err := <-ended:
		if err != nil || log.String() != "" {
			t.Errorf("%v, and the log says %s", err, log.String())
		}
	case <-time.After(patience):
		t.Error("the watch lasts")
	}
}
