package objectstore

import (
	"cmp"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	"github.com/promptmill/promptmill/deploy/exit"
)

// The schemes of URLs.
const (
	schemeS3          = "s3"
	schemeGCS         = "gs"
	schemeHTTP        = "http"
	schemeHTTPS       = "https"
	schemeHuggingFace = "hf"
)

// location is the place of an object, or of several.
type location struct {
	// scheme is the scheme of the URL; empty: a path of this machine.
	scheme string
	// bucket is the bucket, the host of a web server, or the data set with its revision:
	// OWNER/NAME@REV.
	bucket string
	// key is the key in the bucket. Of a web server it is the whole URL.
	key string
}

// IsURL reports whether an argument is a URL with a scheme that a [Client] reads, and no path.
func IsURL(arg string) bool {
	scheme, _, found := strings.Cut(arg, "://")
	if !found {
		return false
	}

	switch strings.ToLower(scheme) {
	case schemeS3, schemeGCS, schemeHTTP, schemeHTTPS, schemeHuggingFace:
		return true
	}

	return false
}

// refuseScheme returns an error if an argument that is no file of this machine looks like a URL
// that is not read.
func refuseScheme(arg string) error {
	scheme, rest, found := strings.Cut(arg, ":/")
	isName := func(c rune) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' }
	if !found || scheme == "" || strings.ContainsFunc(strings.ToLower(scheme), func(c rune) bool {
		return !isName(c)
	}) {
		return nil
	}

	way := "an input is a file, or a URL that begins with s3://, gs://, https://, http:// or hf://datasets/"
	rest = strings.TrimLeft(rest, "/")
	switch scheme = strings.ToLower(scheme); scheme {
	case "s3a", "s3n":
		way = "write s3://" + rest
	case "gcs":
		way = "write gs://" + rest
	case "file":
		way = "write /" + rest
	case "az", "abfs", "abfss", "wasb", "wasbs", "adl":
		way = "make a URL with a shared access signature, and give that: https://..."
	case schemeS3, schemeGCS, schemeHTTP, schemeHTTPS, schemeHuggingFace:
		return exit.Usage("write "+scheme+"://"+rest, "input %s: there is no such file", Redact(arg))
	}

	return exit.Usage(way, "input %s: there is no such file, and URLs with %s: are not read", Redact(arg), scheme)
}

// parseLocation parses a path or URL. The keys of s3:// and gs:// are taken as they are
// written: a key may have any character, and is not escaped.
func parseLocation(arg string) (location, error) {
	if !IsURL(arg) {
		return location{key: arg}, nil
	}

	scheme, rest, _ := strings.Cut(arg, "://")
	scheme = strings.ToLower(scheme)
	switch scheme {
	case schemeHTTP, schemeHTTPS:
		return parseWebLocation(arg)
	case schemeHuggingFace:
		return parseDataSetLocation(arg)
	}

	bucket, key, _ := strings.Cut(rest, "/")
	if bucket == "" {
		return location{}, fmt.Errorf("%s has no bucket: write %s://BUCKET/KEY", arg, scheme)
	}

	if strings.Contains(bucket, "@") {
		return location{}, fmt.Errorf("%s: a URL must not have a user name or a password: set the credentials in the "+
			"environment", Redact(arg))
	}

	return location{
		scheme: scheme,
		bucket: bucket,
		key:    key,
	}, nil
}

// parseWebLocation parses a URL of a web server.
func parseWebLocation(arg string) (location, error) {
	u, err := url.Parse(arg)
	if err != nil || u.Host == "" {
		return location{}, fmt.Errorf("%s is not a URL: write https://HOST/PATH, with %%20 for a space", Redact(arg))
	}

	if u.User != nil {
		return location{}, fmt.Errorf("%s: a URL must not have a user name or a password: they would be stored with "+
			"the run", Redact(arg))
	}

	u.Fragment = ""
	if page, ok := strings.CutPrefix(u.Path, "/datasets/"); ok && u.Host == "huggingface.co" {
		// datasets/OWNER/NAME/blob/REVISION/PATH is the page of a file
		if parts := strings.SplitN(page, "/", 5); len(parts) == 5 && parts[2] == "blob" {
			return location{}, exit.Usage("write "+dataSetURL(parts[0]+"/"+parts[1]+"@"+parts[3], parts[4]),
				"%s is a page about a file", Redact(arg))
		}
	}

	return location{
		scheme: u.Scheme,
		bucket: u.Host,
		key:    u.String(),
	}, nil
}

// parseDataSetLocation parses hf://datasets/OWNER/NAME[@REV][/PATH]. A revision with a slash is
// written with %2F, or is refs/convert/NAME or refs/pr/N.
func parseDataSetLocation(arg string) (location, error) {
	malformed := fmt.Errorf("%s is not a data set: write hf://datasets/OWNER/NAME/PATH, with @REVISION behind NAME "+
		"for another revision than main", Redact(arg))

	_, rest, _ := strings.Cut(arg, "://")
	parts := strings.SplitN(rest, "/", 4)
	if len(parts) < 3 || parts[0] != "datasets" || parts[1] == "" || parts[2] == "" {
		return location{}, malformed
	}

	name, revision, hasRevision := strings.Cut(parts[2], "@")
	var key string
	if len(parts) == 4 {
		key = parts[3]
	}

	if revision == "refs" { // refs/convert/parquet and refs/pr/1 are revisions that have slashes
		refs := strings.SplitN(key, "/", 3)
		if len(refs) < 2 {
			return location{}, malformed
		}
		revision = "refs/" + refs[0] + "/" + refs[1]
		key = strings.Join(refs[2:], "/")
	}

	revision, err := url.PathUnescape(revision)
	if err != nil || name == "" || hasRevision && revision == "" {
		return location{}, malformed
	}

	bucket := parts[1] + "/" + name
	if revision != "" {
		bucket += "@" + revision
	}

	return location{
		scheme: schemeHuggingFace,
		bucket: bucket,
		key:    key,
	}, nil
}

// BaseName returns the last part of a path or URL, as a name for a file that is made of it.
func BaseName(arg string) string {
	at, err := parseLocation(arg)
	switch {
	case err != nil || at.scheme == "":
		return filepath.Base(arg)
	case at.scheme == schemeHTTP, at.scheme == schemeHTTPS:
		if u, err := url.Parse(arg); err == nil {
			at.key = u.Path
		}
	}

	bucket, _, _ := strings.Cut(at.bucket, "@")

	return path.Base(cmp.Or(strings.Trim(at.key, "/"), bucket))
}
