package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// apiSeedsVariable is the number of seeds of TestBatchAPIDies.
const apiSeedsVariable = "PROMPTMILL_TEST_API_SEEDS"

// retryingClient is a client that repeats requests as OpenAI's SDKs do: after an error of the
// connection and the statuses that may pass, with the number of the attempt in a header. It
// waits less between two.
type retryingClient struct {
	url  string
	http *http.Client
	// begun, if not nil, is called when a request begins.
	begun func()
	// repeated counts the attempts after the first.
	repeated int
}

// apiAnswer is a whole answer.
type apiAnswer struct {
	status int
	header http.Header
	body   []byte
}

// ask sends a request until it is answered. contentType is the type of the body; empty: there is
// no body.
func (c *retryingClient) ask(
	ctx context.Context, method, path, contentType string, body []byte, header ...string,
) (apiAnswer, error) {
	if c.begun != nil {
		c.begun()
	}

	for attempt := 0; ; attempt++ {
		answer, err := c.try(ctx, attempt, method, path, contentType, body, header)
		switch {
		case ctx.Err() != nil:
			return answer, errors.Join(ctx.Err(), err)
		case err == nil && !slices.Contains([]int{408, 409, 429}, answer.status) && answer.status < 500:
			return answer, nil
		}

		c.repeated++
		timer := time.NewTimer(min(20*time.Millisecond<<min(attempt, 4), 200*time.Millisecond))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// try sends a request once.
func (c *retryingClient) try(
	ctx context.Context, attempt int, method, path, contentType string, body []byte, header []string,
) (apiAnswer, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return apiAnswer{}, err
	}

	req.Header.Set("Authorization", "Bearer unused")
	req.Header.Set("X-Stainless-Retry-Count", strconv.Itoa(attempt))

	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}

	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}

	res, err := c.http.Do(req)
	if err != nil {
		return apiAnswer{}, err
	}
	defer res.Body.Close()

	answer, err := io.ReadAll(res.Body)

	return apiAnswer{res.StatusCode, res.Header, answer}, err
}

// apiObject has the members of all objects of the API that the test reads.
type apiObject struct {
	ID            string      `json:"id"`
	Status        string      `json:"status"`
	Filename      string      `json:"filename"`
	Bytes         int         `json:"bytes"`
	InputFileID   string      `json:"input_file_id"`
	OutputFileID  string      `json:"output_file_id"`
	ErrorFileID   string      `json:"error_file_id"`
	CreatedAt     int64       `json:"created_at"`
	ExpiresAt     int64       `json:"expires_at"`
	File          *apiObject  `json:"file"`
	Data          []apiObject `json:"data"`
	HasMore       bool        `json:"has_more"`
	RequestCounts struct {
		Total     int `json:"total"`
		Completed int `json:"completed"`
		Failed    int `json:"failed"`
	} `json:"request_counts"`
}

// askFor sends a request that has to be answered with 200, and decodes the answer.
func (c *retryingClient) askFor(
	ctx context.Context, method, path, contentType string, body []byte,
) (object apiObject, err error) {
	answer, err := c.ask(ctx, method, path, contentType, body)
	if err != nil {
		return object, err
	}

	if answer.status != http.StatusOK {
		return object, fmt.Errorf("%s %s: status %d: %s", method, path, answer.status, answer.body)
	}

	return object, json.Unmarshal(answer.body, &object)
}

// form is a multipart body of fields, and of one file.
func form(fileField, filename, text string, fields map[string]string) (contentType string, body []byte) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for name, value := range fields {
		w.WriteField(name, value)
	}

	part, _ := w.CreateFormFile(fileField, filename) // the buffer takes all
	io.WriteString(part, text)
	w.Close()

	return w.FormDataContentType(), b.Bytes()
}

// killer kills the server of a batch API at random moments of a client's requests.
type killer struct {
	api    *batchAPI
	random *rand.Rand
	// requests are the beginnings of requests.
	requests chan struct{}
	kills    int
}

// run kills the server now and then, and leaves one that serves, until the client is done. It
// returns the error of the client. most bounds the kills: a server that lives for milliseconds
// has no time to get on.
func (k *killer) run(t *testing.T, client <-chan error, most int) error {
	t.Helper()

	for before := k.kills; ; {
		select {
		case err := <-client:
			return err
		case <-k.requests:
		}

		if k.kills-before == most || k.random.IntN(3) > 0 {
			continue
		}

		// In the middle of the request: most take some milliseconds.
		timer := time.NewTimer(time.Duration(k.random.ExpFloat64() * float64(4*time.Millisecond)))
		<-timer.C
		k.api.kill(t)
		k.api.startServing(t)
		k.kills++
	}
}

// A client that repeats its requests, as SDKs do, sees no more of the deaths of its server than
// that it waits: each file, upload and batch is there once, with its id, and each request is
// answered once.
func TestBatchAPIDies(t *testing.T) {
	t.Parallel()

	seeds, err := strconv.Atoi(cmp.Or(os.Getenv(apiSeedsVariable), "4"))
	must(t, err)

	a := startBatchAPI(t)
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { a.checkDeaths(t, uint64(seed)) })
	}
}

// checkDeaths runs a few batches while the server is killed.
func (a *batchAPI) checkDeaths(t *testing.T, seed uint64) {
	t.Helper()

	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()

	random := rand.New(rand.NewPCG(seed, 1))
	k := &killer{
		api:      a,
		random:   rand.New(rand.NewPCG(seed, 2)),
		requests: make(chan struct{}),
	}

	s := &deathScenario{
		client: &retryingClient{
			url:  a.url(),
			http: &http.Client{Transport: &http.Transport{}},
			begun: func() {
				select {
				case k.requests <- struct{}{}:
				default: // it is killing
				}
			},
		},
		random: random,
		name:   fmt.Sprintf("seed-%d.jsonl", seed),
	}
	defer s.client.http.CloseIdleConnections()

	for _, part := range []func(context.Context) error{s.runBatch, s.runBatch, s.runBatch, s.checkLists} {
		done := make(chan error, 1)
		go func() { done <- part(ctx) }()

		if err := k.run(t, done, 8); err != nil {
			t.Fatalf("%v\nserve:\n%.8000s", err, a.said)
		}
	}

	t.Logf("%d kills, %d requests repeated", k.kills, s.client.repeated)
}

// deathScenario is a client that makes batches, and remembers them.
type deathScenario struct {
	client *retryingClient
	random *rand.Rand
	// name is the name of its files.
	name    string
	batches []apiObject
	files   []string
}

// runBatch makes a file and a batch of it, follows the batch to its end, and reads its answers.
func (s *deathScenario) runBatch(ctx context.Context) error {
	requests := 20 + s.random.IntN(40)
	text := chatLines(requests, []string{"fast", "slow"}[s.random.IntN(2)])
	text += fmt.Sprintf(`{"custom_id":"%s %d","model":"fast","messages":[{"role":"user","content":"last"}]}`,
		s.name, len(s.batches)) // no other file has the same text
	requests++

	file, err := s.sendFile(ctx, text)
	if err != nil {
		return err
	}

	s.files = append(s.files, file.ID)

	stored, err := s.client.ask(ctx, "GET", "/files/"+file.ID+"/content", "", nil)
	if err != nil {
		return err
	}

	if string(stored.body) != text {
		return fmt.Errorf("file %s: %d bytes of %d come back: %.200s", file.ID, len(stored.body), len(text), stored.body)
	}

	batch, err := s.client.askFor(ctx, "POST", "/batches", "application/json", []byte(
		`{"input_file_id":"`+file.ID+`","endpoint":"/v1/chat/completions","completion_window":"24h"}`))
	if err != nil {
		return err
	}

	s.batches = append(s.batches, batch)

	ended, err := s.follow(ctx, batch, s.random.IntN(3) == 0)
	if err != nil {
		return err
	}

	return s.checkOutput(ctx, ended, requests)
}

// sendFile sends a file, at once or in parts.
func (s *deathScenario) sendFile(ctx context.Context, text string) (apiObject, error) {
	if s.random.IntN(2) == 0 {
		contentType, body := form("file", s.name, text, map[string]string{"purpose": "batch"})
		file, err := s.client.askFor(ctx, "POST", "/files", contentType, body)
		if err == nil && (file.Bytes != len(text) || file.Filename != s.name) {
			err = fmt.Errorf("file %+v has not %d bytes", file, len(text))
		}
		return file, err
	}

	upload, err := s.client.askFor(ctx, "POST", "/uploads", "application/json", fmt.Appendf(nil,
		`{"filename":%q,"purpose":"batch","bytes":%d,"mime_type":"application/jsonl"}`, s.name, len(text)))
	if err != nil {
		return upload, err
	}

	var parts []string
	for part := range slices.Chunk([]byte(text), 3000) {
		contentType, body := form("data", "part", string(part), nil)
		sent, err := s.client.askFor(ctx, "POST", "/uploads/"+upload.ID+"/parts", contentType, body)
		if err != nil {
			return upload, err
		}
		parts = append(parts, strconv.Quote(sent.ID))
	}

	whole, err := s.client.askFor(ctx, "POST", "/uploads/"+upload.ID+"/complete", "application/json",
		[]byte(`{"part_ids":[`+strings.Join(parts, ",")+`]}`))
	if err != nil {
		return whole, err
	}

	if whole.File == nil {
		return whole, fmt.Errorf("upload %+v has no file", whole)
	}

	return *whole.File, nil
}

// follow polls a batch to its end. It cancels the batch when some requests are answered, if wanted.
func (s *deathScenario) follow(ctx context.Context, batch apiObject, cancel bool) (apiObject, error) {
	output, done := "", 0
	for {
		now, err := s.client.askFor(ctx, "GET", "/batches/"+batch.ID, "", nil)
		switch {
		case err != nil:
			return now, err
		case now.ID != batch.ID || now.InputFileID != batch.InputFileID || now.CreatedAt != batch.CreatedAt ||
			now.ExpiresAt != batch.ExpiresAt || output != "" && now.OutputFileID != output:
			return now, fmt.Errorf("batch %+v became %+v, output %s", batch, now, output)
		case now.RequestCounts.Completed < done:
			return now, fmt.Errorf("%d were completed, and now %+v", done, now)
		case slices.Contains(endedStates, now.Status):
			if now.Status != "completed" && !cancel {
				return now, fmt.Errorf("batch %+v", now)
			}
			return now, nil
		}

		output, done = now.OutputFileID, now.RequestCounts.Completed
		if cancel && done > 0 {
			answer, err := s.client.ask(ctx, "POST", "/batches/"+batch.ID+"/cancel", "", nil)
			if err != nil {
				return now, err
			}

			if answer.status != http.StatusOK && answer.status != http.StatusBadRequest { // it has ended
				return now, fmt.Errorf("cancel: status %d: %s", answer.status, answer.body)
			}
		}
	}
}

// checkOutput reads the files of a batch that has ended, in parts while the server is killed.
func (s *deathScenario) checkOutput(ctx context.Context, batch apiObject, requests int) error {
	lines := map[string]string{}
	for _, id := range []string{batch.OutputFileID, batch.ErrorFileID} {
		if id == "" {
			continue
		}

		var parts []byte
		for {
			answer, err := s.client.ask(ctx, "GET", "/files/"+id+"/content", "", nil,
				"Range", fmt.Sprintf("bytes=%d-%d", len(parts), len(parts)+2000+s.random.IntN(8000)))
			if err != nil {
				return err
			}

			if answer.status != http.StatusPartialContent && answer.status != http.StatusRequestedRangeNotSatisfiable {
				return fmt.Errorf("content of %s: status %d: %.200s", id, answer.status, answer.body)
			}

			if answer.status == http.StatusRequestedRangeNotSatisfiable {
				break
			}

			parts = append(parts, answer.body...)
		}

		whole, err := s.client.ask(ctx, "GET", "/files/"+id+"/content", "", nil)
		if err != nil {
			return err
		}

		if !bytes.Equal(whole.body, parts) {
			return fmt.Errorf("content of %s: %d bytes in parts, %d at once", id, len(parts), len(whole.body))
		}

		for line := range bytes.Lines(whole.body) {
			var l struct {
				CustomID string `json:"custom_id"`
			}
			if err := json.Unmarshal(line, &l); err != nil {
				return fmt.Errorf("a line of %s: %w: %s", id, err, line)
			}

			if lines[l.CustomID] != "" {
				return fmt.Errorf("%s has two lines in %+v", l.CustomID, batch)
			}

			lines[l.CustomID] = id
		}
	}

	counts := batch.RequestCounts
	if len(lines) != requests || counts.Total != requests || counts.Completed+counts.Failed != requests {
		return fmt.Errorf("%d lines for %d requests: %+v", len(lines), requests, batch)
	}

	return nil
}

// checkLists returns an error if a batch or a file is there twice, or is lost.
func (s *deathScenario) checkLists(ctx context.Context) error {
	batches, err := s.list(ctx, "/batches", func(o apiObject) bool { return slices.Contains(s.files, o.InputFileID) })
	if err != nil {
		return err
	}

	var made []string
	for _, b := range slices.Backward(s.batches) {
		made = append(made, b.ID)
	}

	if !slices.Equal(batches, made) {
		return fmt.Errorf("the batches %q were made, and there are %q", made, batches)
	}

	files, err := s.list(ctx, "/files", func(o apiObject) bool { return o.Filename == s.name })
	if err != nil {
		return err
	}

	slices.Reverse(files)
	if !slices.Equal(files, s.files) {
		return fmt.Errorf("the files %q were made, and there are %q", s.files, files)
	}

	return nil
}

// list returns the ids of all objects of a list that are wanted.
func (s *deathScenario) list(ctx context.Context, path string, wanted func(apiObject) bool) (ids []string, err error) {
	after := ""
	for {
		page, err := s.client.askFor(ctx, "GET", path+"?limit=5"+after, "", nil)
		if err != nil {
			return nil, err
		}

		for _, o := range page.Data {
			if wanted(o) {
				ids = append(ids, o.ID)
			}
		}

		if !page.HasMore {
			return ids, nil
		}

		after = "&after=" + page.Data[len(page.Data)-1].ID
	}
}
