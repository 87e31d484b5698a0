package filestore

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// A folder of parts that an earlier call has made, and failed to make durable, is not taken for
// durable. The test limits the files of the process, so it is not parallel.
func TestUploadFolderIsSynced(t *testing.T) {
	s := openTest(t, t.TempDir())
	up, err := s.CreateUpload(Upload{Bytes: 1})
	must(t, err)
	must(t, os.Mkdir(s.uploadPath(up.ID), 0o700))

	var before syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before))
	none := before
	none.Cur = 0
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none))
	err = s.makeUploadFolder(up.ID)
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before))

	if !errors.Is(err, syscall.EMFILE) {
		t.Errorf("%v, want the error of a folder that cannot be opened to be synced", err)
	}
	must(t, s.makeUploadFolder(up.ID))
}
