package release_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const version = "v1.2.3"

// packProgram returns the archive of a program that is a script of the shell.
func packProgram(t *testing.T, script string) []byte {
	t.Helper()

	var archive bytes.Buffer
	packed := gzip.NewWriter(&archive)
	files := tar.NewWriter(packed)

	err := files.WriteHeader(&tar.Header{Name: "promptmill", Mode: 0o755, Size: int64(len(script))})
	if err == nil {
		_, err = files.Write([]byte(script))
	}
	if err == nil {
		err = files.Close()
	}
	if err == nil {
		err = packed.Close()
	}
	if err != nil {
		t.Fatal(err)
	}

	return archive.Bytes()
}

// serveRelease serves an archive for this system, beside checksums.
func serveRelease(t *testing.T, archive []byte, checksums string) string {
	t.Helper()

	mux := http.NewServeMux()
	mux.HandleFunc("/"+version+"/SHA256SUMS", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, checksums) })
	mux.HandleFunc("/"+version+"/"+archiveName(), func(w http.ResponseWriter, _ *http.Request) { w.Write(archive) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)

	return server.URL
}

func archiveName() string {
	return fmt.Sprintf("promptmill-%s-%s-%s.tar.gz", version, runtime.GOOS, runtime.GOARCH)
}

// The script installs an archive with the checksum that the release says, in place of an earlier program. It refuses
// any other, and leaves the earlier program as it was.
func TestInstall(t *testing.T) {
	t.Parallel()

	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}

	archive := packProgram(t, "#!/bin/sh\necho promptmill v1.2.3\n")
	sum := fmt.Sprintf("%x  %s\n", sha256.Sum256(archive), archiveName())
	foreign := packProgram(t, "#!/bin/sh\necho promptmill v6.6.6\n")
	broken := packProgram(t, "#!/bin/sh\nexit 1\n")

	for name, tt := range map[string]struct {
		archive   []byte
		checksums string
		args      []string
		want      string // what the script says
		installed bool
	}{
		"the archive of the release": {archive, sum, []string{version}, "installed promptmill v1.2.3", true},
		"another archive":            {foreign, sum, []string{version}, "nothing was installed", false},
		"half an archive":            {archive[:len(archive)/2], sum, []string{version}, "nothing was installed", false},
		"no checksum":                {archive, "0123  promptmill.zip\n", []string{version}, "has no checksum of", false},
		"a checksum of a name that ends alike": {
			archive, strings.ReplaceAll(sum, "promptmill-", "other-promptmill-"), []string{version}, "has no checksum of", false,
		},
		"a program that does not run": {
			broken, fmt.Sprintf("%x  %s\n", sha256.Sum256(broken), archiveName()), []string{version}, "does not run in", false,
		},
		"a version that is not there": {archive, sum, []string{"v9.9.9"}, "cannot download", false},
		"no version of a mirror":      {archive, sum, nil, "name a version", false},
		"a word":                      {archive, sum, []string{"latest"}, "is no version", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			folder := filepath.Join(t.TempDir(), "a folder")
			program := filepath.Join(folder, "promptmill")
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(program, []byte("#!/bin/sh\necho earlier\n"), 0o755); err != nil {
				t.Fatal(err)
			}

			install := exec.CommandContext(t.Context(), "sh", append([]string{"install.sh"}, tt.args...)...)
			install.Env = append(os.Environ(), "PROMPTMILL_RELEASES="+serveRelease(t, tt.archive, tt.checksums),
				"PROMPTMILL_INSTALL_DIR="+folder, "HOME="+t.TempDir(), "TMPDIR="+t.TempDir())
			out, err := install.CombinedOutput()
			if (err == nil) != tt.installed || !strings.Contains(string(out), tt.want) {
				t.Errorf("%v, it said %q, want %q", err, out, tt.want)
			}

			want := "earlier\n"
			if tt.installed {
				want = "promptmill v1.2.3\n"
			}
			if got, err := exec.CommandContext(t.Context(), program).Output(); err != nil || string(got) != want {
				t.Errorf("the program says %q, %v, want %q", got, err, want)
			}

			if entries, err := os.ReadDir(folder); err != nil || len(entries) != 1 {
				t.Errorf("files in the folder: %v, %v", entries, err)
			}
		})
	}
}

// The script takes the program for checksums that is there, and says what it lacks: such a program, or a folder that it
// can make.
func TestInstallWithOtherTools(t *testing.T) {
	t.Parallel()

	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	summer, err := exec.LookPath("sha256sum")
	if err != nil {
		t.Skip("needs sha256sum")
	}

	archive := packProgram(t, "#!/bin/sh\necho promptmill v1.2.3\n")
	sum := fmt.Sprintf("%x  %s\n", sha256.Sum256(archive), archiveName())
	occupied := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(occupied, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	const shasum = "#!/bin/sh\n[ \"$1 $2\" = '-a 256' ] && exec "
	for name, tt := range map[string]struct {
		shasum string // the program of this name
		folder string
		want   string
		not    string
	}{
		"shasum of macOS":              {shasum + summer, t.TempDir(), "installed promptmill v1.2.3", "error"},
		"none for checksums":           {"", t.TempDir(), "sha256sum or shasum is needed", "download it again"},
		"a folder under a file":        {shasum + summer, occupied, "name another folder with", "installed"},
		"a folder that is not in PATH": {shasum + summer, filepath.Join(t.TempDir(), "new"), "into your PATH", "error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			bin := t.TempDir()
			for _, program := range []string{
				"sh", "uname", "mktemp", "rm", "awk", "cut", "tar", "gzip", "mkdir", "cp", "mv", "curl", "wget",
			} {
				if path, err := exec.LookPath(program); err == nil {
					if err := os.Symlink(path, filepath.Join(bin, program)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if tt.shasum != "" {
				if err := os.WriteFile(filepath.Join(bin, "shasum"), []byte(tt.shasum), 0o755); err != nil {
					t.Fatal(err)
				}
			}

			install := exec.CommandContext(t.Context(), "sh", "install.sh", version)
			install.Env = []string{
				"PATH=" + bin,
				"PROMPTMILL_RELEASES=" + serveRelease(t, archive, sum),
				"PROMPTMILL_INSTALL_DIR=" + tt.folder,
				"TMPDIR=" + t.TempDir(),
			}
			out, _ := install.CombinedOutput()
			if !strings.Contains(string(out), tt.want) || strings.Contains(string(out), tt.not) {
				t.Errorf("it said %q, want %q and not %q", out, tt.want, tt.not)
			}
		})
	}
}

// Programs may not run in the folder of temporary files of a hardened system. The script works there, too.
func TestInstallWithoutTemporaryPrograms(t *testing.T) {
	t.Parallel()

	if _, err := exec.LookPath("unshare"); err != nil || runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("needs root and unshare, to mount a folder")
	}

	archive := packProgram(t, "#!/bin/sh\necho promptmill v1.2.3\n")
	sum := fmt.Sprintf("%x  %s\n", sha256.Sum256(archive), archiveName())
	install := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c",
		`mount -t tmpfs -o noexec tmpfs "$TMPDIR" || exit 77; exec sh install.sh `+version)
	install.Env = append(os.Environ(), "PROMPTMILL_RELEASES="+serveRelease(t, archive, sum),
		"PROMPTMILL_INSTALL_DIR="+t.TempDir(), "TMPDIR="+t.TempDir())
	out, err := install.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 77 {
		t.Skipf("needs the right to mount: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "installed promptmill v1.2.3") {
		t.Errorf("%v, it said %q", err, out)
	}
}

// Each shell of Unix takes the script.
func TestInstallScript(t *testing.T) {
	t.Parallel()

	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("needs shellcheck")
	}

	if out, err := exec.CommandContext(t.Context(), shellcheck, "--shell=sh", "install.sh").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
