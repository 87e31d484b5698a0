package storetest

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The credentials that all servers take.
const (
	AccessKey = "user"
	SecretKey = "password"
)

// StartVersity starts versitygw, and returns its URL. The buckets are the folders in dir, and the
// objects are the files in them. The program is PROMPTMILL_TEST_VERSITYGW, or versitygw in PATH.
func StartVersity(t *testing.T, dir string) string {
	t.Helper()

	program := findProgram(t, "PROMPTMILL_TEST_VERSITYGW", "versitygw",
		"go install github.com/versity/versitygw/cmd/versitygw@v1.8.0")

	return startProgram(t, func(address string) *exec.Cmd {
		return exec.Command(program, "--port", address, "--access", AccessKey, "--secret", SecretKey, "posix", dir)
	})
}

// StartMoto starts moto, and returns its URL. It has no buckets; [CreateBucket] makes one. The
// program is the module moto of the Python of PROMPTMILL_TEST_PYTHON.
func StartMoto(t *testing.T) string {
	t.Helper()

	python := findProgram(t, "PROMPTMILL_TEST_PYTHON", "python3", `pip install "moto[server]"`)
	if err := exec.Command(python, "-c", "import moto.server").Run(); err != nil {
		t.Skipf("%s has no moto: pip install \"moto[server]\"", python)
	}

	return startProgram(t, func(address string) *exec.Cmd {
		host, port, _ := strings.Cut(address, ":")
		return exec.Command(python, "-m", "moto.server", "-H", host, "-p", port)
	})
}

// StartGCS starts fake-gcs-server, and returns its URL. It has no buckets; [CreateGCSBucket] makes
// one. The program is PROMPTMILL_TEST_FAKE_GCS_SERVER, or fake-gcs-server in PATH.
func StartGCS(t *testing.T) string {
	t.Helper()

	program := findProgram(t, "PROMPTMILL_TEST_FAKE_GCS_SERVER", "fake-gcs-server",
		"go install github.com/fsouza/fake-gcs-server@v1.56.1")
	data := t.TempDir()

	return startProgram(t, func(address string) *exec.Cmd {
		host, port, _ := strings.Cut(address, ":")
		return exec.Command(program, "-scheme", "http", "-host", host, "-port", port, "-public-host", address,
			"-backend", "memory", "-data", data)
	})
}

// CreateGCSBucket makes a bucket of a server of Google Cloud Storage with objects, by their keys.
func CreateGCSBucket(t *testing.T, endpoint, bucket string, objects map[string][]byte) {
	t.Helper()

	post := func(path, kind string, body []byte) {
		t.Helper()

		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", kind)
		send(t, req)
	}

	post("/storage/v1/b?project=p", "application/json", []byte(`{"name":"`+bucket+`"}`))
	for key, body := range objects {
		post("/upload/storage/v1/b/"+bucket+"/o?uploadType=media&name="+url.QueryEscape(key), "application/octet-stream",
			body)
	}
}

// CreateBucket makes a bucket of a moto server with objects, by their keys, in a region.
func CreateBucket(t *testing.T, endpoint, bucket, region string, objects map[string][]byte) {
	t.Helper()

	text := ""
	if region != "us-east-1" {
		text = "<CreateBucketConfiguration><LocationConstraint>" + region + "</LocationConstraint></CreateBucketConfiguration>"
	}

	put := func(path string, body []byte, region string) {
		t.Helper()

		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, endpoint+"/"+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		// moto takes the region from the credentials, and does not check the signature.
		req.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/20260101/%s/s3/aws4_request, "+
			"SignedHeaders=host, Signature=0", AccessKey, region))

		send(t, req)
	}

	put(bucket, []byte(text), region)
	for key, body := range objects {
		put(bucket+"/"+(&url.URL{Path: key}).EscapedPath(), body, region)
	}
}

// send sends a request, which must succeed.
func send(t *testing.T, req *http.Request) {
	t.Helper()

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(resp.Body) // for the message alone
		t.Fatalf("%s %s: %s: %s", req.Method, req.URL, resp.Status, said)
	}
}

// SetCredentials sets the credentials of the servers, and hides those of the user who runs the test.
func SetCredentials(t *testing.T) {
	t.Helper()

	HideCredentials(t)
	t.Setenv("AWS_ACCESS_KEY_ID", AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", SecretKey)
}

// HideCredentials hides the settings and credentials of the user who runs the test.
func HideCredentials(t *testing.T) {
	t.Helper()

	for _, setting := range Hidden(t.TempDir()) {
		name, value, _ := strings.Cut(setting, "=")
		t.Setenv(name, value)
	}
}

// Hidden are the variables of an environment without credentials, for a process. There is no
// file in the folder.
func Hidden(folder string) (environment []string) {
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN",
		"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL",
		"AWS_ENDPOINT_URL_S3", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "STORAGE_EMULATOR_HOST",
		"HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
	} {
		environment = append(environment, name+"=")
	}

	return append(environment,
		"AWS_EC2_METADATA_DISABLED=true",
		"AWS_SHARED_CREDENTIALS_FILE="+filepath.Join(folder, "credentials"),
		"AWS_CONFIG_FILE="+filepath.Join(folder, "config"),
		"GOOGLE_APPLICATION_CREDENTIALS="+filepath.Join(folder, "google.json"),
		"HF_TOKEN_PATH="+filepath.Join(folder, "token"),
	)
}

// findProgram returns the program of a variable or a name, or skips the test.
func findProgram(t *testing.T, variable, name, install string) string {
	t.Helper()

	path, err := exec.LookPath(cmp.Or(os.Getenv(variable), name))
	if err != nil {
		t.Skipf("%s is not there: %s, or set %s", name, install, variable)
	}

	return path
}

// startProgram starts a server at an address at which nothing listens, waits until it listens, and
// returns its URL. Another process may take the address first: the server ends then, and is started
// at another one. It is killed at the end of the test.
func startProgram(t *testing.T, command func(address string) *exec.Cmd) (url string) {
	t.Helper()

	for range 5 {
		address := freeAddress(t)
		if tryProgram(t, command(address), address) {
			return "http://" + address
		}
	}

	t.Fatal("the server has ended each time")

	return ""
}

// tryProgram starts a server, and reports whether it listens at an address. Else it has ended.
func tryProgram(t *testing.T, cmd *exec.Cmd, address string) bool {
	t.Helper()

	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()

	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(cmd.Path), log.String())
		}
	})

	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}

		select {
		case <-ended:
			t.Logf("%s has ended: %s", cmd.Path, log.String())
			return false
		case <-time.After(10 * time.Millisecond):
		}

		if err == nil {
			return true
		}
	}

	t.Fatalf("%s does not listen at %s", cmd.Path, address)

	return false
}

// freeAddress returns an address at which nothing listens. Its port is below those that Linux gives
// to connections and to listeners that ask for any port, so that hardly any process takes it before
// the server does.
func freeAddress(t *testing.T) string {
	t.Helper()

	for range 100 {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15_000+rand.N(17_000)))
		if err == nil {
			defer listener.Close()
			return listener.Addr().String()
		}
	}

	t.Fatal("no port is free")

	return ""
}
