package objectstore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/deploy/exit"
)

// Expand returns the files that an argument names, as paths and URLs, in the order of their
// names: a file, a folder or a prefix with all files below it, or a pattern with *, ?, [...]
// and ** for any number of folders. Files and folders whose names begin with a dot or an
// underscore, such as _SUCCESS, and checksums (*.crc) are skipped unless the argument names
// them. Links to files and folders of this machine are followed; pipes, sockets and devices in
// a folder are refused. The URLs have no secrets; only this client opens those that had any. The error has exit
// code 2 if there is no such file.
func (c *Client) Expand(ctx context.Context, arg string) ([]string, error) {
	if !IsURL(arg) {
		return expandPath(arg)
	}

	s, at, err := c.find(ctx, arg)
	if err != nil {
		return nil, err
	}

	list, ok := s.(lister)
	if !ok {
		name, err := c.hide(at.key)
		return []string{name}, err
	}

	if at.scheme == schemeHuggingFace && at.key == "" && !strings.Contains(at.bucket, "@") {
		return c.Expand(ctx, dataSetURL(at.bucket+"@"+parquetRevision, "**/*.parquet"))
	}

	if at.key != "" && !strings.HasSuffix(at.key, "/") {
		_, missing := c.statObject(ctx, s, at.key, arg)
		if missing == nil {
			return []string{nameOf(at, at.key)}, nil
		}

		if !errors.Is(missing, fs.ErrNotExist) || errors.Is(missing, errNoBucket) {
			return nil, missing
		}

		urls, err := listObjects(ctx, list, at, arg)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNoBucket) {
			return nil, missing // permission to read an object does not include the list
		}

		return urls, err
	}

	return listObjects(ctx, list, at, arg)
}

// listObjects returns the URLs of the objects that a prefix or a pattern names.
func listObjects(ctx context.Context, s lister, at location, arg string) (urls []string, err error) {
	prefix := at.key
	pattern := ""
	if meta := strings.IndexAny(at.key, patternCharacters); meta >= 0 {
		prefix, pattern = at.key[:meta], at.key
	} else if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}

	if _, err := path.Match(pattern, ""); err != nil {
		return nil, malformedPattern(arg)
	}

	for found, err := range s.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}

		if isListed(found.Key, prefix, pattern) {
			urls = append(urls, nameOf(at, found.Key))
		}
	}

	if len(urls) == 0 {
		if pattern != "" {
			return nil, exit.Usage("", "%s: no object matches", arg)
		}
		return nil, exit.Usage("", "%w", &failure{arg + ": no object is below it", fs.ErrNotExist})
	}

	slices.Sort(urls)

	return urls, nil
}

// isListed reports whether a key belongs to a prefix or, if it is not empty, a pattern.
func isListed(key, prefix, pattern string) bool {
	if strings.HasSuffix(key, "/") { // an empty object that stands for a folder
		return false
	}

	if pattern != "" {
		return matchPath(strings.Split(pattern, "/"), strings.Split(key, "/"))
	}

	return !slices.ContainsFunc(strings.Split(strings.TrimPrefix(key, prefix), "/"), isHidden)
}

// patternCharacters are the characters that make a name a pattern.
const patternCharacters = "*?["

// isHidden reports whether a file or folder of this name is left out of a folder. Spark and
// Hive leave out names that begin with a dot or an underscore, and keep checksums in files of
// their own.
func isHidden(name string) bool {
	return name == "" || name[0] == '.' || name[0] == '_' || strings.HasSuffix(name, ".crc")
}

// matchPath reports whether a pattern matches the segments of a path, or a folder above it. A
// hidden name is matched only by a segment that begins or ends like it.
func matchPath(pattern, segments []string) bool {
	switch {
	case len(pattern) == 0:
		return !slices.ContainsFunc(segments, isHidden) // all below a folder that matches
	case len(segments) == 0:
		return len(pattern) == 1 && pattern[0] == "**"
	case pattern[0] == "**":
		return matchPath(pattern[1:], segments) ||
			!isHidden(segments[0]) && matchPath(pattern, segments[1:])
	}

	return matchName(pattern[0], segments[0]) && matchPath(pattern[1:], segments[1:])
}

// matchName reports whether a segment of a pattern matches a name.
func matchName(pattern, name string) bool {
	begins := strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")
	switch {
	case name == "" || pattern == "":
		return name == pattern
	case begins && pattern[0] != name[0]:
		return false
	case strings.HasSuffix(name, ".crc") && !strings.HasSuffix(pattern, ".crc"):
		return false
	}

	matched, err := path.Match(pattern, name)

	return matched && err == nil
}

// malformedPattern returns the error of a pattern that cannot be used.
func malformedPattern(arg string) error {
	return exit.Usage("", "%s: the pattern has a bracket without its end", arg)
}

// expandPath returns the files of this machine that a path or a pattern names.
func expandPath(arg string) ([]string, error) {
	info, err := os.Stat(arg)
	if err != nil {
		if err := refuseScheme(arg); err != nil {
			return nil, err
		}
	}

	switch {
	case err == nil && info.IsDir():
		return listFolder(arg, arg+string(filepath.Separator), nil) // behind a link, too
	case err == nil || !strings.ContainsAny(arg, patternCharacters):
		return []string{arg}, nil // a missing file is reported by its reader
	}

	if _, err := path.Match(arg, ""); err != nil {
		return nil, malformedPattern(arg)
	}

	segments := strings.Split(path.Clean(filepath.ToSlash(arg)), "/")
	first := slices.IndexFunc(segments, func(s string) bool { return strings.ContainsAny(s, patternCharacters) })
	folder := "."
	if first > 0 {
		folder = filepath.FromSlash(strings.Join(segments[:first], "/") + "/")
	}

	return listFolder(arg, folder, segments[first:])
}

// listFolder returns the files below a folder that match a pattern, or all that are not hidden.
func listFolder(arg, folder string, pattern []string) ([]string, error) {
	w := folderWalk{pattern: pattern, found: map[string]bool{}}
	err := w.visitAll(folder)

	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, exit.Usage("", "input %s: no file matches", arg)
	case errors.Is(err, fs.ErrPermission):
		return nil, exit.Usage("let this user read it", "input %s: permission denied in the folder", arg)
	case err != nil:
		return nil, err
	case len(w.paths) == 0 && pattern != nil:
		return nil, exit.Usage("name a file that is there", "input %s: no file matches", arg)
	case len(w.paths) == 0:
		return nil, exit.Usage("name files, or a folder that has some", "input %s: the folder has no files", arg)
	}

	slices.Sort(w.paths)

	return w.paths, nil
}

// folderWalk finds the files below a folder. It follows links to other folders, and finds a file
// once even if its folder is reached in several ways.
type folderWalk struct {
	pattern []string
	// links are the links to folders that are not followed yet.
	links []folderPlace
	// paths are the files, and found has their paths with the links in their folders resolved.
	paths []string
	found map[string]bool
}

// folderPlace is a folder below the first one.
type folderPlace struct {
	// path is the path of the folder, and segments the part below the first one.
	path     string
	segments []string
	// above are the folders that lead to it, without links.
	above []string
}

// visitAll adds the files below a folder. Those that are reached without a link come first.
func (w *folderWalk) visitAll(folder string) error {
	w.links = []folderPlace{{path: folder}}

	for len(w.links) > 0 {
		next := w.links[0]
		w.links = w.links[1:]

		resolved, err := filepath.EvalSymlinks(next.path)
		if err != nil {
			return err
		}

		if slices.Contains(next.above, resolved) {
			continue // the link leads back
		}

		if err := w.visit(next, resolved); err != nil {
			return err
		}
	}

	return nil
}

// visit adds the files below a folder. resolved is its path without links.
func (w *folderWalk) visit(folder folderPlace, resolved string) error {
	entries, err := os.ReadDir(folder.path)
	if err != nil {
		return err
	}

	above := append(slices.Clip(folder.above), resolved)

	for _, entry := range entries {
		at := folderPlace{
			path:     filepath.Join(folder.path, entry.Name()),
			segments: append(slices.Clip(folder.segments), entry.Name()),
			above:    above,
		}
		if err := w.visitEntry(at, entry.Type(), filepath.Join(resolved, entry.Name())); err != nil {
			return err
		}
	}

	return nil
}

// visitEntry adds a file, or the files below a folder.
func (w *folderWalk) visitEntry(at folderPlace, mode fs.FileMode, resolved string) error {
	isMatch, holdsMatch := matchPath(w.pattern, at.segments), mayHold(w.pattern, at.segments)
	if !isMatch && !holdsMatch {
		return nil
	}

	isLink := mode&fs.ModeSymlink != 0
	if isLink {
		info, err := os.Stat(at.path)
		switch {
		case errors.Is(err, fs.ErrPermission):
			return err
		case err != nil && isMatch:
			return exit.Usage("remove the link", "input %s: the link leads to no file", at.path)
		case err == nil:
			mode = info.Mode()
		}
	}

	switch {
	case mode.IsDir() && holdsMatch && isLink:
		w.links = append(w.links, at)
	case mode.IsDir() && holdsMatch:
		return w.visit(at, resolved)
	case mode.IsDir() || !isMatch || w.found[resolved]:
	case !mode.IsRegular():
		return exit.Usage("move it out of the folder, or name the files", "input %s is %s", at.path, kindOf(mode))
	default:
		w.found[resolved] = true
		w.paths = append(w.paths, at.path)
	}

	return nil
}

// kindOf returns the kind of something in a folder that is no file.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe, and an input is read twice"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// mayHold reports whether a folder may have files below it that match a pattern.
func mayHold(pattern, folder []string) bool {
	for i, name := range folder {
		switch {
		case i >= len(pattern): // below a folder that matches
			if isHidden(name) {
				return false
			}
		case pattern[i] == "**":
			return !slices.ContainsFunc(folder[i:], isHidden)
		case !matchName(pattern[i], name):
			return false
		}
	}

	return true
}
