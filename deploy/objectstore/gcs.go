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
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/promptmill/promptmill/deploy/exit"
)

// gcsScope is the permission that tokens for Google Cloud Storage have.
const gcsScope = "https://www.googleapis.com/auth/devstorage.read_write"

// gcsFields are the fields of an object that are asked for.
const gcsFields = "name,size,generation,updated,crc32c,metadata"

// gcsStore is a bucket of Google Cloud Storage, by its JSON API. It implements [store].
type gcsStore struct {
	bucket string
	base   string       // the URL of the API, without a slash at its end
	plain  *http.Client // without credentials
	retry  retrier

	// mu guards the fields below.
	mu sync.Mutex
	// authorized adds the token to requests. It is nil until the first request.
	authorized *http.Client
	// found is the time at which the credentials were looked for.
	found time.Time
}

// newGCSStore returns a bucket. STORAGE_EMULATOR_HOST names another server, which asks for no
// credentials.
func newGCSStore(bucket string, client *http.Client, retry retrier) *gcsStore {
	g := &gcsStore{
		bucket: bucket,
		base:   "https://storage.googleapis.com",
		plain:  client,
		retry:  retry,
	}

	if host := os.Getenv("STORAGE_EMULATOR_HOST"); host != "" {
		if !strings.Contains(host, "://") {
			host = "http://" + host
		}
		g.base, g.authorized = strings.TrimSuffix(host, "/"), client
	}

	return g
}

// client returns the client with the default credentials of this machine, or without any if
// there are none: public buckets can be read then.
func (g *gcsStore) client(ctx context.Context) *http.Client {
	g.mu.Lock()
	defer g.mu.Unlock()

	if g.authorized != nil {
		return g.authorized
	}

	// The credentials outlive the request that asks for them first.
	ctx = context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, g.plain)

	g.authorized, g.found = g.plain, time.Now()
	if creds, err := google.FindDefaultCredentials(ctx, gcsScope); err == nil {
		g.authorized = oauth2.NewClient(ctx, creds.TokenSource)
	}

	return g.authorized
}

// renewCredentials has the credentials looked for again, and reports whether that may help: it
// does not if that was just done.
func (g *gcsStore) renewCredentials() bool {
	g.mu.Lock()
	defer g.mu.Unlock()

	if g.found.IsZero() || time.Since(g.found) < 30*time.Second {
		return false
	}

	g.authorized = nil

	return true
}

// gcsObject is an object as the API describes it.
type gcsObject struct {
	Name       string            `json:"name"`
	Size       string            `json:"size,omitempty"`
	Generation string            `json:"generation,omitempty"`
	Updated    time.Time         `json:"updated,omitzero"`
	CRC32C     string            `json:"crc32c,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
}

// object returns what all stores describe.
func (o gcsObject) object() object {
	size, err := strconv.ParseInt(o.Size, 10, 64)
	if err != nil {
		size = -1
	}

	return object{
		Key:     o.Name,
		Size:    size,
		Version: o.Generation,
		ModTime: o.Updated,
	}
}

// address returns the URL of an object in the API.
func (g *gcsStore) address(key string, query url.Values) string {
	return g.base + "/storage/v1/b/" + url.PathEscape(g.bucket) + "/o/" + url.PathEscape(key) + "?" + query.Encode()
}

// name returns the URL of an object for people.
func (g *gcsStore) name(key string) string { return schemeGCS + "://" + g.bucket + "/" + key }

// do sends a request, and returns an answer whose status is below 400. Any other status is an
// error.
func (g *gcsStore) do(request *http.Request, key string) (*http.Response, error) {
	answer, err := g.client(request.Context()).Do(request)
	if err != nil {
		return nil, describeTokenFailure(g.name(key), err)
	}

	if answer.StatusCode < http.StatusBadRequest {
		return answer, nil
	}

	defer answer.Body.Close()

	text, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10)) // the status is enough

	return nil, g.describeRefusal(answer, key, text)
}

// describeTokenFailure returns the error of a request that was not answered, or for which there
// was no token.
func describeTokenFailure(name string, err error) error {
	refused, _ := errors.AsType[*oauth2.RetrieveError](err)
	if refused == nil || refused.Response == nil {
		return connectionFailure(err)
	}

	status := refused.Response.StatusCode
	if err := statusFailure(status, refused.Response.Header, "no token"); err != nil {
		return err
	}

	return forbiddenObject(name, "Google gives no token for the credentials: "+
		describeStatus(status, refused.ErrorCode),
		gcsLogin)
}

// gcsLogin is the hint of an answer that forbids the request.
const gcsLogin = "set GOOGLE_APPLICATION_CREDENTIALS to a key file that may do that, or log in with gcloud auth " +
	"application-default login"

// describeRefusal returns the error of an answer that refuses a request.
func (g *gcsStore) describeRefusal(answer *http.Response, key string, text []byte) error {
	name, said := g.name(key), parseGCSMessage(text)
	if err := statusFailure(answer.StatusCode, answer.Header, said); err != nil {
		return err
	}

	switch status := answer.StatusCode; {
	case status == http.StatusNotFound && key == "", strings.Contains(said, "bucket does not exist"):
		return exit.Usage("look the name of the bucket up", "%w",
			&failure{name + ": there is no bucket " + g.bucket, errNoBucket})
	case status == http.StatusNotFound:
		return missingObject(name, "")
	case status == http.StatusPreconditionFailed:
		return changedObject(name, "has another generation now")
	case status == http.StatusUnauthorized && g.renewCredentials():
		return &temporaryError{err: errors.New("the store does not accept the token")}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return forbiddenObject(name, "the store answers "+describeStatus(status, said), gcsLogin)
	default:
		return exit.Usage("", "%s: the store answers %s", name, describeStatus(status, said))
	}
}

// parseGCSMessage returns the message of an error of the API, or nothing.
func parseGCSMessage(text []byte) string {
	var body struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(text, &body) != nil {
		return ""
	}

	return strings.ToValidUTF8(body.Error.Message[:min(len(body.Error.Message), 300)], "")
}

// getJSON decodes the answer to a GET.
func (g *gcsStore) getJSON(ctx context.Context, address, key string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return exit.Usage("", "%s is not a URL", g.name(key))
	}

	answer, err := g.do(request, key)
	if err != nil {
		return err
	}
	defer answer.Body.Close()

	if err := json.NewDecoder(io.LimitReader(answer.Body, maxPage)).Decode(into); err != nil {
		return &temporaryError{err: errors.New("the answer of the store breaks off, or is not JSON")}
	}

	return nil
}

// describe returns an object as the API describes it.
func (g *gcsStore) describe(ctx context.Context, key string) (gcsObject, error) {
	var o gcsObject
	err := g.getJSON(ctx, g.address(key, url.Values{"fields": {gcsFields}}), key, &o)

	return o, err
}

// Stat implements store.
func (g *gcsStore) Stat(ctx context.Context, key string) (object, error) {
	o, err := g.describe(ctx, key)
	return o.object(), err
}

// Open implements store.
func (g *gcsStore) Open(ctx context.Context, key string, p part) (io.ReadCloser, object, error) {
	query := url.Values{"alt": {"media"}}
	if p.Version != "" {
		query.Set("ifGenerationMatch", p.Version)
	}

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.address(key, query), nil)
	if err != nil {
		return nil, object{}, exit.Usage("", "%s is not a URL", g.name(key))
	}

	// Without it, the store unpacks objects that have Content-Encoding: gzip, and ignores the
	// range.
	request.Header.Set("Accept-Encoding", "gzip")
	if p.isRange() {
		request.Header.Set("Range", formatRange(p))
	}

	answer, err := g.client(ctx).Do(request)
	if err != nil {
		return nil, object{}, describeTokenFailure(g.name(key), err)
	}

	contentRange := ""
	switch status := answer.StatusCode; {
	case status == http.StatusRequestedRangeNotSatisfiable:
		answer.Body.Close()
		return g.openEmpty(ctx, key, p)
	case status >= http.StatusBadRequest:
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10)) // the status is enough
		answer.Body.Close()
		return nil, object{}, g.describeRefusal(answer, key, text)
	case status == http.StatusPartialContent:
		contentRange = cmp.Or(answer.Header.Get("Content-Range"), noContentRange)
	}

	found := object{Key: key, Version: answer.Header.Get("X-Goog-Generation")}
	if err := describeRange(&found, g.name(key), p, contentRange, answer.ContentLength); err != nil {
		answer.Body.Close()
		return nil, object{}, err
	}

	found.ModTime, _ = http.ParseTime(answer.Header.Get("Last-Modified")) // zero: not known

	return answer.Body, found, nil
}

// openEmpty opens the part of an empty object, for which the store answers that it has no such range.
func (g *gcsStore) openEmpty(ctx context.Context, key string, p part) (io.ReadCloser, object, error) {
	found, err := g.Stat(ctx, key)
	if err != nil {
		return nil, object{}, err
	}

	if p.Version != "" && found.Version != p.Version {
		return nil, object{}, changedObject(g.name(key), "has another generation now")
	}

	if found.Size > p.Offset {
		return nil, object{}, &temporaryError{err: errors.New("the store refuses a range that the object has")}
	}

	if found.Size < p.Offset {
		return nil, object{}, changedObject(g.name(key), "is shorter now")
	}

	return io.NopCloser(strings.NewReader("")), found, nil
}

// List implements lister.
func (g *gcsStore) List(ctx context.Context, prefix string) iter.Seq2[object, error] {
	return func(yield func(object, error) bool) {
		for o, err := range g.listObjects(ctx, prefix) {
			if !yield(o.object(), err) {
				return
			}
		}
	}
}

// listObjects yields the objects whose names begin with a prefix as the API describes them.
func (g *gcsStore) listObjects(ctx context.Context, prefix string) iter.Seq2[gcsObject, error] {
	return func(yield func(gcsObject, error) bool) {
		query := url.Values{
			"prefix": {prefix},
			"fields": {"nextPageToken,items(" + gcsFields + ")"},
		}

		address := g.base + "/storage/v1/b/" + url.PathEscape(g.bucket) + "/o?"

		var pages repetition
		for {
			var page struct {
				Items []gcsObject `json:"items"`
				Next  string      `json:"nextPageToken"`
			}

			err := g.retry.retry(ctx, g.name(prefix)+"*", func() error {
				return g.getJSON(ctx, address+query.Encode(), "", &page)
			})
			if err != nil {
				yield(gcsObject{}, err)
				return
			}

			for _, o := range page.Items {
				if !yield(o, nil) {
					return
				}
			}

			if page.Next == "" {
				return
			}

			if pages.hasBegun(page.Next) {
				yield(gcsObject{}, endlessList(g.name(prefix)+"*"))
				return
			}

			query.Set("pageToken", page.Next)
		}
	}
}
