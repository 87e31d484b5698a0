package objectstore

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
)

func TestRepetition(t *testing.T) {
	for before := range 20 {
		for length := 1; length < 20; length++ {
			var r repetition
			found := 0
			for i := range 200 {
				text := fmt.Sprint(i)
				if i >= before {
					text = fmt.Sprint(before + (i-before)%length)
				}
				if r.hasBegun(text) {
					found = i + 1
					break
				}
			}

			if found <= before+length {
				t.Errorf("%d texts, then %d again and again: found after %d", before, length, found)
			}
		}
	}

	var r repetition
	for i := range 1000 {
		if r.hasBegun(fmt.Sprint(i)) {
			t.Errorf("%d different texts repeat themselves", i)
		}
	}
}

// A store whose pages name each other as the next ones.
func TestListsThatRepeatThemselves(t *testing.T) {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		if requests > 100 {
			panic(http.ErrAbortHandler)
		}

		other := requests % 2
		switch {
		case strings.Contains(r.URL.Path, "/tree/"):
			w.Header().Set("Link", fmt.Sprintf(`<%s?cursor=%d>; rel="next"`, r.URL.Path, other))
			io.WriteString(w, `[]`)
		case strings.HasPrefix(r.URL.Path, "/storage/"):
			fmt.Fprintf(w, `{"items":[{"name":"a/x","size":"1"}],"nextPageToken":"%d"}`, other)
		default:
			fmt.Fprintf(w, `<ListBucketResult><IsTruncated>true</IsTruncated>`+
				`<NextContinuationToken>%d</NextContinuationToken><Contents><Key>a/%d</Key><Size>1</Size></Contents>`+
				`</ListBucketResult>`, other, other)
		}
	}))
	t.Cleanup(server.Close)

	wrongStores(t, server.URL)
	for _, arg := range []string{"s3://bucket/a/", "gs://bucket/a/", "hf://datasets/o/n/a/"} {
		requests = 0
		urls, err := newTestClient(t, Config{}).Expand(t.Context(), arg)
		if exit.Code(err) != exit.CodeUsage || !strings.Contains(err.Error(), "repeats itself") {
			t.Errorf("%s: %v, %v, %d requests", arg, urls, err, requests)
		}
	}
}

// A page of a list that does not end is read up to the largest page.
func TestListOfEndlessPage(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads 64 MiB")
	}

	sent := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"items":[`)
		entry := strings.Repeat(`{"name":"x"},`, 10_000)
		for n, err := 0, error(nil); err == nil; sent += n {
			n, err = io.WriteString(w, entry)
		}
	}))
	t.Cleanup(server.Close)

	wrongStores(t, server.URL)
	c := newTestClient(t, Config{})
	c.retrier.attempts = 1
	_, err := c.Expand(t.Context(), "gs://bucket/a/")
	server.Close() // it waits for the handler
	if exit.Code(err) != exit.CodeUnreachable || sent > 2*maxPage {
		t.Errorf("%v; %d bytes were sent", err, sent)
	}
}
