package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// programs are the executables of a deployment.
type programs struct {
	self, promptmill string
	clockSkipped     error // why no clock can be stepped
}

// copyPrograms puts a promptmill that was built before, and this program for its children,
// where build would put them: left processes of a deployment are found by the path
// of its program.
func copyPrograms(ctx context.Context, promptmill, bin string) (p programs, err error) {
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return p, err
	}

	self, err := os.Executable()
	if err != nil {
		return p, err
	}

	p.self, p.promptmill = filepath.Join(bin, "chaos"), filepath.Join(bin, "promptmill")

	for from, to := range map[string]string{self: p.self, promptmill: p.promptmill} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, data, 0o755)
		}
		if err != nil {
			return p, fmt.Errorf("copy a program: %w", err)
		}
	}

	for _, program := range []string{p.promptmill, p.self} {
		if !canStep(ctx, program) {
			p.clockSkipped = skipped(fmt.Sprintf("steps of the clock, since %s was not built by chaos --build",
				filepath.Base(program)))
		}
	}

	return p, nil
}

// buildPrograms builds promptmill, and this program for its children, with clocks that can be
// stepped where that is possible.
func buildPrograms(ctx context.Context, bin string) (p programs, err error) {
	overlays := filepath.Join(bin, "overlay")
	if err := os.MkdirAll(overlays, 0o755); err != nil {
		return p, err
	}

	p.self, p.promptmill = filepath.Join(bin, "chaos"), filepath.Join(bin, "promptmill")

	args := []string{"build", "-o", bin}
	overlay, err := overlayTime(overlays)
	if _, ok := errors.AsType[skipped](err); ok {
		p.clockSkipped = err
	} else if err != nil {
		return p, err
	} else {
		args = append(args, "-overlay", overlay)
	}

	const in = "github.com/promptmill/promptmill/deploy/"
	if out, err := exec.CommandContext(ctx, "go",
		append(args, in+"promptmill", in+"chaos")...).CombinedOutput(); err != nil {
		return p, fmt.Errorf("build promptmill: %w: %s", err, out)
	}

	return p, nil
}
