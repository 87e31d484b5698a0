package objectstore

import (
	"net/http"
	"sync"

	"github.com/rs/zerolog"
)

// Config says how a [Client] reaches the stores. What it does not say is in the environment: see the
// chapter Places of deploy/README.md.
type Config struct {
	// S3Endpoint is the URL of a server with the API of S3. Defaults to AWS_ENDPOINT_URL_S3,
	// AWS_ENDPOINT_URL, or Amazon's.
	S3Endpoint string
	// S3PathStyle asks for http://HOST/BUCKET/KEY instead of http://BUCKET.HOST/KEY. Defaults to true with
	// an S3Endpoint.
	S3PathStyle *bool
	// Log gets a line for each request that is tried again. Defaults to none.
	Log *zerolog.Logger
}

// Client opens files by their path or URL. It is safe for concurrent use.
type Client struct {
	cfg   Config
	web   *http.Client
	retry retryPolicy

	// mu guards the field below.
	mu sync.Mutex
	// stores are the stores that were used, by scheme and bucket.
	stores map[location]store
}
