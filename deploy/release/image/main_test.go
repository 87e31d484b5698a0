package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// smallProgram returns the path of a static program that stands for promptmill, which takes minutes to build on a busy
// machine.
var smallProgram = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "promptmill-image-test-")
	if err != nil {
		return "", err
	}

	source := filepath.Join(folder, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() { println(\"small\") }\n"), 0o600); err != nil {
		return "", err
	}

	program := filepath.Join(folder, "program")
	cmd := exec.Command("go", "build", "-trimpath", "-o", program, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOWORK=off", "GOFLAGS=")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", &exec.Error{Name: string(output), Err: err}
	}

	return program, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if program, err := smallProgram(); err == nil {
		os.RemoveAll(filepath.Dir(program))
	}
	os.Exit(code)
}

// build runs the program with a small program for this machine's processor, and returns the folder of its output.
func build(t *testing.T, args ...string) (folder, printed string) {
	t.Helper()

	program, err := smallProgram()
	if err != nil {
		t.Fatal(err)
	}

	folder = filepath.Join(t.TempDir(), "image")
	platform := "linux/" + runtime.GOARCH
	args = append([]string{"-o", folder, "--platforms", platform, "--binary", platform + "=" + program}, args...)

	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), args, fakeTime, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}

	return folder, stdout.String()
}

// fakeTime is an environment with a fixed time of the image.
func fakeTime(name string) string {
	if name == "SOURCE_DATE_EPOCH" {
		return "1800000000"
	}
	return ""
}

// readFolder returns the content of each file in a folder.
func readFolder(t *testing.T, folder string) map[string]string {
	t.Helper()

	files := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}

		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(folder, path)
		files[name] = string(content)

		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	return files
}

// The same program gives the same files, bit for bit.
func TestReproducible(t *testing.T) {
	t.Parallel()

	folder, _ := build(t, "--version", "v1.2.3")
	again, _ := build(t, "--version", "v1.2.3")
	first, second := readFolder(t, folder), readFolder(t, again)
	if len(first) < 7 || len(first) != len(second) {
		t.Fatalf("%d files, and %d the second time; want 7 or more", len(first), len(second))
	}

	for name, content := range first {
		if content != second[name] {
			t.Errorf("%s differs between two builds", name)
		}
	}
}

// readArchive returns the image of an archive for docker load.
func readArchive(t *testing.T, folder string) v1.Image {
	t.Helper()

	image, err := tarball.ImageFromPath(filepath.Join(folder, "promptmill-linux-"+runtime.GOARCH+".tar"), nil)
	if err != nil {
		t.Fatal(err)
	}

	return image
}

// The image runs its program without rights, and says where it comes from.
func TestConfig(t *testing.T) {
	t.Parallel()

	folder, printed := build(t, "--version", "v1.2.3")
	file, err := readArchive(t, folder).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}

	if file.Config.User != "65532:65532" || file.OS != "linux" || file.Architecture != runtime.GOARCH {
		t.Errorf("user %q, %s/%s", file.Config.User, file.OS, file.Architecture)
	}
	if version := file.Config.Labels["org.opencontainers.image.version"]; version != "v1.2.3" {
		t.Errorf("the version is %q, want v1.2.3", version)
	}
	if _, ok := file.Config.Volumes["/var/lib/promptmill"]; !ok || len(file.Config.Volumes) != 1 {
		t.Errorf("volumes %v, want /var/lib/promptmill alone", file.Config.Volumes)
	}
	if got := file.Created.Unix(); got != 1800000000 {
		t.Errorf("created at %d, want SOURCE_DATE_EPOCH, 1800000000", got)
	}
	if !strings.Contains(printed, "MB compressed") || !strings.Contains(printed, "sha256:") {
		t.Errorf("printed %q, want a size and a digest", printed)
	}
}

// The Dockerfile makes the image that image makes.
func TestDockerfile(t *testing.T) {
	t.Parallel()

	text, err := os.ReadFile(filepath.Join("..", "..", "docker", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}

	_, last, _ := strings.Cut(string(text), "FROM scratch\n")
	config := imageConfig(nil)
	for _, want := range append(config.Env, "USER "+config.User, "WORKDIR "+config.WorkingDir,
		"VOLUME /"+stateFolder, `ENTRYPOINT ["`+config.Entrypoint[0]+`"]`, `CMD ["`+config.Cmd[0]+`"]`) {
		if !strings.Contains(last, want) {
			t.Errorf("the last stage of the Dockerfile lacks %q", want)
		}
	}

	for _, e := range baseEntries() {
		if e.mode == 0o1777 && !strings.Contains(string(text), strings.TrimSuffix(e.path, "/")) {
			t.Errorf("the Dockerfile makes no %s", e.path)
		}
	}
}

// The image has the certificates of the public authorities.
func TestAuthorities(t *testing.T) {
	t.Parallel()

	if n := bytes.Count(authorities(), []byte("-----BEGIN CERTIFICATE-----\n")); n < 100 {
		t.Errorf("%d certificates, want 100 or more", n)
	}
}

// What would make a wrong image is refused, with the fix.
func TestRefusals(t *testing.T) {
	t.Parallel()

	full := t.TempDir()
	text := filepath.Join(full, "text")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(t.TempDir(), "image")

	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"", 2, "there is nothing to write; give -o FOLDER"},
		{"-o x y", 2, `"y" is not a flag`},
		{"-o x --platforms windows/amd64", 2, `"windows/amd64" is no platform of the image`},
		{"-o x --platforms linux/arm64,linux/arm64", 2, "names linux/arm64 twice"},
		{"-o x --platforms linux/arm64 --binary linux/amd64=y", 2, "--platforms lacks it"},
		{"-o x --binary y", 2, "want PLATFORM=FILE"},
		{"--push UPPER/x:y", 2, "want REGISTRY/NAME:TAG"},
		{"-o " + full, 1, "the folder is not empty"},
		{"-o " + folder + " --binary linux/amd64=" + text, 1, "it is no program for Linux"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(test.args), func(string) string { return "" }, &stdout, &stderr)
		if code != test.code || !strings.Contains(stderr.String(), test.want) {
			t.Errorf("%s: exit code %d, %q; want %d, %q", test.args, code, stderr.String(), test.code, test.want)
		}
	}
}
