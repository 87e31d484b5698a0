package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v3"
)

// version is set by the release build: -ldflags "-X main.version=v1.2.3".
var version string

// build describes how this program was built.
type build struct {
	// Version is that of the release or of the module, or else dev with the commit.
	Version string `json:"version"`
	// Commit is the commit of the source. It is empty for a build with -buildvcs=false, and for a
	// module that Go has downloaded.
	Commit string `json:"commit,omitempty"`
	// Modified is set for a source with changes that are not in the commit.
	Modified bool `json:"modified,omitempty"`
	// Go is the version of Go.
	Go string `json:"go"`
	// OS is the operating system that it was built for.
	OS string `json:"os"`
	// Arch is the processor that it was built for.
	Arch string `json:"arch"`
}

// String returns the build on one line.
func (b build) String() string {
	return fmt.Sprintf("promptmill %s %s %s/%s", b.Version, b.Go, b.OS, b.Arch)
}

func versionCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the versions of promptmill and Go",
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
	return describeBuild(version, info)
}

// describeBuild returns the build with the version of the release build, if there is one, and with
// what Go has recorded.
func describeBuild(release string, info *debug.BuildInfo) build {
	b := build{Version: release, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}

	switch module := info.Main.Version; {
	case release != "":
	case module != "" && module != "(devel)": // go install ...@v1.2.3
		b.Version = module
	case len(b.Commit) > 12:
		b.Version = "dev-" + b.Commit[:12]
		if b.Modified {
			b.Version += "-dirty"
		}
	default:
		b.Version = "dev"
	}

	return b
}
