package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const repository = "../../.."

// copyRepository copies the files of the repository that git has or would add, and returns a version that no other
// content has: Go keeps what a version once was.
func copyRepository(t *testing.T) (root, version string) {
	t.Helper()

	list := exec.CommandContext(t.Context(), "git", "-C", repository, "ls-files", "-z", "--cached", "--others",
		"--exclude-standard")
	out, err := list.Output()
	if err != nil {
		t.Skipf("needs a clone of git: %v", err)
	}

	root = t.TempDir()
	content := sha256.New()
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			continue // deleted, or a nested repository
		}

		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(content, "%q %d %s", name, len(text), text)
	}

	runIn(t, root, nil, "git", "init", "-q")
	runIn(t, root, nil, "git", "add", "--all", "--force")
	commitAll(t, root)

	return root, fmt.Sprintf("v0.0.0-test.%x", content.Sum(nil)[:8])
}

// commitAll commits the changes of the files that git knows.
func commitAll(t *testing.T, root string) {
	t.Helper()

	runIn(t, root, nil, "git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false",
		"commit", "--quiet", "--all", "--message", "all")
}

// runIn runs a command in a folder and returns its output.
func runIn(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()

	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}

	return string(out)
}

// go install installs a version, in a folder without the workspace, once a proxy has the modules. The go.sum files have
// the checksums that Go computes.
func TestGoInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}

	root, version := copyRepository(t)
	proxy := t.TempDir()

	var out bytes.Buffer
	if err := prepareRelease(root, version, proxy, &out); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), " h1:"); got != len(releasedModules) {
		t.Errorf("%d checksums:\n%s", got, out.String())
	}

	// The workspace still builds: it asks no proxy for the version.
	runIn(t, root, []string{"GOPROXY=off"}, "go", "list", "-deps", "./deploy/promptmill")

	others := strings.TrimSpace(runIn(t, root, nil, "go", "env", "GOPROXY"))
	bin := t.TempDir()
	env := []string{
		"GOWORK=off",
		"GOPROXY=file://" + proxy + "," + others,
		"GONOSUMDB=" + prefix + "*",
		"GOFLAGS=-modcacherw",
		"GOBIN=" + bin,
	}
	t.Cleanup(func() { removeFromCache(t, version) })

	// Without -mod=mod, go list fails if a checksum is missing or wrong.
	runIn(t, filepath.Join(root, "deploy"), env, "go", "list", "-deps", "./promptmill")

	runIn(t, t.TempDir(), env, "go", "install", prefix+"deploy/promptmill@"+version)
	got := runIn(t, root, nil, filepath.Join(bin, "promptmill"), "version")
	if !strings.HasPrefix(got, "promptmill "+version) {
		t.Errorf("it says %q, want %s", got, version)
	}
}

// removeFromCache removes the modules of a version from the module cache of this user.
func removeFromCache(t *testing.T, version string) {
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Error(err)
		return
	}

	root := strings.TrimSpace(string(cache))
	for _, dir := range releasedModules {
		path := filepath.Join(root, filepath.FromSlash(prefix+dir))
		downloads := filepath.Join(root, "cache", "download", filepath.FromSlash(prefix+dir), "@v")
		files, _ := filepath.Glob(filepath.Join(downloads, version+".*"))
		for _, path := range append(files, path+"@"+version) {
			if err := os.RemoveAll(path); err != nil {
				t.Error(err)
			}
		}
	}
}

// makeRepository makes a repository of small modules with the names of ours.
func makeRepository(t *testing.T) string {
	t.Helper()

	root := t.TempDir()
	work := "go 1.26.0\n"
	files := map[string]string{"LICENSE": "free", "CHANGELOG.md": "changes"}
	for _, dir := range releasedModules {
		work += "\nuse ./" + dir + "\n"
		files[dir+"/go.mod"] = "module " + prefix + dir + "\n\ngo 1.26.0\n"
		files[dir+"/go.sum"] = ""
		files[dir+"/doc.go"] = "package " + dir + "\n"
	}
	files["go.work"] = work
	files["deploy/release/go.mod"] = "module " + prefix + "deploy/release\n"
	writeFiles(t, root, files)

	runIn(t, root, nil, "git", "init", "-q")
	runIn(t, root, nil, "git", "add", "--all")
	commitAll(t, root)

	return root
}

// writeFiles writes files in a folder, by their names.
func writeFiles(t *testing.T, root string, files map[string]string) {
	t.Helper()

	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A file that is not committed would change the checksums, and so would a second content of a version. Both are refused
// before anything is written; what the release itself has written is not.
func TestRefusedSources(t *testing.T) {
	t.Parallel()

	const version = "v0.7.0"
	root := makeRepository(t)
	if err := prepareRelease(root, version, "", io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := prepareRelease(root, version, "", io.Discard); err != nil {
		t.Errorf("a second time: %v", err)
	}
	commitAll(t, root)

	refuse := func(want string) {
		t.Helper()

		if err := prepareRelease(root, version, "", io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if out := runIn(t, root, nil, "git", "status", "--porcelain", "--", "*.mod", "*.sum", "go.work"); out != "" {
			t.Errorf("it has written %s", out)
		}
	}

	writeFiles(t, root, map[string]string{"CHANGELOG.md": "more", "deploy/release/main.go": "package main"})
	if err := prepareRelease(root, version, "", io.Discard); err != nil {
		t.Errorf("files outside of the modules: %v", err)
	}

	for _, name := range []string{"worker/a new file.go", "proto/doc.go", "LICENSE"} {
		writeFiles(t, root, map[string]string{name: "package more"})
		refuse(name + " is not committed")
		runIn(t, root, nil, "git", "add", name)
		commitAll(t, root)
	}

	runIn(t, root, nil, "git", "tag", "collector/"+version)
	refuse("there is a tag collector/v0.7.0 already")
}

// A version is refused that Go would not take, before anything is written.
func TestRefusedVersions(t *testing.T) {
	t.Parallel()

	for want, args := range map[string][]string{
		"name one version":         {},
		"name one":                 {"v0.1.0", "v0.2.0"},
		`"0.1.0" is no version`:    {"0.1.0"},
		`"v0.1" is no version`:     {"v0.1"},
		"takes other paths":        {"v2.0.0"},
		"flag provided but not":    {"--dry-run", "v0.1.0"},
		`"v1.0.0+a" is no version`: {"v1.0.0+a"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(args, &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%v: code %d, %q, want %q", args, code, stderr.String(), want)
		}
	}
}

// The checksums of siblings replace earlier ones, in the order of Go.
func TestMergeSums(t *testing.T) {
	t.Parallel()

	old := "a.example/x v1.9.0 h1:a\na.example/x v1.10.0/go.mod h1:b\n" +
		prefix + "proto v0.1.0 h1:old\n" + "z.example v1.0.0 h1:z\n"
	want := "a.example/x v1.9.0 h1:a\na.example/x v1.10.0/go.mod h1:b\n" +
		prefix + "proto v0.2.0 h1:new\n" + prefix + "proto v0.2.0/go.mod h1:mod\n" + "z.example v1.0.0 h1:z\n"
	got := mergeSums([]byte(old), []string{prefix + "proto v0.2.0 h1:new\n", prefix + "proto v0.2.0/go.mod h1:mod\n"})
	if string(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
