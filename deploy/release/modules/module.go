package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	gomodule "golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/zip"
)

// prefix begins the paths of all modules of the repository.
const prefix = "github.com/promptmill/promptmill/"

// releasedModules are the modules of a release, in the order of their imports: the checksum of a module is in the
// go.sum of those after it.
var releasedModules = []string{"proto", "producer", "worker", "collector", "deploy"}

// module is a module of the repository.
type module struct {
	root    string // of the repository
	dir     string // in it
	path    string
	file    *modfile.File
	zipSum  string // the checksum of its files, as in go.sum
	fileSum string // the checksum of its go.mod
}

// readModules reads the modules of a release.
func readModules(root string) ([]*module, error) {
	var list []*module
	for _, dir := range releasedModules {
		name := filepath.Join(root, dir, "go.mod")
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no %s: run this at the top of the repository", name)
		}
		if err != nil {
			return nil, err
		}

		file, err := modfile.Parse(name, text, nil)
		if err != nil {
			return nil, err
		}

		if len(file.Replace) > 0 {
			return nil, fmt.Errorf("%s has a replace line for %s: go install refuses such a module; the workspace, go.work, "+
				"replaces it", name, file.Replace[0].Old.Path)
		}

		list = append(list, &module{
			root: root,
			dir:  dir,
			path: prefix + dir,
			file: file,
		})
	}

	return list, nil
}

// requireSiblings writes the version of its siblings into the go.mod, and their checksums into the go.sum.
func (m *module) requireSiblings(version string, siblings []*module) error {
	var sums []string
	for _, s := range siblings {
		if !slices.ContainsFunc(m.file.Require, func(r *modfile.Require) bool { return r.Mod.Path == s.path }) {
			continue
		}
		if err := m.file.AddRequire(s.path, version); err != nil {
			return err
		}
		sums = append(sums,
			fmt.Sprintf("%s %s %s\n", s.path, version, s.zipSum),
			fmt.Sprintf("%s %s/go.mod %s\n", s.path, version, s.fileSum))
	}

	m.file.Cleanup()
	text, err := m.file.Format()
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.inRoot("go.mod"), text, 0o644); err != nil {
		return err
	}

	old, err := os.ReadFile(m.inRoot("go.sum"))
	if err != nil {
		return err
	}

	return os.WriteFile(m.inRoot("go.sum"), mergeSums(old, sums), 0o644)
}

// replaceInWorkspace makes the workspace find a version of the modules in its folders: nobody has published it yet.
func replaceInWorkspace(root, version string, list []*module) error {
	name := filepath.Join(root, "go.work")
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}

	work, err := modfile.ParseWork(name, text, nil)
	if err != nil {
		return err
	}

	for _, m := range list {
		for _, r := range slices.Clone(work.Replace) {
			if r.Old.Path == m.path {
				err = errors.Join(err, work.DropReplace(r.Old.Path, r.Old.Version))
			}
		}
		err = errors.Join(err, work.AddReplace(m.path, version, "./"+m.dir, ""))
	}
	if err != nil {
		return err
	}

	work.SortBlocks()
	work.Cleanup()

	return os.WriteFile(name, modfile.Format(work.Syntax), 0o644)
}

// mergeSums replaces the checksums of the siblings in a go.sum, and sorts it.
func mergeSums(old []byte, sums []string) []byte {
	for line := range strings.Lines(string(old)) {
		if !strings.HasPrefix(line, prefix) {
			sums = append(sums, line)
		}
	}
	sortSums(sums)
	return []byte(strings.Join(sums, ""))
}

// sortSums sorts the lines of a go.sum as Go does: by path, and by version.
func sortSums(lines []string) {
	byVersion := func(line string) gomodule.Version {
		fields := strings.Fields(line)
		return gomodule.Version{Path: fields[0], Version: fields[1]}
	}
	slices.SortStableFunc(lines, func(a, b string) int {
		pair := []gomodule.Version{byVersion(a), byVersion(b)}
		if pair[0] == pair[1] {
			return 0
		}

		gomodule.Sort(pair)
		if pair[0] == byVersion(a) {
			return -1
		}

		return 1
	})
}

// hashFiles computes the checksums of the module as it is now.
func (m *module) hashFiles(version string) error {
	archive, err := os.CreateTemp("", "module-*.zip")
	if err != nil {
		return err
	}
	defer os.Remove(archive.Name())

	err = errors.Join(m.writeZip(archive, version), archive.Close())
	if err == nil {
		m.zipSum, err = dirhash.HashZip(archive.Name(), dirhash.Hash1)
	}
	if err == nil {
		m.fileSum, err = dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) {
			return os.Open(m.inRoot("go.mod"))
		})
	}
	if err != nil {
		return fmt.Errorf("hash the module %s: %w", m.path, err)
	}

	return nil
}

// writeZip writes the files of the module that git has or would add, as a module proxy does: without the modules in it,
// and with the licence of the repository.
func (m *module) writeZip(w io.Writer, version string) error {
	list, err := runGit(m.inRoot(""), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return fmt.Errorf("list the files of %s: %w", m.dir, err)
	}

	names := strings.Split(strings.TrimSuffix(list, "\x00"), "\x00")
	var nested []string
	for _, name := range names {
		if strings.HasSuffix(name, "/go.mod") {
			nested = append(nested, strings.TrimSuffix(name, "go.mod"))
		}
	}

	files := []zip.File{moduleFile{"LICENSE", filepath.Join(m.root, "LICENSE")}}
	for _, name := range names {
		inNested := slices.ContainsFunc(nested, func(dir string) bool { return strings.HasPrefix(name, dir) })
		info, err := os.Lstat(m.inRoot(name))
		if inNested || err != nil || !info.Mode().IsRegular() { // deleted, or a link, which no module has
			continue
		}
		files = append(files, moduleFile{name, m.inRoot(name)})
	}

	return zip.Create(w, gomodule.Version{Path: m.path, Version: version}, files)
}

// inRoot returns the path of a file of the module.
func (m *module) inRoot(name string) string {
	return filepath.Join(m.root, m.dir, filepath.FromSlash(name))
}

// moduleFile is a file of a module's archive.
type moduleFile struct {
	name string // in the module
	path string
}

// Path implements [zip.File].
func (f moduleFile) Path() string { return f.name }

// Lstat implements [zip.File].
func (f moduleFile) Lstat() (fs.FileInfo, error) { return os.Lstat(f.path) }

// Open implements [zip.File].
func (f moduleFile) Open() (io.ReadCloser, error) { return os.Open(f.path) }
