// Package secretfile reads secrets from the files that flags name, as systemd, Docker and Kubernetes
// hand them to a process: a secret in an argument is in the history of a shell and in the list of
// processes.
//
// [File.Read] reads the file again at each call, so that a new secret counts without a restart. A pipe
// is read once.
package secretfile

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
)

// MaxBytes is the most bytes of a file. The longest secret, a join string with many addresses, has
// less than 2 KiB.
const MaxBytes = 64 << 10

// File is a file with one secret. Several goroutines may use it at once.
type File struct {
	flag string
	path string

	// mu guards the fields below.
	mu sync.Mutex
	// piped is the secret of a pipe, which can be read only once. Nil: it was not read, or is no pipe.
	piped *string
}

// New returns the file that a flag names. flag, such as --join-file, is for errors.
func New(flag, path string) *File { return &File{flag: flag, path: path} }

// Path returns the path of the file as it was given.
func (f *File) Path() string { return f.path }

// String returns the flag and the path, as they are typed.
func (f *File) String() string { return f.flag + " " + f.path }

// Read returns the secret, without the space around it and the byte order mark that programs of Windows write. The
// error is one of usage, and names the flag and the file.
func (f *File) Read() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if f.piped != nil {
		return *f.piped, nil
	}
	if f.path == "-" {
		return "", exit.Usage("give the path of a file, or /dev/stdin", "%s: the secret is read from a file, "+
			"and standard input may be the input of the command", f)
	}

	file, err := os.Open(f.path)
	if err != nil {
		return "", f.refuse(err)
	}
	defer file.Close()

	info, err := file.Stat()
	if err != nil {
		return "", f.refuse(err)
	}

	secret, err := f.readSecret(file)
	if err == nil && !info.Mode().IsRegular() {
		f.piped = &secret
	}

	return secret, err
}

// readSecret reads the secret of an open file.
func (f *File) readSecret(file io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(file, MaxBytes+1))
	defer clear(text)

	secret := string(bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\ufeff"))))
	wide := bytes.HasPrefix(text, []byte{0xff, 0xfe}) || bytes.HasPrefix(text, []byte{0xfe, 0xff})
	switch {
	case err != nil:
		return "", f.refuse(err)
	case len(text) > MaxBytes:
		return "", exit.Usage("give the path of the file with the secret alone",
			"%s: the file is no secret: it has more than %d KiB", f, MaxBytes>>10)
	case wide: // no secret begins so
		return "", exit.Usage("write it with | Out-File -Encoding ascii FILE",
			"%s: the file is in UTF-16, as > of PowerShell writes it", f)
	case secret == "":
		return "", exit.Usage("write the secret into it", "%s: the file is empty", f)
	}

	return secret, nil
}

// refuse returns the error of a file that cannot be read.
func (f *File) refuse(err error) error {
	return exit.Usage("give the path of a file that this user may read", "%s: %w", f, files.WithoutPath(err))
}

// mountedFolders are folders in which systemd, Docker and Podman put secrets.
var mountedFolders = []string{"/run/credentials/", "/run/secrets/", "/var/run/secrets/"}

// Exposure describes who else on this machine may read the file, and how to end that. It is empty if
// nobody may, and for a file that systemd or a container's runtime has put there: the user cannot
// change the permissions, and no other user is there to read it.
func (f *File) Exposure() string {
	info, err := os.Stat(f.path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o044 == 0 || f.isMounted() {
		return ""
	}

	who := "the group of this file"
	if info.Mode().Perm()&0o004 != 0 {
		who = "other users of this machine"
	}

	return fmt.Sprintf("%s may read the secret; chmod 600 %s ends that", who, f.path)
}

// isMounted reports whether systemd or the runtime of a container has put the file there.
func (f *File) isMounted() bool {
	path, err := filepath.Abs(f.path)
	if err != nil {
		return false
	}

	folders := mountedFolders
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" { // of systemd, also that of a user's manager
		folders = append([]string{filepath.Clean(dir) + "/"}, folders...)
	}

	for _, folder := range folders {
		if strings.HasPrefix(path, folder) {
			return true
		}
	}

	// Kubernetes mounts a secret as links to a folder that it replaces as a whole, with mode 0644 by default.
	target, err := os.Readlink(path)

	return err == nil && strings.HasPrefix(target, "..data/")
}
