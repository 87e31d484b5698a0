package main

import (
	"encoding/json"
	"runtime/debug"
	"testing"
)

func TestVersion(t *testing.T) {
	t.Parallel()

	want := readBuild()
	for _, arg := range []string{"version", "--version", "-V"} {
		if got := printedHelp(t, arg); got != want.String()+"\n" {
			t.Errorf("promptmill %s prints %q, want %q", arg, got, want)
		}
	}

	var got build
	if err := json.Unmarshal([]byte(printedHelp(t, "version", "--json")), &got); err != nil || got != want {
		t.Errorf("promptmill version --json prints %+v (%v), want %+v", got, err, want)
	}
}

func TestDescribeBuild(t *testing.T) {
	t.Parallel()

	const commit = "f94ea4cc9659a817035c85d73f9225b1a779fa92"
	clean := []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: commit}}
	dirty := append(clean[:2:2], debug.BuildSetting{Key: "vcs.modified", Value: "true"})

	for name, tt := range map[string]struct {
		release, module string
		settings        []debug.BuildSetting
		want            string
	}{
		"no record":           {"", "", nil, "dev"},
		"go build":            {"", "(devel)", clean, "dev-f94ea4cc9659"},
		"with changes":        {"", "(devel)", dirty, "dev-f94ea4cc9659-dirty"},
		"go build, no commit": {"", "(devel)", nil, "dev"},
		"go install":          {"", "v1.2.3", nil, "v1.2.3"},
		"without a workspace": {"", "v1.2.4-0.20261128220415-f94ea4cc9659+dirty", dirty,
			"v1.2.4-0.20261128220415-f94ea4cc9659+dirty"},
		"release": {"v1.2.3", "(devel)", dirty, "v1.2.3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := describeBuild(tt.release, &debug.BuildInfo{
				Main:     debug.Module{Version: tt.module},
				Settings: tt.settings,
			})
			if b.Version != tt.want {
				t.Errorf("version %s, want %s", b.Version, tt.want)
			}

			if (b.Commit == commit) != (tt.settings != nil) {
				t.Errorf("commit %q", b.Commit)
			}
		})
	}
}
