package main

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v3"
)

// The build of a release sets these: -ldflags "-X main.version=v1.2.3 -X main.commit=HASH -X main.date=TIME".
var (
	version string
	commit  string // the whole hash
	date    string // of the commit, by RFC 3339
)

// build describes how this program was built.
type build struct {
	// Version is that of the release or of the module, or else dev with the commit.
	Version string `json:"version"`
	// Commit is the commit of the source. It is empty for a build with -buildvcs=false, and for a
	// module that Go has downloaded.
	Commit string `json:"commit,omitempty"`
	// Date is the time of the commit by RFC 3339. It is empty where Commit is.
	Date string `json:"date,omitempty"`
	// Modified is set for a source with changes that are not in the commit.
	Modified bool `json:"modified,omitempty"`
	// Go is the version of Go.
	Go string `json:"go"`
	// OS is the operating system that it was built for.
	OS string `json:"os"`
	// Arch is the processor that it was built for.
	Arch string `json:"arch"`
}

// shownCommit is the number of digits of a commit that people see.
const shownCommit = 12

// String returns the build on one line.
func (b build) String() string {
	var source []string
	if short := b.Commit[:min(len(b.Commit), shownCommit)]; !strings.Contains(b.Version, short) {
		source = append(source, "commit "+short)
	}
	if day, _, _ := strings.Cut(b.Date, "T"); day != "" {
		source = append(source, day)
	}

	text := "promptmill " + b.Version
	if len(source) > 0 {
		text += " (" + strings.Join(source, ", ") + ")"
	}

	return fmt.Sprintf("%s %s %s/%s", text, b.Go, b.OS, b.Arch)
}

func versionCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the versions of promptmill and Go, and the commit",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Bool("json") {
				return printJSON(env.stdout, readBuild())
			}
			_, err := fmt.Fprintln(env.stdout, readBuild())
			return err
		},
	}
}

// versionText returns the version of the release, of the module, or of the commit.
func versionText() string { return readBuild().Version }

// readBuild returns the build of this program.
func readBuild() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return describeBuild(build{Version: version, Commit: commit, Date: date}, info)
}

// describeBuild returns the build with what the build of the release has set, if it was one, and with
// what Go has recorded.
func describeBuild(b build, info *debug.BuildInfo) build {
	b.Go, b.OS, b.Arch = runtime.Version(), runtime.GOOS, runtime.GOARCH
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = cmp.Or(b.Commit, s.Value)
		case "vcs.time":
			b.Date = cmp.Or(b.Date, s.Value)
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}

	switch module := info.Main.Version; {
	case b.Version != "": // a release
	case module != "" && module != "(devel)": // go install ...@v1.2.3
		b.Version = module
	case len(b.Commit) > shownCommit:
		b.Version = "dev-" + b.Commit[:shownCommit]
		if b.Modified {
			b.Version += "-dirty"
		}
	default:
		b.Version = "dev"
	}

	return b
}
