package objectstore

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/objectstore/storetest"
	"github.com/promptmill/promptmill/proto"
)

func TestS3(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, filepath.Join(dir, "bucket"), treeNames...)

	text := testText()
	if err := os.WriteFile(filepath.Join(dir, "bucket", "big file+ä.jsonl"), text, 0o644); err != nil {
		t.Fatal(err)
	}

	endpoint := storetest.StartVersity(t, dir)
	storetest.SetCredentials(t)

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

	endpoint := storetest.StartVersity(t, dir)
	storetest.SetCredentials(t)

	for _, tt := range []struct {
		name string
		// fault spoils the answer to the second request, which reads behind the head.
		fault func(w http.ResponseWriter) http.ResponseWriter
		code  int
		is    error
		// stays applies the fault to all later requests, too.
		stays bool
	}{
		{"SlowDown", func(w http.ResponseWriter) http.ResponseWriter {
			storetest.AnswerError(w, 503, "SlowDown")
			return nil
		}, exit.CodeOK, nil, false},
		{"a cut connection", func(w http.ResponseWriter) http.ResponseWriter {
			return storetest.CutAnswer(w, 1000)
		}, exit.CodeOK, nil, false},
		{"an expired token that stays", func(w http.ResponseWriter) http.ResponseWriter {
			storetest.AnswerError(w, 400, "ExpiredToken")
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
			proxy := storetest.StartProxy(t, endpoint)
			proxy.SetFault(func(w http.ResponseWriter, r storetest.Request) http.ResponseWriter {
				if r.Number < 2 || r.Number > 2 && !tt.stays {
					return w
				}
				return tt.fault(w)
			})

			got, err := readAll(t.Context(), newTestClient(t, Config{S3Endpoint: proxy.URL}), proto.File{
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
	endpoint := storetest.StartVersity(t, dir)
	storetest.SetCredentials(t)

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

	proxy := storetest.StartProxy(t, endpoint)
	proxy.SetFault(func(w http.ResponseWriter, r storetest.Request) http.ResponseWriter {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=old/") {
			return w
		}
		writeKeys("user", "password")
		storetest.AnswerError(w, 400, "ExpiredToken")
		return nil
	})

	got, err := readAll(t.Context(), newTestClient(t, Config{S3Endpoint: proxy.URL}),
		proto.File{Path: "s3://bucket/a.jsonl"})
	if err != nil || string(got) != "a.jsonl\n" || len(proxy.Requests()) != 2 {
		t.Errorf("%q, %v, %d requests", got, err, len(proxy.Requests()))
	}
}
