package main

import (
	"fmt"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
)

// oldestServer is the oldest NATS server that has all that is used, major and minor.
var oldestServer = [2]int{2, 11}

// checkServer refuses a server that is too old, and warns of one that is known to lose
// data.
func checkServer(version string, log zerolog.Logger) error {
	if !atLeast(version, oldestServer) {
		return exit.Unreachable(finalError{fmt.Errorf("the server is NATS %s, and promptmill needs %d.%d or later",
			version, oldestServer[0], oldestServer[1])},
			"update nats-server, best to 2.15.3 or later")
	}

	if losesStreams(version) {
		log.Warn().Str("nats", version).Msg(lossOfStreams)
	}

	return nil
}

// lossOfStreams is what to know of servers that lose streams.
const lossOfStreams = "this version of NATS deletes a stream's files when it cannot open them at its start; update it to 2.14.10, or 2.15.3 or later"

// losesStreams reports whether a server deletes the files of a stream that it cannot open
// at its start, with a full table of open files for example. Those that keep them: 2.14.10,
// and all since 2.15.3 (server/stream.go, where setupStore fails).
func losesStreams(version string) bool {
	major, minor, patch, ok := parseVersion(version)
	switch {
	case !ok || major > 2 || major == 2 && minor > 15:
		return false
	case major == 2 && minor == 15:
		return patch < 3
	case major == 2 && minor == 14:
		return patch < 10
	}

	return true
}

// parseVersion reads a version such as 2.11.3 or 2.12.0-RC.1. One that cannot be read is
// of a server built by hand.
func parseVersion(version string) (major, minor, patch int, ok bool) {
	n, _ := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch)
	return major, minor, patch, n >= 2
}

// atLeast compares a version with a major and minor number. One that cannot be read
// passes.
func atLeast(version string, want [2]int) bool {
	major, minor, _, ok := parseVersion(version)
	return !ok || major > want[0] || major == want[0] && minor >= want[1]
}
