package notice

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// Auto is the word for the metadata service of the cloud of this box, which is found at the start.
const Auto = "auto"

// None is the word for no source.
const None = "none"

// Forms says how sources are written, for the usage of a flag.
const Forms = "auto, none, aws, gcp, azure, file:PATH, a URL, SIGUSR1 or SIGUSR2"

// maxSources is the largest number of sources.
const maxSources = 16

// Parse returns the sources that words name: aws, gcp, azure, auto (see [Auto]), file: and a path, a URL, SIGUSR1,
// SIGUSR2; or only none. Words without a colon may stand together, with commas between them. getenv reads the
// environment: as the tools of the clouds do, sources use AWS_EC2_METADATA_SERVICE_ENDPOINT and GCE_METADATA_HOST. The
// error names the word that is wrong.
//
// From the call on, a signal that is a source ends the process no more.
func Parse(words []string, getenv func(string) string) ([]Source, error) {
	names, err := splitWords(words)
	if err != nil {
		return nil, err
	}

	if len(names) == 1 && names[0] == None {
		return nil, nil
	}

	var sources []Source
	named := map[string]bool{}
	for _, name := range names {
		s, err := parseSource(name, newClouds(getenv))
		if err != nil {
			return nil, err
		}

		key := s.String()
		if page, ok := s.(*webPage); ok {
			key = page.url.String() // two pages may differ in a secret alone
		}
		if named[key] {
			return nil, fmt.Errorf("%s is given twice", s)
		}

		named[key] = true
		sources = append(sources, s)
	}

	return sources, nil
}

// splitWords separates the words that stand together. A path and a URL may have commas.
func splitWords(words []string) (names []string, err error) {
	for _, word := range words {
		for word != "" {
			name, rest, _ := strings.Cut(word, ",")
			if strings.Contains(name, ":") {
				name, rest = word, ""
			}

			names, word = append(names, strings.TrimSpace(name)), rest
		}
	}

	switch {
	case len(names) == 0:
		return nil, errors.New("no source is named: give " + Forms)
	case len(names) > maxSources:
		return nil, fmt.Errorf("%d sources, of %d at most", len(names), maxSources)
	}

	return names, nil
}

// parseSource returns the source that a word names.
func parseSource(word string, c clouds) (Source, error) {
	switch strings.ToLower(word) {
	case Auto:
		return &auto{
			folder: vendorFolder,
			clouds: c,
		}, nil
	case "aws":
		return c.aws, nil
	case "gcp":
		return c.gcp, nil
	case "azure":
		return c.azure, nil
	case None:
		return nil, errors.New("none excludes every other source")
	}

	if s, ok := newSignalSource(strings.ToUpper(word)); ok {
		return s, nil
	}

	if path, ok := strings.CutPrefix(word, "file:"); ok {
		return parseFile(path)
	}

	if strings.HasPrefix(word, "http://") || strings.HasPrefix(word, "https://") {
		return parseURL(word)
	}

	return nil, fmt.Errorf("%s is no source: give %s", quote(word), Forms)
}

// parseFile returns the source of a file.
func parseFile(path string) (Source, error) {
	path = strings.TrimPrefix(path, "//") // file:///run/leave
	if path == "" {
		return nil, errors.New("file: has no path: write file:/run/leave")
	}

	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}

	return newFile(path), nil
}

// parseURL returns the source of a URL.
func parseURL(text string) (Source, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("this is no URL: " + quote(text))
	case u.Hostname() == "":
		return nil, errors.New("the URL has no host: " + quote(text))
	}

	return newWebPage(u), nil
}
