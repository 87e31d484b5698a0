package gpu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Query reads the cards once, by index, with the version of their driver. The error wraps
// [ErrNone] if there is no nvidia-smi or if it finds no card.
func Query(ctx context.Context) (cards []Reading, driver string, err error) {
	return runQuery(ctx, "nvidia-smi")
}

// runQuery is Query with a path or a name of nvidia-smi.
func runQuery(ctx context.Context, command string) (cards []Reading, driver string, err error) {
	path, err := exec.LookPath(command)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrNone, err)
	}

	cmd := exec.CommandContext(ctx, path, "--query-gpu=driver_version,"+queryFields, "--format=csv,noheader,nounits")
	cmd.WaitDelay = time.Second // for its pipes, if it is a script and has children
	out, err := cmd.CombinedOutput()
	var message string
	for line := range strings.Lines(string(out)) {
		version, rest, _ := strings.Cut(strings.TrimSpace(line), ", ")
		if r, _, ok := parseReading(rest); ok {
			cards, driver = append(cards, r), knownField(version)
		} else {
			message = strings.TrimSpace(line)
		}
	}

	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case ok && slices.Contains(noCardExits, exit.ExitCode()):
		return nil, "", fmt.Errorf("%w: %s", ErrNone, message)
	case errors.Is(err, fs.ErrNotExist): // its loader is missing, see runOnce
		return nil, "", fmt.Errorf("%w: %w", ErrNone, err)
	case ctx.Err() != nil:
		return nil, "", fmt.Errorf("nvidia-smi: %w", context.Cause(ctx))
	case err != nil:
		return nil, "", fmt.Errorf("nvidia-smi: %w: %s", err, message)
	case len(cards) == 0:
		return nil, "", fmt.Errorf("nvidia-smi: it names no card: %s", message)
	}

	return cards, driver, nil
}
