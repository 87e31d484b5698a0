package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// programPackage is the package of the program in the image.
const programPackage = "github.com/promptmill/promptmill/deploy/promptmill"

// buildProgram returns the static program for a platform.
func buildProgram(ctx context.Context, platform v1.Platform, version string) ([]byte, error) {
	folder, err := os.MkdirTemp("", "promptmill-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)

	file := filepath.Join(folder, "promptmill")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath",
		"-ldflags", "-s -w -X main.version="+version, "-o", file, programPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+platform.OS, "GOARCH="+platform.Architecture)
	if output, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build promptmill for %s: %w\n%s", platform, err, output)
	}

	return os.ReadFile(file)
}

// machines are the processors of the platforms, as programs name theirs.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkProgram refuses a program that cannot run in the image: of another platform, or one that needs libraries.
func checkProgram(program []byte, platform v1.Platform) error {
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("it is no program for Linux: %w", err)
	}
	defer file.Close()

	if want, ok := machines[platform.Architecture]; ok && file.Machine != want {
		return fmt.Errorf("it is a program for %s, not for %s", file.Machine, want)
	}

	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP {
			return errors.New("it needs shared libraries, which the image has not; build it with CGO_ENABLED=0")
		}
	}

	return nil
}

// commit describes the commit of the source.
type commit struct {
	hash string
	time time.Time
}

// readCommit returns the last commit of the source. Without Git or a repository both fields are zero.
func readCommit(ctx context.Context) (c commit) {
	output, err := exec.CommandContext(ctx, "git", "log", "-1", "--format=%H %ct").Output()
	if err != nil {
		return c
	}

	hash, seconds, _ := strings.Cut(strings.TrimSpace(string(output)), " ")
	if n, err := strconv.ParseInt(seconds, 10, 64); err == nil {
		c = commit{hash, time.Unix(n, 0).UTC()}
	}

	return c
}
