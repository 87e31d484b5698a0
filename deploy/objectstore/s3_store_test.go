package objectstore

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// startGateway starts versitygw, a server with the API of S3, over a folder, and sets the
// environment to use it. It skips the test if versitygw is not there.
func startGateway(t *testing.T, dir string) (endpoint string) {
	t.Helper()

	program, err := exec.LookPath(cmp.Or(os.Getenv("PROMPTMILL_TEST_VERSITYGW"), "versitygw"))
	if err != nil {
		t.Skip("versitygw is not there: go install github.com/versity/versitygw/cmd/versitygw@v1.8.0, " +
			"or set PROMPTMILL_TEST_VERSITYGW")
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	address := listener.Addr().String()
	listener.Close()

	var log bytes.Buffer
	cmd := exec.Command(program, "--port", address, "posix", dir)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY=user", "ROOT_SECRET_KEY=password")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("versitygw: %s", log.String())
		}
	})

	for deadline := time.Now().Add(10 * time.Second); ; {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			break
		}

		if time.Now().After(deadline) {
			t.Fatal("versitygw does not listen")
		}

		time.Sleep(10 * time.Millisecond)
	}

	isolateCredentials(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "user")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "password")

	return "http://" + address
}

// isolateCredentials hides the credentials of the user who runs the tests.
func isolateCredentials(t *testing.T) {
	t.Helper()

	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY",
		"AWS_SESSION_TOKEN", "AWS_PROFILE",
		"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
	} {
		t.Setenv(name, "")
	}

	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "credentials"))
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "config"))
}

// startProxy starts a proxy that may answer a request itself. n counts the requests from 1.
func startProxy(
	t *testing.T, target string, fault func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter,
) (endpoint string, requests *atomic.Int64) {
	t.Helper()

	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}

	requests = new(atomic.Int64)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Host = r.In.Host // the signature covers it
	}}

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if w := fault(w, r, int(requests.Add(1))); w != nil {
			proxy.ServeHTTP(w, r)
		}
	}))

	t.Cleanup(server.Close)

	return server.URL, requests
}

// answerError answers like S3 does.
func answerError(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	io.WriteString(w, "<Error><Code>"+code+"</Code><Message>no</Message></Error>")
}

func TestS3(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, filepath.Join(dir, "bucket"), treeNames...)

	text := testText()
	if err := os.WriteFile(filepath.Join(dir, "bucket", "big file+ä.jsonl"), text, 0o644); err != nil {
		t.Fatal(err)
	}

	endpoint := startGateway(t, dir)

	c := newTestClient(t, Config{S3Endpoint: endpoint})
	for arg, want := range map[string]string{
		"s3://bucket/data": "data/part-0.jsonl data/part-1.jsonl data/year=2024/part-0.csv " +
			"data/year=2025/a/part-0.jsonl",
		"s3://bucket/**/*.jsonl": "big file+ä.jsonl data/part-0.jsonl data/part-1.jsonl data/year=2025/a/part-0.jsonl " +
			"other.jsonl",
		"s3://bucket/data/part-?.jsonl": "data/part-0.jsonl data/part-1.jsonl",
		"s3://bucket/other.jsonl":       "other.jsonl",
	} {
		got, err := c.Expand(t.Context(), arg)
		if keys := strings.ReplaceAll(strings.Join(got, " "), "s3://bucket/", ""); err != nil || keys != want {
			t.Errorf("%s: %q, %v; want %q", arg, keys, err, want)
		}
	}

	const big = "s3://bucket/big file+ä.jsonl"
	got, err := readAll(t.Context(), c, proto.File{Path: big})
	if err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes, %v", len(got), err)
	}

	for arg, want := range map[string]string{
		"s3://bucket/none":    "there is no such object",
		"s3://missing/x":      "there is no bucket missing",
		"s3://bucket/*.xyz":   "no object matches",
		"s3://bucket/a[.json": "bracket",
	} {
		if _, err := c.Expand(t.Context(), arg); exit.Code(err) != exit.CodeUsage ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", arg, err, want)
		}
	}

	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")

	_, err = newTestClient(t, Config{S3Endpoint: endpoint}).Stat(t.Context(), big)
	if exit.Code(err) != exit.CodeUsage || !strings.Contains(exit.Hint(err), "AWS_PROFILE") {
		t.Errorf("a wrong secret: %v", err)
	}
}

func TestS3Faults(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, filepath.Join(dir, "bucket"), "a.jsonl")
	text := testText()
	path := filepath.Join(dir, "bucket", "big.jsonl")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}

	endpoint := startGateway(t, dir)

	for _, tt := range []struct {
		name string
		// fault hurts the second request, which reads behind the head.
		fault func(w http.ResponseWriter) http.ResponseWriter
		code  int
		is    error
		// stays hurts all later requests, too.
		stays bool
	}{
		{"SlowDown", func(w http.ResponseWriter) http.ResponseWriter {
			answerError(w, 503, "SlowDown")
			return nil
		}, exit.CodeOK, nil, false},
		{"a cut connection", func(w http.ResponseWriter) http.ResponseWriter {
			return &cutWriter{ResponseWriter: w, left: 1000}
		}, exit.CodeOK, nil, false},
		{"an expired token that stays", func(w http.ResponseWriter) http.ResponseWriter {
			answerError(w, 400, "ExpiredToken")
			return nil
		}, exit.CodeUsage, nil, true},
		{"a changed object", func(w http.ResponseWriter) http.ResponseWriter {
			if err := os.WriteFile(path+".new", text[1:], 0o644); err != nil {
				t.Error(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Error(err)
			}
			return w
		}, exit.CodeError, proto.ErrInputChanged, false},
		{"a deleted object", func(w http.ResponseWriter) http.ResponseWriter {
			os.Remove(path)
			return w
		}, exit.CodeError, proto.ErrInputChanged, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxy, _ := startProxy(t, endpoint,
				func(w http.ResponseWriter, _ *http.Request, n int) http.ResponseWriter {
					if n < 2 || n > 2 && !tt.stays {
						return w
					}
					return tt.fault(w)
				})

			got, err := readAll(t.Context(), newTestClient(t, Config{S3Endpoint: proxy}), proto.File{
				Path: "s3://bucket/big.jsonl",
			})
			if exit.Code(err) != tt.code || tt.is != nil && !errors.Is(err, tt.is) ||
				err == nil && !bytes.Equal(got, text) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

func TestS3ExpiredTokenIsRenewed(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, filepath.Join(dir, "bucket"), "a.jsonl")
	endpoint := startGateway(t, dir)

	file := filepath.Join(t.TempDir(), "credentials")
	writeKeys := func(key, secret string) {
		keys := "[default]\naws_access_key_id = " + key + "\naws_secret_access_key = " + secret + "\n"
		if err := os.WriteFile(file, []byte(keys), 0o600); err != nil {
			t.Error(err)
		}
	}

	writeKeys("old", "old")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)

	proxy, requests := startProxy(t, endpoint, func(w http.ResponseWriter, r *http.Request, _ int) http.ResponseWriter {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=old/") {
			return w
		}
		writeKeys("user", "password")
		answerError(w, 400, "ExpiredToken")
		return nil
	})

	got, err := readAll(t.Context(), newTestClient(t, Config{S3Endpoint: proxy}),
		proto.File{Path: "s3://bucket/a.jsonl"})
	if err != nil || string(got) != "a.jsonl\n" || requests.Load() != 2 {
		t.Errorf("%q, %v, %d requests", got, err, requests.Load())
	}
}
