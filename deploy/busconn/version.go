package busconn

import (
	"fmt"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
)

// oldestServer is the oldest supported NATS server, major and minor.
var oldestServer = [2]int{2, 11}

// CheckVersion refuses a server that is too old and warns of a version that is known to lose data.
// server is its address.
func CheckVersion(server, version string, log zerolog.Logger) error {
	if !isAtLeast(version, oldestServer) {
		return exit.Unreachable(finalError{fmt.Errorf(
			"the NATS server at %s has version %s, and promptmill needs %d.%d or later",
			server, version, oldestServer[0], oldestServer[1])},
			"update nats-server, best to 2.15.3 or later")
	}

	if LosesStreams(version) {
		log.Warn().Str("nats", version).Msg(StreamLossNote)
	}

	return nil
}

// StreamLossNote is the warning about servers that lose streams, see [LosesStreams].
const StreamLossNote = "this version of NATS deletes a stream's files when it cannot open them at its start; update it to 2.14.10, or 2.15.3 or later"

// LosesStreams reports whether a server deletes the files of a stream that it cannot open when it
// starts, for example because it has too many open files. 2.14.10 keeps them, and so do all
// versions since 2.15.3 (server/stream.go, where setupStore fails).
func LosesStreams(version string) bool {
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

// parseVersion parses a version such as 2.11.3 or 2.12.0-RC.1. It fails for servers that were built
// by hand.
func parseVersion(version string) (major, minor, patch int, ok bool) {
	n, _ := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch)
	return major, minor, patch, n >= 2
}

// isAtLeast reports whether a version has at least a major and minor number, or cannot be parsed.
func isAtLeast(version string, want [2]int) bool {
	major, minor, _, ok := parseVersion(version)
	return !ok || major > want[0] || major == want[0] && minor >= want[1]
}
