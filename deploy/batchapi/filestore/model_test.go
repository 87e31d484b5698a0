package filestore

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// operation is a call of a store, in a form that a process can print.
type operation struct {
	// Actor is the caller. An actor makes one call at a time, and only for files and uploads of
	// its own.
	Actor int
	Kind  string
	// ID is the file or the upload that the call is about, or has made when it is done.
	ID string
	// Seed and Size make up the bytes of a file or a part.
	Seed uint64
	// Size is also the size of an upload.
	Size int
	// Parts are the parts of a completion, in order.
	Parts []string
	// PartID is the part that the call has made, and FileID the file of a completed upload.
	PartID, FileID string
	Done           bool
}

// bytes returns the bytes that the operation stores.
func (o operation) bytes() string {
	b := make([]byte, o.Size)
	rand.NewChaCha8([32]byte{byte(o.Seed), byte(o.Seed >> 8), byte(o.Seed >> 16)}).Read(b)
	return string(b)
}

// storeModel has the files and uploads that a store must have.
type storeModel struct {
	files   map[string]string // the bytes, by id
	uploads map[string]*uploadModel
}

type uploadModel struct {
	status string
	size   int
	parts  map[string]string // the bytes, by id
	file   string
}

func newModel() *storeModel {
	return &storeModel{files: map[string]string{}, uploads: map[string]*uploadModel{}}
}

// apply changes the model as an operation that is done has changed the store.
func (m *storeModel) apply(o operation) {
	switch o.Kind {
	case "create":
		m.files[o.ID] = o.bytes()
	case "delete", "expire":
		delete(m.files, o.ID)
	case "upload":
		m.uploads[o.ID] = &uploadModel{status: UploadPending, size: o.Size, parts: map[string]string{}}
	case "part":
		m.uploads[o.ID].parts[o.PartID] = o.bytes()
	case "complete":
		u := m.uploads[o.ID]
		m.files[o.FileID] = u.join(o.Parts)
		u.status, u.parts, u.file = UploadCompleted, nil, o.FileID
	case "cancel":
		m.uploads[o.ID].status, m.uploads[o.ID].parts = UploadCancelled, nil
	}
}

// join returns the bytes of parts.
func (u *uploadModel) join(parts []string) string {
	var all strings.Builder
	for _, id := range parts {
		all.WriteString(u.parts[id])
	}
	return all.String()
}

// actor makes random calls.
type actor struct {
	number int
	rand   *rand.Rand
	store  *Store
	model  *storeModel // of what this actor has made
	report func(operation)
}

// choose returns a random operation that is possible.
func (a *actor) choose() operation {
	o := operation{
		Actor: a.number,
		Seed:  a.rand.Uint64N(1 << 24),
		Size:  []int{0, 1, 1000, 100_000, 700_000}[a.rand.IntN(5)],
	}

	files := slices.Sorted(maps.Keys(a.model.files))
	var pending []string
	for id, u := range a.model.uploads {
		if u.status == UploadPending {
			pending = append(pending, id)
		}
	}

	slices.Sort(pending)

	switch n := a.rand.IntN(20); {
	case n < 2 && len(files) > 0:
		o.Kind, o.ID = []string{"delete", "expire"}[n], files[a.rand.IntN(len(files))]
	case n < 6:
		o.Kind = "create"
	case n < 8 || len(pending) == 0:
		o.Kind = "upload"
	case n < 14:
		o.Kind, o.ID = "part", pending[a.rand.IntN(len(pending))]
	case n < 18:
		o.Kind, o.ID = "part", pending[a.rand.IntN(len(pending))]
		if parts, ok := a.chooseParts(a.model.uploads[o.ID]); ok {
			o.Kind, o.Parts = "complete", parts
		}
	case n < 19:
		o.Kind, o.ID = "cancel", pending[a.rand.IntN(len(pending))]
	default:
		o.Kind = "abort"
	}

	switch o.Kind {
	case "upload":
		o.Size = a.rand.IntN(4) * partStep
	case "part":
		o.Size = a.rand.IntN(3) * partStep
	}

	return o
}

// partStep is the size that parts and uploads have a multiple of, so that parts often fit.
const partStep = 70_000

// chooseParts returns parts that make up an upload, in a random order, unless there are none.
func (a *actor) chooseParts(u *uploadModel) (parts []string, ok bool) {
	ids := slices.Sorted(maps.Keys(u.parts))
	a.rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })

	total := 0
	for _, id := range ids {
		if size := len(u.parts[id]); total+size <= u.size {
			parts = append(parts, id)
			total += size
		}
	}

	return parts, total == u.size
}

// modelFile returns the file of a create.
func modelFile(o operation) File {
	return File{
		Owner:     fmt.Sprint(o.Actor),
		Filename:  "in.jsonl",
		Purpose:   PurposeBatch,
		ExpiresAt: time.Now().Add(time.Minute),
	}
}

// do makes a call, and reports it before and afterwards.
func (a *actor) do(t testing.TB, o operation) operation {
	a.report(o)

	switch o.Kind {
	case "create":
		f, err := a.store.Create(t.Context(), modelFile(o), strings.NewReader(o.bytes()))
		must(t, err)
		o.ID = f.ID
	case "abort":
		p, err := a.store.Begin(t.Context(), strings.NewReader(o.bytes()))
		must(t, err)
		p.Abort()
	case "delete":
		must(t, a.store.Delete(o.ID))
	case "expire":
		_, err := a.store.RemoveExpired(time.Now().Add(2*time.Minute), func(id string) bool { return id != o.ID })
		must(t, err)
	case "upload":
		up, err := a.store.CreateUpload(Upload{
			Owner:            fmt.Sprint(o.Actor),
			Filename:         "in.jsonl",
			Purpose:          PurposeBatch,
			Bytes:            int64(o.Size),
			FileExpiresAfter: time.Minute,
		})

		must(t, err)
		o.ID = up.ID
	case "part":
		part, err := a.store.AddPart(t.Context(), o.ID, strings.NewReader(o.bytes()))
		must(t, err)
		o.PartID = part.ID
	case "complete":
		up, err := a.store.CompleteUpload(t.Context(), o.ID, o.Parts, o.md5(a.model))
		must(t, err)
		o.FileID = up.File.ID
	case "cancel":
		_, err := a.store.CancelUpload(o.ID)
		must(t, err)
	}

	o.Done = true
	a.model.apply(o)
	a.report(o)

	return o
}

// md5 returns the MD5 of the parts of a completion.
func (o operation) md5(m *storeModel) string {
	sum := md5.Sum([]byte(m.uploads[o.ID].join(o.Parts)))
	return hex.EncodeToString(sum[:])
}

// checkStore compares a store, in memory and on disk, with a model, after an operation of each
// actor may have been interrupted.
func checkStore(t *testing.T, s *Store, m *storeModel, interrupted []operation) {
	t.Helper()

	is := func(kind, id string) bool {
		return slices.ContainsFunc(interrupted, func(o operation) bool { return o.Kind == kind && o.ID == id })
	}

	extra := map[string]operation{} // files that interrupted operations may have made, by their bytes
	for _, o := range interrupted {
		switch o.Kind {
		case "create":
			extra[o.bytes()] = o
		case "complete":
			extra[m.uploads[o.ID].join(o.Parts)] = o
		}
	}

	onDisk := []string{}
	found := map[string]bool{}
	list := s.List()
	for _, f := range list {
		found[f.ID] = true
		onDisk = append(onDisk, f.ID, f.ID+".json")

		text := readFile(t, s, f.ID)
		if sum := sha256.Sum256([]byte(text)); f.SHA256 != hex.EncodeToString(sum[:]) || f.Bytes != int64(len(text)) {
			t.Errorf("%s has other bytes than its metadata says", f.ID)
		}

		want, known := m.files[f.ID]
		if _, may := extra[text]; !known && !may {
			t.Errorf("%s with %d bytes is in the store; no operation made it", f.ID, f.Bytes)
		} else if known && text != want {
			t.Errorf("%s has wrong bytes", f.ID)
		}
	}

	if !slices.IsSortedFunc(list, func(a, b File) int { return compareFiles(&a, &b) }) {
		t.Errorf("the list is not in order")
	}

	for id := range m.files {
		if !found[id] && !is("delete", id) && !is("expire", id) {
			t.Errorf("%s is lost", id)
		}
	}

	slices.Sort(onDisk)
	if diff := cmp.Diff(onDisk, listTree(t, s.filesDir)); diff != "" {
		t.Errorf("folder of files (-want +got):\n%s", diff)
	}

	checkUploads(t, s, m, is)
}

// checkUploads compares the uploads of a store with a model.
func checkUploads(t *testing.T, s *Store, m *storeModel, is func(kind, id string) bool) {
	t.Helper()

	for id, want := range m.uploads {
		up, err := s.GetUpload(id)
		must(t, err)

		switch {
		case up.Status == want.status:
		case up.Status == UploadCompleted && is("complete", id), up.Status == UploadCancelled && is("cancel", id):
			continue
		default:
			t.Errorf("%s is %s, want %s", id, up.Status, want.status)
		}

		if want.file != "" && up.File.ID != want.file {
			t.Errorf("%s has the file %s, want %s", id, up.File.ID, want.file)
		}

		for part, text := range want.parts {
			data, err := os.ReadFile(filepath.Join(s.uploadPath(id), part))
			if (err != nil || string(data) != text) && !is("cancel", id) {
				t.Errorf("%s of the pending %s: %d bytes, %v; want %d bytes", part, id, len(data), err, len(text))
			}
		}
	}

	onDisk := []string{}
	for id, u := range s.uploads {
		onDisk = append(onDisk, id+".json")
		for part := range u.parts {
			onDisk = append(onDisk, id+"/"+part)
		}
	}

	slices.Sort(onDisk)
	if diff := cmp.Diff(onDisk, listTree(t, s.uploadsDir)); diff != "" {
		t.Errorf("folder of uploads (-want +got):\n%s", diff)
	}
}

// listTree returns the paths of all files in a folder.
func listTree(t testing.TB, dir string) []string {
	t.Helper()

	paths := []string{}
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			paths = append(paths, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	}))

	slices.Sort(paths)

	return paths
}
