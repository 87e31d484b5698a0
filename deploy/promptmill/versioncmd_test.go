package main

import (
	"encoding/json"
	"fmt"
	"runtime"
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

	const (
		commit  = "f94ea4cc9659a817035c85d73f9225b1a779fa92"
		date    = "2026-11-28T22:04:15Z"
		pseudo  = "v1.2.4-0.20261128220415-f94ea4cc9659+dirty"
		another = "0123456789abcdef0123456789abcdef01234567"
	)
	clean := []debug.BuildSetting{
		{Key: "vcs", Value: "git"},
		{Key: "vcs.revision", Value: commit},
		{Key: "vcs.time", Value: date},
	}
	dirty := append(clean[:3:3], debug.BuildSetting{Key: "vcs.modified", Value: "true"})

	for name, tt := range map[string]struct {
		release  build
		module   string
		settings []debug.BuildSetting
		version  string
		line     string
	}{
		"no record":           {build{}, "", nil, "dev", "dev"},
		"go build":            {build{}, "(devel)", clean, "dev-f94ea4cc9659", "dev-f94ea4cc9659 (2026-11-28)"},
		"with changes":        {build{}, "(devel)", dirty, "dev-f94ea4cc9659-dirty", "dev-f94ea4cc9659-dirty (2026-11-28)"},
		"go build, no commit": {build{}, "(devel)", nil, "dev", "dev"},
		"go install":          {build{}, "v1.2.3", nil, "v1.2.3", "v1.2.3"},
		"without a workspace": {build{}, pseudo, dirty, pseudo, pseudo + " (2026-11-28)"},
		"release": {
			build{Version: "v1.2.3", Commit: commit, Date: date}, "(devel)", nil,
			"v1.2.3", "v1.2.3 (commit f94ea4cc9659, 2026-11-28)",
		},
		"release with a record of its own": {
			build{Version: "v1.2.3", Commit: another, Date: "2026-11-29T00:00:00Z"}, "(devel)", clean,
			"v1.2.3", "v1.2.3 (commit 0123456789ab, 2026-11-29)",
		},
		"release that Go knows": {
			build{Version: "v1.2.3"}, "(devel)", clean, "v1.2.3", "v1.2.3 (commit f94ea4cc9659, 2026-11-28)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := describeBuild(tt.release, &debug.BuildInfo{
				Main:     debug.Module{Version: tt.module},
				Settings: tt.settings,
			})
			if b.Version != tt.version {
				t.Errorf("version %s, want %s", b.Version, tt.version)
			}

			want := fmt.Sprintf("promptmill %s %s %s/%s", tt.line, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			if got := b.String(); got != want {
				t.Errorf("line %q, want %q", got, want)
			}
		})
	}
}
