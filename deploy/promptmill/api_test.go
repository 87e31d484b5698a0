package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
)

// apiOf matches the address of the batch API in what serve prints.
var apiOf = regexp.MustCompile(`batch API on (https?://\S+)/v1\n`)

// startAPI starts serve with a batch API and returns its address when it is ready.
func (c command) startAPI(args ...string) (cmd *exec.Cmd, out *lockedBuffer, url string) {
	c.t.Helper()

	cmd, out = c.start(append([]string{"serve", "--listen", "127.0.0.1:0", "--dir", "out"}, args...)...)
	poll(c.t, patience, "the batch API is ready", func() bool {
		found := apiOf.FindStringSubmatch(out.String())
		if found != nil {
			url = found[1]
		}
		return found != nil
	})

	if !strings.HasPrefix(url, "http://") {
		return cmd, out, url // only a client that trusts its certificate can ask
	}

	// Until the batches are read, all other requests are refused with 503.
	poll(c.t, patience, "the server is ready", func() bool {
		answer, err := http.Get(url + "/readyz")
		if err != nil {
			return false
		}
		answer.Body.Close()

		return answer.StatusCode == http.StatusOK
	})

	return cmd, out, url
}

// awaitText waits until a process has printed a text.
func awaitText(t *testing.T, out *lockedBuffer, text string) {
	t.Helper()

	for end := time.Now().Add(patience); !strings.Contains(out.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %q after %s:\n%s", text, patience, out)
		}
	}
}

// call sends a request with a secret and returns the status and the text of the answer.
func call(t *testing.T, client *http.Client, method, url, secret string) (status int, text string) {
	t.Helper()

	request, err := http.NewRequest(method, url, nil)
	must(t, err)
	if secret != "" {
		request.Header.Set("Authorization", "Bearer "+secret)
	}

	answer, err := client.Do(request)
	must(t, err)
	defer answer.Body.Close()

	data, err := io.ReadAll(answer.Body)
	must(t, err)

	return answer.StatusCode, string(data)
}

// A server without keys accepts any. Keys that are made and revoked count at once, for the metrics too.
func TestAPIKeys(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	if text := c.must("key", "list", "--state", "here"); text != "" {
		t.Errorf("the keys of a folder without any: %q", text)
	}
	_, out, url := c.startAPI("--api", "0", "--api-log", "access.jsonl", "--state", c.state)
	wantHint := "promptmill key create --state " + c.state + " makes the first real one\n"
	awaitText(t, out, wantHint)
	check := func(path, secret string, want int) {
		t.Helper()
		if got, text := call(t, http.DefaultClient, "GET", url+path, secret); got != want {
			t.Errorf("GET %s: %d, want %d: %s", path, got, want, text)
		}
	}

	for _, path := range []string{"/v1/files", "/v1/batches", "/v1/models", "/metrics", "/scale", "/healthz", "/readyz"} {
		check(path, "", 200)
		check(path, "any", 200)
	}

	// A page in a browser of this machine, and a proxy, are refused while no key keeps them away.
	for _, header := range []http.Header{
		{"Origin": {"https://site.example"}},
		{"Sec-Fetch-Site": {"cross-site"}},
		{"Host": {"rebound.example:8080"}},
		{"Forwarded": {"for=203.0.113.9"}},
		{"Via": {"1.1 proxy.example"}},
		{"X-Forwarded-For": {"203.0.113.9"}},
		{"X-Real-Ip": {"203.0.113.9"}},
	} {
		request, err := http.NewRequest("POST", url+"/v1/batches", strings.NewReader("{}"))
		must(t, err)
		request.Header, request.Host = header, header.Get("Host")

		answer, err := http.DefaultClient.Do(request)
		must(t, err)
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != 403 || !strings.Contains(string(text), `"code":"api_key_required"`) {
			t.Errorf("with %v: %d %s", header, answer.StatusCode, text)
		}
	}

	secret := strings.TrimSpace(c.must("key", "create", "--name", "alice"))
	own := strings.TrimSpace(c.must("key", "create", "--own-only"))
	for _, path := range []string{"/v1/files", "/v1/batches", "/v1/models", "/metrics", "/scale"} {
		check(path, "", 401)
		check(path, "any", 401)
		check(path, secret, 200)
		if path != "/metrics" && path != "/scale" { // they have what other keys made
			check(path, own, 200)
		}
	}
	check("/metrics", own, 403)
	check("/scale", own, 403)
	for _, path := range []string{"/healthz", "/readyz"} {
		check(path, "", 200)
	}

	c.must("key", "revoke", "alice")
	check("/v1/files", secret, 401)
	check("/v1/files", own, 200)

	// A file of keys that is broken opens nothing.
	must(t, os.WriteFile(filepath.Join(c.state, "api-keys.json"), []byte("{"), 0o600))
	for range 3 {
		check("/v1/files", own, 503)
		check("/metrics", own, 503)
	}
	for _, path := range []string{"/v1/files", "/metrics"} {
		answer, err := http.Get(url + path)
		must(t, err)
		answer.Body.Close()
		if got := answer.Header.Get("Retry-After"); got != "5" {
			t.Errorf("GET %s: Retry-After %q", path, got)
		}
	}
	poll(t, patience, "/readyz names the broken keys", func() bool { // its checks hold for a second
		status, text := call(t, http.DefaultClient, "GET", url+"/readyz", "")
		return status == 503 && strings.Contains(text, `"the API keys cannot be read, so all requests are refused"`)
	})
	// Two parts of serve read the keys, and each has a line a minute.
	awaitText(t, out, "failed to read the API keys")
	if n := strings.Count(out.String(), "failed to read the API keys"); n > 2 {
		t.Errorf("the log has the broken file %d times:\n%s", n, out)
	}
	must(t, os.Remove(filepath.Join(c.state, "api-keys.json")))
	check("/v1/files", own, 401)
	check("/v1/files", "", 401)

	log, err := os.ReadFile(filepath.Join(c.dir, "access.jsonl"))
	must(t, err)
	if strings.Contains(string(log), "pm-") {
		t.Errorf("the access log has a secret:\n%s", log)
	}
	if !regexp.MustCompile(`"path":"/v1/files","status":200,.*"key":"key_[a-z2-7]{12}"`).Match(log) {
		t.Errorf("the access log has no key:\n%s", log)
	}
}

// A key that was made for its own sees nothing of another.
func TestAPIOwnOnly(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	all := strings.TrimSpace(c.must("key", "create"))
	own := strings.TrimSpace(c.must("key", "create", "--own-only"))
	_, _, url := c.startAPI("--api", "0")

	upload := func(secret string) string {
		t.Helper()

		form := "--x\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n" +
			"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{}\n\r\n--x--\r\n"
		request, err := http.NewRequest("POST", url+"/v1/files", strings.NewReader(form))
		must(t, err)
		request.Header.Set("Authorization", "Bearer "+secret)
		request.Header.Set("Content-Type", "multipart/form-data; boundary=x")

		answer, err := http.DefaultClient.Do(request)
		must(t, err)
		defer answer.Body.Close()

		var file struct{ ID string }
		must(t, json.NewDecoder(answer.Body).Decode(&file))

		return file.ID
	}

	shared, mine := upload(all), upload(own)
	for _, tt := range []struct {
		file, secret string
		want         int
	}{
		{shared, all, 200}, {mine, all, 200}, {mine, own, 200}, {shared, own, 404},
	} {
		if got, text := call(t, http.DefaultClient, "GET", url+"/v1/files/"+tt.file, tt.secret); got != tt.want {
			t.Errorf("file %s: %d, want %d: %s", tt.file, got, tt.want, text)
		}
	}

	_, text := call(t, http.DefaultClient, "GET", url+"/metrics", all)
	if n := len(regexp.MustCompile(`(?m)^promptmill_api_disk_bytes\{key="key_[a-z2-7]+",kind="input"\} 3$`).
		FindAllString(text, -1)); n != 2 {
		t.Errorf("the disk space of %d keys is in the metrics, want 2:\n%s", n, text)
	}
	if strings.Contains(text, "in.jsonl") || strings.Contains(text, shared) {
		t.Errorf("the metrics name a file:\n%s", text)
	}
}

// Clients trust the certificate that serve makes by one file, over restarts.
func TestAPITLS(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	secret := strings.TrimSpace(c.must("key", "create"))
	cmd, out, url := c.startAPI("--api", "0.0.0.0:0", "--api-tls")
	authority := filepath.Join(c.state, "api-ca.pem")
	awaitText(t, out, "SSL_CERT_FILE="+authority+" ")
	if !strings.HasPrefix(url, "https://") || strings.Contains(out.String(), "in clear") {
		t.Errorf("serve prints\n%s", out)
	}

	client := clientTrusting(t, authority)
	if status, text := call(t, client, "GET", url+"/v1/models", secret); status != 200 {
		t.Errorf("%d %s", status, text)
	}

	cmd.Process.Signal(syscall.SIGTERM)
	waitExit(t, cmd, out, patience)
	_, _, url = c.startAPI("--api", "0.0.0.0:0", "--api-tls")
	if status, text := call(t, client, "GET", url+"/v1/models", secret); status != 200 {
		t.Errorf("after a restart: %d %s", status, text)
	}
}

// clientTrusting returns a client that trusts the certificates of a file.
func clientTrusting(t *testing.T, path string) *http.Client {
	t.Helper()

	data, err := os.ReadFile(path)
	must(t, err)
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(data) {
		t.Fatalf("%s has no certificate", path)
	}

	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: trusted},
		ForceAttemptHTTP2: true,
		DisableKeepAlives: true, // each request sees the certificate
	}}
}

// A renewed certificate is in use without a restart, and a broken one changes nothing.
func TestAPICertificate(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	cert, key := writeCertificate(t, c.dir, "mine")
	_, out, url := c.startAPI("--api", "0", "--api-cert", cert, "--api-cert-key", key)
	if status, text := call(t, clientTrusting(t, cert), "GET", url+"/v1/models", "any"); status != 200 {
		t.Errorf("%d %s", status, text)
	}

	old := clientTrusting(t, cert)
	must(t, os.WriteFile(cert, []byte("half of it"), 0o600))
	if status, text := call(t, old, "GET", url+"/v1/models", "any"); status != 200 {
		t.Errorf("with a broken file: %d %s", status, text)
	}
	awaitText(t, out, "failed to read a changed certificate; the old one stays in use")

	writeCertificate(t, c.dir, "mine")
	if status, text := call(t, clientTrusting(t, cert), "GET", url+"/v1/models", "any"); status != 200 {
		t.Errorf("with the renewed certificate: %d %s", status, text)
	}
	if _, err := old.Get(url + "/healthz"); err == nil {
		t.Error("the old certificate is still in use")
	}
}

// A server at other addresses warns that nothing is encrypted, and never accepts a request without a key.
func TestAPIInClear(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	secret := strings.TrimSpace(c.must("key", "create"))
	_, out, url := c.startAPI("--api", "0.0.0.0:0")
	awaitText(t, out, "warning: keys and prompts go over the network in clear; --api-tls encrypts them\n")

	if status, text := call(t, http.DefaultClient, "GET", url+"/v1/models", secret); status != 200 {
		t.Errorf("%d %s", status, text)
	}
	c.must("key", "revoke", strings.Fields(c.must("key", "list"))[5])
	if status, text := call(t, http.DefaultClient, "GET", url+"/v1/models", secret); status != 401 {
		t.Errorf("without a key: %d %s", status, text)
	}
}

// A signal ends serve when the upload that has begun is stored and answered.
func TestAPIStop(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	cmd, out, url := c.startAPI("--api", "0")

	const form = "--x\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n" +
		"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n"
	body, send := io.Pipe()
	request, err := http.NewRequest("POST", url+"/v1/files", body)
	must(t, err)
	request.Header.Set("Content-Type", "multipart/form-data; boundary=x")

	answers := make(chan error, 1)
	go func() {
		answer, err := http.DefaultClient.Do(request)
		if err == nil {
			defer answer.Body.Close()
			text, _ := io.ReadAll(answer.Body)
			if answer.StatusCode != 200 || !bytes.Contains(text, []byte(`"bytes":6`)) {
				err = fmt.Errorf("%d %s", answer.StatusCode, text)
			}
		}
		answers <- err
	}()
	io.WriteString(send, form+"{}\n")
	poll(t, patience, "the upload has begun", func() bool {
		found, _ := filepath.Glob(filepath.Join(c.dir, "out", "api", "files", "*"))
		return len(found) > 0
	})

	must(t, cmd.Process.Signal(syscall.SIGTERM))
	poll(t, patience, "no new connection is accepted", func() bool {
		answer, err := http.Get(url + "/healthz")
		if err == nil {
			answer.Body.Close()
		}
		return err != nil
	})

	io.WriteString(send, "{}\n\r\n--x--\r\n")
	send.Close()
	if err := <-answers; err != nil {
		t.Error(err)
	}
	if code := waitExit(t, cmd, out, patience); code != exit.CodeOK {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// One thousand clients that poll get their answers, and the server's memory stays.
func TestAPIManyClients(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}

	c := newCommand(t)
	cmd, _, url := c.startAPI("--api", "0")
	pollWithClients(t, url, 1000, 10) // once, so that the memory for so many connections is there
	before := residentBytes(t, cmd.Process.Pid)

	slowest := pollWithClients(t, url, 1000, 10)
	after := residentBytes(t, cmd.Process.Pid)
	t.Logf("10,000 requests of 1,000 clients: 99%% within %s; %d MB before, %d MB after", slowest, before>>20, after>>20)
	if after > before+before/4+32<<20 {
		t.Errorf("%d MB of memory before, %d MB after", before>>20, after>>20)
	}
}

// residentBytes returns the memory of a process, or skips the test where /proc is missing.
func residentBytes(t *testing.T, pid int) int64 {
	t.Helper()

	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("SKIPPED: there is no /proc: the memory of a process is not known")
	}
	defer file.Close()

	for lines := bufio.NewScanner(file); lines.Scan(); {
		var kB int64
		if n, _ := fmt.Sscanf(lines.Text(), "VmRSS: %d kB", &kB); n == 1 {
			return kB << 10
		}
	}

	t.Fatal("the memory of the process is not in /proc")

	return 0
}

// pollWithClients has clients request the list of batches, each a number of times over a connection of
// its own, and returns the time within which 99 % of the answers came.
func pollWithClients(t *testing.T, url string, clients, times int) time.Duration {
	t.Helper()

	took := make(chan time.Duration, clients*times)
	failed := make(chan error, clients)
	for range clients {
		go func() {
			client := http.Client{Transport: &http.Transport{}, Timeout: patience}
			defer client.CloseIdleConnections()

			var err error
			for range times {
				began := time.Now()
				var answer *http.Response
				if answer, err = client.Get(url + "/v1/batches"); err != nil {
					break
				}
				_, err = io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
				if err != nil || answer.StatusCode != 200 {
					err = fmt.Errorf("status %d, %w", answer.StatusCode, err)
					break
				}
				took <- time.Since(began)
			}
			failed <- err
		}()
	}

	for range clients {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	close(took)

	var all []time.Duration
	for d := range took {
		all = append(all, d)
	}
	slices.Sort(all)
	if len(all) == 0 {
		t.Fatal("no client got an answer")
	}

	return all[len(all)*99/100]
}

// The memory of a server does not grow with the files that go in and come out.
func TestAPILargeFileMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}

	c := newCommand(t)
	cmd, _, url := c.startAPI("--api", "0")
	before := residentBytes(t, cmd.Process.Pid)

	const size = 200 << 20
	line := []byte(`{"custom_id":"a","body":{"messages":[{"role":"user","content":"` + strings.Repeat("x", 4000) + `"}]}}` + "\n")
	body, send := io.Pipe()
	w := multipart.NewWriter(send)
	go func() {
		w.WriteField("purpose", "batch")
		part, err := w.CreateFormFile("file", "in.jsonl")
		for sent := 0; sent < size && err == nil; sent += len(line) {
			_, err = part.Write(line)
		}
		send.CloseWithError(errors.Join(err, w.Close()))
	}()

	answer, err := http.Post(url+"/v1/files", w.FormDataContentType(), body)
	must(t, err)
	defer answer.Body.Close()

	var file struct {
		ID    string
		Bytes int64
	}
	must(t, json.NewDecoder(answer.Body).Decode(&file))
	if file.Bytes < size {
		t.Fatalf("%s: a file of %d bytes, want %d and more", answer.Status, file.Bytes, size)
	}
	after := residentBytes(t, cmd.Process.Pid)

	content, err := http.Get(url + "/v1/files/" + file.ID + "/content")
	must(t, err)
	defer content.Body.Close()

	n, err := io.Copy(io.Discard, content.Body)
	if err != nil || n != file.Bytes {
		t.Errorf("%d bytes come out, want %d: %v", n, file.Bytes, err)
	}

	end := residentBytes(t, cmd.Process.Pid)
	t.Logf("memory: %d MB before, %d MB with %d MB in, %d MB with them out", before>>20, after>>20, size>>20, end>>20)
	if most := max(after, end); most > before+64<<20 {
		t.Errorf("memory grew from %d to %d MB", before>>20, most>>20)
	}
}
