package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"golang.org/x/mod/semver"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `Usage: go run ./deploy/release/modules [--proxy FOLDER] VERSION

It writes VERSION, such as v0.1.0, and the checksums of the siblings into the go.mod and go.sum of each module that a
release has, and VERSION into go.work. Run it at the top of the repository, with the files of the modules committed.

  --proxy FOLDER   also write the modules there, for GOPROXY=file://FOLDER
`

// run prepares the modules that a command line names, and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("modules", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	proxy := flags.String("proxy", "", "")

	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return 0
	}

	version := flags.Arg(0)
	switch {
	case err != nil:
	case flags.NArg() != 1:
		err = errors.New("name one version, such as v0.1.0")
	case semver.Canonical(version) != version || semver.Build(version) != "":
		err = fmt.Errorf("%q is no version of a module: write it as v0.1.0", version)
	case semver.Compare(semver.Major(version), "v1") > 0:
		err = fmt.Errorf("%s takes other paths of the modules: they have to end with /%s", version, semver.Major(version))
	}
	if err != nil {
		fmt.Fprintf(stderr, "error: %v\n", err)
		return 2
	}

	if err := prepareRelease(".", version, *proxy, stdout); err != nil {
		fmt.Fprintf(stderr, "error: %v\n", err)
		return 1
	}

	return 0
}

// prepareRelease writes a version into the modules of the repository in root, and into a proxy if one is named.
func prepareRelease(root, version, proxy string, stdout io.Writer) error {
	list, err := readModules(root)
	if err != nil {
		return err
	}

	if err := checkSource(root, version); err != nil {
		return err
	}

	var released []*module
	for _, m := range list {
		if err := m.requireSiblings(version, released); err != nil {
			return err
		}

		if err := m.hashFiles(version); err != nil {
			return err
		}

		if proxy != "" {
			if err := m.writeTo(proxy, version); err != nil {
				return err
			}
		}

		released = append(released, m)
		fmt.Fprintf(stdout, "%s %s %s\n", m.path, version, m.zipSum)
	}

	return replaceInWorkspace(root, version, released)
}
