package filestore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/atomicfile"
)

// load reads the folders into the index and removes what a crash has left. Only names that the
// store itself gives are removed.
func (s *Store) load() error {
	completed, err := s.loadFiles()
	if err != nil {
		return err
	}

	return s.loadUploads(completed)
}

// loadFiles loads the files, and returns the records of those that completed an upload, by its id.
func (s *Store) loadFiles() (map[string]fileRecord, error) {
	entries, err := os.ReadDir(s.filesDir)
	if err != nil {
		return nil, err
	}

	data := map[string]bool{}
	temps := map[string]bool{}
	records := map[string]bool{}
	for _, e := range entries {
		name := e.Name()
		id, isRecord := strings.CutSuffix(name, recordSuffix)
		tempID, _ := strings.CutSuffix(name, atomicfile.TempSuffix)
		switch {
		case isTemp(filePrefix, name) && isID(filePrefix, tempID):
			temps[tempID] = true
		case isTemp(filePrefix, name):
			s.removeLeft(filepath.Join(s.filesDir, name))
		case isRecord && isID(filePrefix, id):
			records[id] = true
		case isID(filePrefix, name):
			data[name] = true
		}
	}

	for id := range temps {
		path := s.filePath(id)
		if !records[id] || data[id] {
			s.removeLeft(path + atomicfile.TempSuffix)
			continue
		}

		// The process ended just before the data got its name, or just before its metadata was removed.
		if err := os.Rename(path+atomicfile.TempSuffix, path); err != nil {
			return nil, err
		}
		data[id] = true
	}

	completed := map[string]fileRecord{}
	for id := range records {
		rec, err := s.readFileRecord(id, data[id])
		if err != nil {
			s.log.Error().Str("file", s.filePath(id)+recordSuffix).Err(err).
				Msg("failed to read the metadata of a file; the file is left as it is, and clients do not see it")
			continue
		}

		s.files[id] = &rec.File
		s.order = append(s.order, &rec.File)

		if rec.Upload != "" {
			completed[rec.Upload] = rec
		}
	}

	slices.SortFunc(s.order, compareFiles)

	for id := range data {
		if !records[id] {
			s.log.Error().Str("file", s.filePath(id)).
				Msg("a file has no metadata; it is left as it is, and clients do not see it; " +
					"restore its .json from a backup, or delete it")
		}
	}

	return completed, nil
}

// readFileRecord reads the metadata of a file and compares it with the data.
func (s *Store) readFileRecord(id string, hasData bool) (fileRecord, error) {
	var rec fileRecord
	if err := readRecord(s.filePath(id)+recordSuffix, &rec); err != nil {
		return rec, err
	}

	if rec.ID != id {
		return rec, fmt.Errorf("it has the id %q", rec.ID)
	}

	if !hasData {
		return rec, errors.New("its data is missing")
	}

	info, err := os.Lstat(s.filePath(id))
	if err != nil {
		return rec, err
	}

	if !info.Mode().IsRegular() || info.Size() != rec.Bytes {
		return rec, fmt.Errorf("its data has %d bytes, not %d", info.Size(), rec.Bytes)
	}

	return rec, nil
}

// readRecord reads metadata.
func readRecord(path string, record any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}

	var format struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &format); err == nil && format.Version > recordVersion {
		return fmt.Errorf("it is of a later promptmill (version %d, this one reads %d)", format.Version, recordVersion)
	}

	return json.Unmarshal(data, record)
}

// isTemp reports whether the store names its temporary files so.
func isTemp(prefix, name string) bool {
	name, ok := strings.CutSuffix(name, atomicfile.TempSuffix)
	return ok && isID(prefix, strings.TrimSuffix(name, recordSuffix))
}

// removeLeft removes a file or a folder that a crash has left.
func (s *Store) removeLeft(path string) {
	if err := os.RemoveAll(path); err != nil {
		s.log.Warn().Str("file", path).Err(err).
			Msg("failed to remove the rest of an upload; it takes space on the disk")
	}
}

// loadUploads loads the uploads. Those in completed have their file already.
func (s *Store) loadUploads(completed map[string]fileRecord) error {
	entries, err := os.ReadDir(s.uploadsDir)
	if err != nil {
		return err
	}

	folders := map[string]bool{}
	damaged := map[string]bool{}
	for _, e := range entries {
		name := e.Name()
		id, isRecord := strings.CutSuffix(name, recordSuffix)
		switch {
		case isTemp(uploadPrefix, name), isTemp(partPrefix, name):
			s.removeLeft(filepath.Join(s.uploadsDir, name))
		case isRecord && isID(uploadPrefix, id):
			u := newActiveUpload()
			err := readRecord(s.uploadPath(id)+recordSuffix, &u.record)
			if err == nil {
				err = u.record.check(id)
			}
			if err != nil {
				damaged[id] = true
				s.log.Error().Str("file", s.uploadPath(id)+recordSuffix).Err(err).
					Msg(
						"failed to read the metadata of an upload; the upload is left as it is, and clients do not see it",
					)
				continue
			}

			s.uploads[id] = u
		case isID(uploadPrefix, name) && e.IsDir():
			folders[name] = true
		}
	}

	for id, u := range s.uploads {
		if rec, ok := completed[id]; ok && u.record.Status == UploadPending {
			s.recordCompletion(u, rec)
		}

		if u.record.Status != UploadPending {
			continue
		}

		if err := s.loadParts(id, u); err != nil {
			return err
		}

		delete(folders, id)
	}

	for id := range folders {
		switch {
		case s.uploads[id] != nil:
			s.removeLeft(s.uploadPath(id))
		case !damaged[id]:
			s.log.Error().Str("file", s.uploadPath(id)).
				Msg("the parts of an upload have no metadata; they are left as they are, and clients do not see them; " +
					"restore their .json from a backup, or delete them")
		}
	}

	return nil
}

// loadParts loads the parts of a pending upload.
func (s *Store) loadParts(id string, u *activeUpload) error {
	entries, err := os.ReadDir(s.uploadPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}

		if isID(partPrefix, e.Name()) && info.Mode().IsRegular() {
			u.parts[e.Name()] = info.Size()
		}
	}

	return nil
}
