package objectstore

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

// Config says how a [Client] reaches the stores. What it does not say is in the environment:
// see the chapter Places of deploy/README.md.
type Config struct {
	// S3Endpoint is the URL of a server with the API of S3. Defaults to AWS_ENDPOINT_URL_S3,
	// AWS_ENDPOINT_URL, or Amazon's.
	S3Endpoint string
	// S3PathStyle asks for http://HOST/BUCKET/KEY instead of http://BUCKET.HOST/KEY. Defaults
	// to true with an endpoint that is not Amazon's.
	S3PathStyle *bool
	// Log gets a line for each request that is tried again. The zero value discards it.
	Log zerolog.Logger
}

// Client opens files by their path or URL. It implements the producer's Opener, and is safe for
// concurrent use.
type Client struct {
	cfg       Config
	transport *http.Transport
	web       *http.Client
	retrier   retrier
	recent    recentParts

	// mu guards the fields below.
	mu sync.Mutex
	// stores are the stores that were used, by scheme and bucket.
	stores map[location]store
	// versions are the versions of the files that were described, by their URLs. Images are opened
	// and not described, so that they take no memory here.
	versions map[string]string
	// signed are the URLs with their secrets, by what [Redact] makes of them.
	signed map[string]string
}

// New returns a client.
func New(cfg Config) *Client {
	transport := newTransport()
	c := &Client{
		cfg:       cfg,
		transport: transport,
		web:       &http.Client{Transport: transport},
		stores:    map[location]store{},
		versions:  map[string]string{},
		signed:    map[string]string{},
	}

	c.retrier = newRetrier(&c.cfg.Log)

	return c
}

// LogTo replaces the log of the client. It must not be called while the client is in use.
func (c *Client) LogTo(log zerolog.Logger) { c.cfg.Log = log }

// Close closes the connections that are not in use.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Stat implements inputfile.Opener.
func (c *Client) Stat(ctx context.Context, path string) (proto.File, error) {
	if !IsURL(path) {
		return inputfile.Local{}.Stat(ctx, path)
	}

	s, at, err := c.find(ctx, path)
	if err != nil {
		return proto.File{}, err
	}

	found, err := c.statObject(ctx, s, at.key, path)
	if err != nil {
		return proto.File{}, err
	}

	c.mu.Lock()
	c.versions[path] = found.Version
	c.mu.Unlock()

	return proto.File{
		Path:    path,
		Bytes:   found.Size,
		ModTime: found.ModTime,
		ETag:    found.Version,
	}, nil
}

// statObject describes an object. A request that hangs is tried again.
func (c *Client) statObject(ctx context.Context, s store, key, name string) (found object, err error) {
	err = c.retrier.retry(ctx, name, func() error {
		asking, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()

		found, err = s.Stat(asking, key)

		return err
	})

	return found, err
}

// Open implements inputfile.Opener. A file without an ETag that was described before must be the
// same still.
func (c *Client) Open(ctx context.Context, file proto.File) (inputfile.File, error) {
	if !IsURL(file.Path) {
		return inputfile.Local{}.Open(ctx, file)
	}

	s, at, err := c.find(ctx, file.Path)
	if err != nil {
		return nil, err
	}

	c.mu.Lock()
	version := cmp.Or(file.ETag, c.versions[file.Path])
	c.mu.Unlock()

	f, err := openRemote(ctx, s, at.key, file.Path, version, c.retrier, &c.recent)
	if err != nil {
		return nil, err
	}

	return f, nil
}

// find returns the store of a URL and the object's place in it.
func (c *Client) find(ctx context.Context, address string) (store, location, error) {
	c.mu.Lock()
	signed := c.signed[address]
	c.mu.Unlock()

	at, err := parseLocation(cmp.Or(signed, address))
	if exit.IsError(err) {
		return nil, at, err
	}
	if err != nil {
		return nil, at, exit.Usage("", "%w", err)
	}

	bucket := location{
		scheme: at.scheme,
		bucket: at.bucket,
	}

	c.mu.Lock()
	s, found := c.stores[bucket]
	c.mu.Unlock()
	if found {
		return s, at, nil
	}

	if s, err = c.openStore(bucket); err != nil {
		return nil, at, err
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	c.stores[bucket] = s

	return s, at, nil
}

// openStore returns the store of a scheme and bucket.
func (c *Client) openStore(at location) (store, error) {
	switch at.scheme {
	case schemeHTTP, schemeHTTPS:
		return &webStore{
			client: c.web,
			hint:   "give a URL that needs no login, such as a signed one",
		}, nil
	case schemeHuggingFace:
		return newHubStore(c.web, at.bucket, os.Getenv, c.retrier), nil
	case schemeS3:
		return newS3Store(at.bucket, c.cfg, c.transport, c.retrier)
	case schemeGCS:
		return newGCSStore(at.bucket, c.web, c.retrier), nil
	}

	return nil, exit.Usage("", "URLs of %s: are not read", at.scheme)
}

// hide remembers a URL with its secrets, and returns it without them: as it may be stored and
// shown.
func (c *Client) hide(address string) (string, error) {
	name := Redact(address)
	if name == address {
		return name, nil
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	if other, taken := c.signed[name]; taken && other != address {
		return "", exit.Usage("download one of them first",
			"two inputs are %s: they differ only in secrets, which are hidden here, so both would have one name", name)
	}

	c.signed[name] = address

	return name, nil
}

// nameOf returns the URL of an object of a bucket.
func nameOf(at location, key string) string {
	if at.scheme == schemeHuggingFace {
		return dataSetURL(at.bucket, key)
	}
	return fmt.Sprintf("%s://%s/%s", at.scheme, at.bucket, key)
}
