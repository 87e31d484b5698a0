package release_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Two builds of one commit, in two folders and with nothing compiled in common, give the same archive, bit for bit.
func TestArchivesAreReproducible(t *testing.T) {
	t.Parallel()

	if testing.Short() {
		t.Skip("compiles promptmill twice")
	}
	for _, program := range []string{"goreleaser", "git"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs " + program)
		}
	}

	config := writeConfigOfHost(t)
	first := buildArchive(t, config, filepath.Join(t.TempDir(), "a"))
	second := buildArchive(t, config, filepath.Join(t.TempDir(), "another", "folder"), "GOCACHE="+t.TempDir())

	if sha256.Sum256(first) != sha256.Sum256(second) {
		t.Errorf("the archives of two builds differ: %d and %d bytes", len(first), len(second))
	}
}

// writeConfigOfHost writes a copy of the configuration of goreleaser with the target of this host alone. It returns the
// path.
func writeConfigOfHost(t *testing.T) string {
	t.Helper()

	text, err := os.ReadFile(".goreleaser.yaml")
	if err != nil {
		t.Fatal(err)
	}

	host := regexp.MustCompile(fmt.Sprintf("(?m)^ *- %s_%s.*\n", runtime.GOOS, runtime.GOARCH)).FindString(string(text))
	if host == "" {
		t.Skipf("releases have no archive for %s/%s", runtime.GOOS, runtime.GOARCH)
	}

	targets := regexp.MustCompile(`(?m)^    targets:\n(      - .*\n)+`)
	copied := targets.ReplaceAllString(string(text), "    targets:\n"+host)
	file := filepath.Join(t.TempDir(), "goreleaser.yaml")
	if err := os.WriteFile(file, []byte(copied), 0o600); err != nil {
		t.Fatal(err)
	}

	return file
}

// buildArchive clones the last commit into a folder, has goreleaser build the archive of this host there, and returns
// it.
func buildArchive(t *testing.T, config, folder string, env ...string) []byte {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()

	clone := exec.CommandContext(ctx, "git", "clone", "-q", filepath.Join("..", ".."), folder)
	if output, err := clone.CombinedOutput(); err != nil {
		t.Fatalf("git clone: %v\n%s", err, output)
	}

	build := exec.CommandContext(ctx, "goreleaser", "release", "--snapshot", "--clean", "--skip=sbom", "--config", config)
	build.Dir = folder
	build.Env = append(os.Environ(), env...)
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("goreleaser: %v\n%s", err, output)
	}

	archives, err := filepath.Glob(filepath.Join(folder, "dist", "promptmill-*.tar.gz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("goreleaser has made the archives %s, %v; want one", strings.Join(archives, ", "), err)
	}

	archive, err := os.ReadFile(archives[0])
	if err != nil {
		t.Fatal(err)
	}

	return archive
}
