package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// apiProxyConfig is nginx in front of the batch API, as people have it. The first %s is more of its location.
const apiProxyConfig = `daemon off; master_process off; pid FOLDER/pid; error_log FOLDER/log;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path FOLDER/1; proxy_temp_path FOLDER/2; fastcgi_temp_path FOLDER/3; uwsgi_temp_path FOLDER/4; scgi_temp_path FOLDER/5;
	server {
		listen LISTEN;
		location / {
			proxy_pass http://FIRST;
			proxy_http_version 1.1;
			proxy_set_header X-Forwarded-For 203.0.113.9;
			client_max_body_size 0;
			%s
		}
	}
}
`

// Behind nginx, with and without its buffers, files go in and come out, in parts too, and the log has the
// address of the connection.
func TestAPIBehindNginx(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	secret := strings.TrimSpace(c.must("key", "create", "--name", "proxy"))
	_, _, url := c.startAPI("--api", "0", "--api-log", "access.jsonl")
	content := bytes.Repeat([]byte(`{"custom_id":"a","body":{"messages":[]}}`+"\n"), 200_000) // 8 MB

	together(t, map[string]func(*testing.T){
		"with its buffers": func(t *testing.T) { testProxy(t, url, secret, "", content) },
		"without": func(t *testing.T) {
			testProxy(t, url, secret, "proxy_buffering off; proxy_request_buffering off;", content)
		},
	})

	log, err := os.ReadFile(filepath.Join(c.dir, "access.jsonl"))
	must(t, err)
	if !strings.Contains(string(log), `"remote":"127.0.0.1"`) || strings.Contains(string(log), "203.0.113.9") {
		t.Errorf("the log believes a header:\n%s", log)
	}
}

// plainProxyConfig is the shortest configuration of nginx in front of a server. nginx sends the server's own
// address as the host of a request then.
const plainProxyConfig = `daemon off; master_process off; pid FOLDER/pid; error_log FOLDER/log;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path FOLDER/1; proxy_temp_path FOLDER/2; fastcgi_temp_path FOLDER/3; uwsgi_temp_path FOLDER/4; scgi_temp_path FOLDER/5;
	server { listen LISTEN; location / { %s proxy_pass http://FIRST; } }
}
`

// Without a key, nothing goes through a proxy, which would open the batch API to other machines.
func TestAPIBehindNginxWithoutKeys(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	_, _, url := c.startAPI("--api", "0")

	together(t, map[string]func(*testing.T){
		"as it is": func(t *testing.T) { testRefusedProxy(t, url, "") },
		"HTTP/1.1": func(t *testing.T) {
			testRefusedProxy(t, url, "proxy_http_version 1.1; proxy_set_header X-Real-IP $remote_addr;")
		},
	})
}

// testRefusedProxy sends requests through nginx, and wants them refused.
func testRefusedProxy(t *testing.T, api, settings string) {
	t.Helper()

	b := balancer{"nginx", []string{"nginx", "-p", "FOLDER", "-c", "FILE"}, fmt.Sprintf(plainProxyConfig, settings)}
	url := b.start(t, api, api)

	for _, path := range []string{"/v1/files", "/metrics"} {
		status, text := call(t, http.DefaultClient, "GET", url+path, "any")
		if status != http.StatusForbidden || !strings.Contains(text, `"code":"api_key_required"`) {
			t.Errorf("GET %s: %d %s", path, status, text)
		}
	}
}

// testProxy sends a file through nginx to the batch API and reads it back.
func testProxy(t *testing.T, api, secret, buffering string, content []byte) {
	t.Helper()

	b := balancer{"nginx", []string{"nginx", "-p", "FOLDER", "-c", "FILE"}, fmt.Sprintf(apiProxyConfig, buffering)}
	url := b.start(t, api, api)

	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	must(t, w.WriteField("purpose", "batch"))
	part, err := w.CreateFormFile("file", "in.jsonl")
	must(t, err)
	part.Write(content)
	must(t, w.Close())

	request, err := http.NewRequest("POST", url+"/v1/files", &form)
	must(t, err)
	request.Header.Set("Content-Type", w.FormDataContentType())
	request.Header.Set("Authorization", "Bearer "+secret)

	answer, err := http.DefaultClient.Do(request)
	must(t, err)
	defer answer.Body.Close()

	var file struct {
		ID    string
		Bytes int
	}
	must(t, json.NewDecoder(answer.Body).Decode(&file))
	if file.Bytes != len(content) {
		t.Fatalf("a file of %d bytes, want %d: %s", file.Bytes, len(content), answer.Status)
	}

	for _, tt := range []struct {
		bytes string // Range
		want  []byte
	}{
		{"", content},
		{"bytes=7-1000006", content[7:1000007]},
		{"bytes=-41", content[len(content)-41:]},
	} {
		request, err := http.NewRequest("GET", url+"/v1/files/"+file.ID+"/content", nil)
		must(t, err)
		request.Header.Set("Authorization", "Bearer "+secret)
		if tt.bytes != "" {
			request.Header.Set("Range", tt.bytes)
		}

		answer, err := http.DefaultClient.Do(request)
		must(t, err)
		got, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || !bytes.Equal(got, tt.want) {
			t.Errorf("%s: %s, %d bytes, want %d: %v", tt.bytes, answer.Status, len(got), len(tt.want), err)
		}
	}
}
