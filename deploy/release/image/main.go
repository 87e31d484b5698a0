package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run builds the image that a command line wants, and returns the exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, getenv)
	switch {
	case errors.Is(err, flag.ErrHelp):
		printUsage(stdout)
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "error: %v\n", err)
		return 2
	}

	if err := buildAll(ctx, o, stdout); err != nil {
		fmt.Fprintf(stderr, "error: %v\n", err)
		return 1
	}

	return 0
}

// options are the command line's.
type options struct {
	folder    string            // of the layout and the archives; empty: none
	tag       name.Tag          // of the archives, and where to push
	push      bool              // to the registry of the tag
	version   string            // of the program; empty: the commit's
	platforms []v1.Platform     // in the order of the index
	binaries  map[string]string // programs that are built already, by platform
	created   time.Time         // zero: the time of the commit
}

// platforms are the platforms of the Linux releases.
const platforms = "linux/amd64,linux/arm64"

// newFlags returns the flags, which set o.
func newFlags(o *options) (flags *flag.FlagSet, platformList, push *string) {
	flags = flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error
	flags.StringVar(&o.folder, "o", "", "`FOLDER` for the OCI layout and the archives; it must not exist or be empty")
	flags.StringVar(&o.version, "version", "", "`VERSION` of the program (default the commit)")
	platformList = flags.String("platforms", platforms, "`LIST` of platforms, separated by commas")
	push = flags.String("push", "", "push the image as `REGISTRY/NAME:TAG`, with the login of docker or podman")
	flags.Func("binary", "`PLATFORM=FILE`: take this program instead of building it; repeatable", func(s string) error {
		platform, file, ok := strings.Cut(s, "=")
		if !ok || file == "" {
			return errors.New("want PLATFORM=FILE, for example linux/amd64=dist/promptmill")
		}
		o.binaries[platform] = file
		return nil
	})

	return flags, platformList, push
}

// printUsage prints the flags.
func printUsage(out io.Writer) {
	flags, _, _ := newFlags(&options{})
	fmt.Fprintln(out, "usage: go run ./deploy/release/image [-o FOLDER] [--push REGISTRY/NAME:TAG]")
	flags.SetOutput(out)
	flags.PrintDefaults()
}

// parseOptions reads and checks the command line. SOURCE_DATE_EPOCH is the time of the image in seconds since 1970
// (https://reproducible-builds.org/specs/source-date-epoch/).
func parseOptions(args []string, getenv func(string) string) (o options, err error) {
	o.binaries = map[string]string{}
	flags, platformList, push := newFlags(&o)
	if err := flags.Parse(args); err != nil {
		return o, err
	}

	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q is not a flag; image has flags alone", flags.Arg(0))
	}

	o.push = *push != ""
	if o.folder == "" && !o.push {
		return o, errors.New("there is nothing to write; give -o FOLDER, or --push REGISTRY/NAME:TAG")
	}

	reference := *push
	if !o.push {
		reference = "promptmill:" + tagOf(o.version)
	}
	if o.tag, err = name.NewTag(reference); err != nil {
		return o, fmt.Errorf("want REGISTRY/NAME:TAG: %w", err)
	}

	if o.platforms, err = parsePlatforms(*platformList); err != nil {
		return o, err
	}

	for platform := range o.binaries {
		if !slices.ContainsFunc(o.platforms, func(p v1.Platform) bool { return p.String() == platform }) {
			return o, fmt.Errorf("--binary %s: --platforms lacks it", platform)
		}
	}

	if epoch := getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil || seconds < 0 {
			return o, fmt.Errorf("SOURCE_DATE_EPOCH is %q; want seconds since 1970", epoch)
		}
		o.created = time.Unix(seconds, 0).UTC()
	}

	return o, nil
}

// tagOf returns the tag of a version: a tag has no "+".
func tagOf(version string) string {
	if version == "" {
		return "latest"
	}
	return strings.ReplaceAll(version, "+", "-")
}

// parsePlatforms reads a list of platforms.
func parsePlatforms(list string) (parsed []v1.Platform, err error) {
	for text := range strings.SplitSeq(list, ",") {
		p, err := v1.ParsePlatform(text)
		if err != nil || p.OS != "linux" || p.Architecture == "" {
			return nil, fmt.Errorf("--platforms: %q is no platform of the image; want linux/amd64 or linux/arm64", text)
		}
		if slices.ContainsFunc(parsed, p.Equals) {
			return nil, fmt.Errorf("--platforms names %s twice", text)
		}
		parsed = append(parsed, *p)
	}

	return parsed, nil
}
