package objectstore

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/promptmill/promptmill/deploy/exit"
)

// s3Store is a bucket of S3, or of a server with its API. It implements [store].
type s3Store struct {
	client s3Client
	creds  *credentials.Credentials
	bucket string
	// server is the URL of the server. Empty: Amazon's.
	server string
	retry  retrier
}

// newS3Store returns a bucket. The credentials come from the environment, from the files of
// the AWS CLI, or from the machine.
func newS3Store(bucket string, cfg Config, transport http.RoundTripper, retry retrier) (*s3Store, error) {
	profile, err := readS3Profile(os.Getenv)
	if err != nil {
		return nil, err
	}

	endpoint := cmp.Or(cfg.S3Endpoint, profile.endpointOf(os.Getenv), "https://s3.amazonaws.com")
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, exit.Usage("write https://HOST or http://HOST:PORT",
			"the endpoint %s is not a URL", Redact(endpoint))
	}

	amazon := strings.HasSuffix(u.Hostname(), ".amazonaws.com") || strings.HasSuffix(u.Hostname(), ".amazonaws.com.cn")
	style := profile.addressing
	if cfg.S3PathStyle != nil {
		style = "virtual"
		if *cfg.S3PathStyle {
			style = "path"
		}
	}

	lookup := minio.BucketLookupAuto
	switch {
	case style == "virtual":
		lookup = minio.BucketLookupDNS
	case style == "path" || !amazon:
		lookup = minio.BucketLookupPath
	}

	creds := credentials.New(newCredentialChain(os.Getenv, profile))
	region := cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"), profile.region)
	if region == "" && !amazon {
		region = "us-east-1"
	}

	client, err := newS3Client(u.Host, &minio.Options{
		Creds:        creds,
		Secure:       u.Scheme == "https",
		Transport:    rangeMarker{transport},
		Region:       region,
		BucketLookup: lookup,
		MaxRetries:   1,
	})
	if err != nil {
		return nil, exit.Usage("", "the endpoint %s cannot be used: %w", endpoint, err)
	}

	s := &s3Store{
		client: client,
		creds:  creds,
		bucket: bucket,
		retry:  retry,
	}
	if !amazon {
		s.server = u.Scheme + "://" + u.Host
	}

	return s, nil
}

// name returns the URL of an object for people.
func (s *s3Store) name(key string) string { return schemeS3 + "://" + s.bucket + "/" + key }

// describeError puts an error of the client into words.
func (s *s3Store) describeError(err error, key string) error {
	if err == nil {
		return nil
	}

	temporary, _ := errors.AsType[*temporaryError](err)
	if exit.IsError(err) || temporary != nil { // of the credentials
		return err
	}

	answer, ok := errors.AsType[minio.ErrorResponse](err)
	name := s.name(key)
	switch {
	case ok && answer.StatusCode == 0 && answer.Code == minio.InternalError: // of headers that minio-go cannot parse
		return exit.Usage("look whether the endpoint has the API of S3",
			"%s: the headers of the answer do not describe an object", name)
	case !ok || answer.StatusCode == 0:
		return connectionFailure(err)
	}

	switch answer.Code {
	case minio.NoSuchBucket:
		server := ""
		if s.server != "" {
			server = " on " + s.server
		}
		return exit.Usage("look the name of the bucket up", "%w",
			&failure{name + ": there is no bucket " + s.bucket + server, errNoBucket})
	case minio.NoSuchKey, "NotFound":
		return missingObject(name, "")
	case minio.PreconditionFailed:
		return changedObject(name, "has another ETag now")
	case "ExpiredToken", "ExpiredTokenException":
		s.creds.Expire() // the next request fetches them again
		return &temporaryError{
			err:      errors.New("the store says that the token has expired"),
			attempts: 3,
			final: forbiddenObject(name, "the token of the credentials has expired",
				"fetch new credentials, as with aws sso login, and run the same command again"),
		}
	case minio.AuthorizationHeaderMalformed, minio.InvalidRegion, "PermanentRedirect":
		hint := "set AWS_REGION to the region of the bucket"
		if answer.Region != "" {
			hint = "set AWS_REGION to " + answer.Region
		}
		return exit.Usage(hint, "%s: the bucket is in another region", name)
	case minio.InvalidAccessKeyID, minio.SignatureDoesNotMatch, "InvalidToken":
		return s.describeForbidden(name, answer)
	case "SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "ConditionalRequestConflict":
		return &temporaryError{err: errors.New("the store answers " + describeStatus(answer.StatusCode, answer.Code))}
	}

	if err := statusFailure(answer.StatusCode, http.Header{}, answer.Code); err != nil {
		return err
	}

	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return s.describeForbidden(name, answer)
	}

	return exit.Usage("", "%s: the store answers %s", name, describeStatus(answer.StatusCode, answer.Code))
}

// describeForbidden returns the error of an answer that forbids a request.
func (s *s3Store) describeForbidden(name string, answer minio.ErrorResponse) error {
	text := "the store answers " + describeStatus(answer.StatusCode, answer.Code)
	if value, err := s.creds.GetWithContext(s.client.CredContext()); err == nil && value.AccessKeyID == "" {
		text += "; no credentials were found, so that the request had none"
	}

	return forbiddenObject(name, text, s3Credentials)
}

// s3Credentials is the hint of an answer that forbids a request.
const s3Credentials = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to credentials that may do that"

// Stat implements store. It asks for the first byte: an error in answer to HEAD has no code.
func (s *s3Store) Stat(ctx context.Context, key string) (object, error) {
	body, found, err := s.Open(ctx, key, part{Length: 1})
	if err != nil {
		return object{}, err
	}
	body.Close()

	return found, nil
}

// openEmpty opens the part of an empty object, for which the store answers that it has no such range.
func (s *s3Store) openEmpty(ctx context.Context, key string, p part) (io.ReadCloser, object, error) {
	info, err := s.client.StatObject(ctx, s.bucket, key, minio.StatObjectOptions{})
	if err != nil {
		return nil, object{}, s.describeError(err, key)
	}

	switch {
	case info.Size < 0, info.Size > p.Offset:
		return nil, object{}, &temporaryError{err: errors.New("the store refuses a range that the object has")}
	case info.Size < p.Offset:
		return nil, object{}, changedObject(s.name(key), "is shorter now")
	}

	found := describeS3Object(info, key)
	found.First = p.Offset

	return io.NopCloser(strings.NewReader("")), found, nil
}

// describeS3Object describes an object for all stores.
func describeS3Object(info minio.ObjectInfo, key string) object {
	found := object{
		Key:     key,
		Size:    info.Size,
		Version: info.ETag,
		ModTime: info.LastModified,
	}
	if found.Version == "" { // a gateway to files that others write
		found.Version = modifiedPrefix + info.LastModified.UTC().Format(time.RFC3339Nano)
	}

	return found
}

// modifiedPrefix begins the version of an object that has no ETag: the time of its last change.
const modifiedPrefix = "modified "

// Open implements store.
func (s *s3Store) Open(ctx context.Context, key string, p part) (io.ReadCloser, object, error) {
	opts := minio.GetObjectOptions{}
	if p.isRange() {
		opts.Set("Range", formatRange(p))
	}

	if p.Version != "" && !strings.HasPrefix(p.Version, modifiedPrefix) {
		opts.Set("If-Match", `"`+p.Version+`"`)
	}

	body, info, header, err := s.client.GetObject(ctx, s.bucket, key, opts)
	if err != nil {
		if minio.ToErrorResponse(err).StatusCode == http.StatusRequestedRangeNotSatisfiable {
			return s.openEmpty(ctx, key, p)
		}
		return nil, object{}, s.describeError(err, key)
	}

	found := describeS3Object(info, key)
	if err := describeRange(&found, s.name(key), p, header.Get("Content-Range"), info.Size); err != nil {
		body.Close()
		return nil, object{}, err
	}

	return body, found, nil
}

// rangeMarker is the transport of minio-go, which does not return the status of an answer. It
// marks an answer that has a part of an object and does not say which.
type rangeMarker struct {
	transport http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (m rangeMarker) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := m.transport.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusPartialContent && resp.Header.Get("Content-Range") == "" {
		resp.Header.Set("Content-Range", noContentRange)
	}

	return resp, err
}

// List implements lister.
func (s *s3Store) List(ctx context.Context, prefix string) iter.Seq2[object, error] {
	return func(yield func(object, error) bool) {
		last := ""
		var keys repetition
		for failures := 1; ; failures++ {
			var failed error
			for info := range s.client.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{
				Prefix:     prefix,
				Recursive:  true,
				StartAfter: last,
			}) {
				if failed = info.Err; failed != nil {
					break
				}

				if keys.hasBegun(info.Key) {
					yield(object{}, endlessList(s.name(prefix)+"*"))
					return
				}

				if !yield(describeS3Object(info, info.Key), nil) {
					return
				}

				last, failures = info.Key, 1
			}

			if failed == nil {
				return
			}

			if err := s.retry.wait(ctx, s.name(prefix)+"*", failures, s.describeError(failed, prefix+"*")); err != nil {
				yield(object{}, err)
				return
			}
		}
	}
}
