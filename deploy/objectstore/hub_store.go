package objectstore

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/promptmill/promptmill/deploy/exit"
)

// parquetRevision is the branch in which Hugging Face keeps a data set as Parquet, whatever its
// own format.
const parquetRevision = "refs/convert/parquet"

// hubStore reads a revision of a data set of Hugging Face. The keys are paths in its repository.
type hubStore struct {
	web *webStore
	// files is the URL of its files, with a slash at the end.
	files string
	// tree is the URL of its list of files.
	tree string
	// name is hf://datasets/OWNER/NAME@REVISION.
	name    string
	retrier retrier
}

// newHubStore returns the store of a data set, OWNER/NAME or OWNER/NAME@REVISION.
func newHubStore(client *http.Client, dataSet string, getenv func(string) string, r retrier) *hubStore {
	repository, revision, _ := strings.Cut(dataSet, "@")
	revision = url.PathEscape(cmp.Or(revision, "main"))
	endpoint := strings.TrimSuffix(cmp.Or(getenv("HF_ENDPOINT"), "https://huggingface.co"), "/")

	const hint = "look the name up on the page of the data set; of a private or gated one, set HF_TOKEN to a token of " +
		"an account that may read it"

	return &hubStore{
		web: &webStore{
			client:      client,
			token:       hubToken(getenv),
			hint:        hint,
			missingHint: hint,
		},
		files:   endpoint + "/datasets/" + repository + "/resolve/" + revision + "/",
		tree:    endpoint + "/api/datasets/" + repository + "/tree/" + revision,
		name:    dataSetURL(dataSet, ""),
		retrier: r,
	}
}

// hubToken returns the token of Hugging Face that this user has: of the environment, or of "hf
// auth login".
func hubToken(getenv func(string) string) string {
	if token := cmp.Or(getenv("HF_TOKEN"), getenv("HUGGING_FACE_HUB_TOKEN")); token != "" {
		return token
	}

	path := getenv("HF_TOKEN_PATH")
	if path == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		path = filepath.Join(cmp.Or(getenv("HF_HOME"), filepath.Join(home, ".cache", "huggingface")), "token")
	}

	token, err := os.ReadFile(path)
	if err != nil {
		return "" // there was no login
	}

	return strings.TrimSpace(string(token))
}

// dataSetURL returns the URL of a file of a data set.
func dataSetURL(dataSet, path string) string {
	repository, revision, hasRevision := strings.Cut(dataSet, "@")
	address := "hf://datasets/" + repository
	if hasRevision {
		address += "@" + strings.ReplaceAll(revision, "/", "%2F")
	}
	if path != "" {
		address += "/" + path
	}

	return address
}

// fileURL returns the URL of a file.
func (s *hubStore) fileURL(key string) string {
	segments := strings.Split(key, "/")
	for i, segment := range segments {
		segments[i] = url.PathEscape(segment)
	}
	return s.files + strings.Join(segments, "/")
}

// Stat implements store.
func (s *hubStore) Stat(ctx context.Context, key string) (object, error) {
	found, err := s.web.Stat(ctx, s.fileURL(key))
	found.Key = key

	return found, err
}

// Open implements store.
func (s *hubStore) Open(ctx context.Context, key string, p part) (io.ReadCloser, object, error) {
	body, found, err := s.web.Open(ctx, s.fileURL(key), p)
	found.Key = key

	return body, found, err
}

// hubEntry is an entry of the list of files.
type hubEntry struct {
	Type string `json:"type"`
	Path string `json:"path"`
	Size int64  `json:"size"`
}

// List implements lister.
func (s *hubStore) List(ctx context.Context, prefix string) iter.Seq2[object, error] {
	return func(yield func(object, error) bool) {
		folder := ""
		if slash := strings.LastIndexByte(prefix, '/'); slash >= 0 {
			folder = prefix[:slash]
		}

		address := s.tree
		for segment := range strings.SplitSeq(folder, "/") {
			if segment != "" {
				address += "/" + url.PathEscape(segment)
			}
		}

		address += "?recursive=true"

		var pages repetition
		for address != "" {
			if pages.hasBegun(address) {
				yield(object{}, endlessList(s.name))
				return
			}

			var entries []hubEntry
			var next string
			err := s.retrier.retry(ctx, s.name, func() (err error) {
				entries, next, err = s.readPage(ctx, address)
				return err
			})
			if err != nil {
				yield(object{}, err)
				return
			}

			for _, entry := range entries {
				if entry.Type != "file" || !strings.HasPrefix(entry.Path, prefix) {
					continue
				}
				if !yield(object{Key: entry.Path, Size: entry.Size}, nil) {
					return
				}
			}

			address = next
		}
	}
}

// readPage reads a page of the list of files, and the URL of the next one.
func (s *hubStore) readPage(ctx context.Context, address string) (entries []hubEntry, next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, "", exit.Usage("", "%s is not a URL: HF_ENDPOINT is wrong", Redact(address))
	}

	if s.web.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.web.token)
	}

	resp, err := s.web.client.Do(req)
	if err != nil {
		return nil, "", connectionFailure(err)
	}
	defer resp.Body.Close()

	if resp.StatusCode != http.StatusOK {
		return nil, "", s.web.describeRefusal(resp, s.name, part{})
	}

	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, "", connectionFailure(err)
	}

	if err := json.Unmarshal(body, &entries); err != nil {
		return nil, "", &temporaryError{err: errors.New("the server answers no list of files")}
	}

	next, err = s.nextPage(address, resp.Header.Get("Link"))

	return entries, next, err
}

// nextPage returns the URL of the next page in a header Link: <URL>; rel="next". The token is
// sent there, so it must be on the same server.
func (s *hubStore) nextPage(address, link string) (string, error) {
	for value := range strings.SplitSeq(link, ",") {
		target, parameters, _ := strings.Cut(value, ";")
		if !strings.Contains(parameters, `rel="next"`) {
			continue
		}

		here, err := url.Parse(address)
		if err != nil {
			return "", err
		}

		next, err := here.Parse(strings.Trim(target, " <>"))
		if err != nil || next.Scheme != here.Scheme || next.Host != here.Host {
			return "", errors.New("the next page of the list of files is on another server")
		}

		return next.String(), nil
	}

	return "", nil
}
