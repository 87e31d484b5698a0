package batchapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/apikey"
	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/proto"
)

// asKey returns the header of a key.
func asKey(secret string) http.Header { return http.Header{"Authorization": {"Bearer " + secret}} }

// TestKeys asks with and without a key.
func TestKeys(t *testing.T) {
	f := start(t, func(f *fixture) { f.keys = fakeKeys{"good": {ID: "key_1"}} })

	const missing = "This server needs an API key in the header Authorization: Bearer KEY: " +
		"promptmill key create makes one on the server."
	const wrong = "The API key is wrong or was revoked: promptmill key create makes another one on the server."
	for authorization, message := range map[string]string{
		"":               missing,
		"Bearer":         missing,
		"Basic Z29vZA==": missing,
		"Bearer bad":     wrong,
		"bearer good":    "",
		"Bearer good":    "",
	} {
		header := http.Header{"Authorization": {authorization}, "Openai-Organization": {"o"}, "Openai-Project": {"p"}}
		a := f.send(http.MethodGet, "/v1/files", header, nil)
		if message == "" {
			decode[listObject[fileObject]](t, a)
			continue
		}

		a.checkError(t, 401, "", "invalid_api_key", message)
		if a.header.Get("WWW-Authenticate") != "Bearer" {
			t.Error(a.header)
		}
	}

	if a := f.get("/openapi.json"); a.status != 200 {
		t.Errorf("%+v", a)
	}
	f.get("/v1/nothing").checkError(t, 404, "", "unknown_url", "There is no GET /v1/nothing: this server has files, "+
		"uploads, batches and models under /v1, and describes them in /openapi.json.")
}

// TestOwnOnly ensures that a key sees nothing of others', if it was made so, and that others see all.
func TestOwnOnly(t *testing.T) {
	f := start(t, func(f *fixture) {
		f.keys = fakeKeys{
			"own":   {ID: "key_1", Rights: apikey.Rights{OwnOnly: true}},
			"other": {ID: "key_2", Rights: apikey.Rights{OwnOnly: true}},
			"all":   {ID: "key_3"},
		}
	})

	header, body := formOf(formPart{name: "purpose", value: "batch"}, formPart{"file", "a.jsonl", "{}\n"})
	header.Set("Authorization", "Bearer own")
	file := decode[fileObject](t, f.send(http.MethodPost, "/v1/files", header, strings.NewReader(body)))
	upload := decode[uploadObject](t, f.send(http.MethodPost, "/v1/uploads", asKey("own"),
		strings.NewReader(`{"filename":"a","purpose":"batch","bytes":6}`)))

	f.batches.add(batch.Batch{ID: "batch_1", Owner: "key_1", State: proto.StateCompleted, OutputFileID: outputID})
	f.batches.setOutput(outputID, &fakeOutput{text: "{}\n", complete: true})

	noFile := func(id string) string {
		return "There is no file " + id + ": it never existed, has expired or was deleted."
	}
	for _, c := range []struct{ method, path, param, message string }{
		{"GET", "/v1/files/" + file.ID, "id", noFile(file.ID)},
		{"GET", "/v1/files/" + file.ID + "/content", "id", noFile(file.ID)},
		{"DELETE", "/v1/files/" + file.ID, "id", noFile(file.ID)},
		{"GET", "/v1/files/" + outputID, "id", noFile(outputID)},
		{"GET", "/v1/files/" + outputID + "/content", "id", noFile(outputID)},
		{"DELETE", "/v1/files/" + outputID, "id", noFile(outputID)},
		{"GET", "/v1/batches/batch_1", "id", "There is no batch batch_1."},
		{"GET", "/v1/batches/batch_1/results", "id", "There is no batch batch_1."},
		{"POST", "/v1/batches/batch_1/cancel", "id", "There is no batch batch_1."},
		{"POST", "/v1/uploads/" + upload.ID + "/parts", "id",
			"There is no upload " + upload.ID + ": it never existed, or ended long ago."},
		{"POST", "/v1/uploads/" + upload.ID + "/complete", "id",
			"There is no upload " + upload.ID + ": it never existed, or ended long ago."},
		{"POST", "/v1/uploads/" + upload.ID + "/cancel", "id",
			"There is no upload " + upload.ID + ": it never existed, or ended long ago."},
	} {
		f.send(c.method, c.path, asKey("other"), nil).checkError(t, 404, c.param, "", c.message)
	}

	create := `{"endpoint":"/v1/completions","input_file_id":"` + file.ID + `"}`
	f.send(http.MethodPost, "/v1/batches", asKey("other"), strings.NewReader(create)).
		checkError(t, 400, "input_file_id", "file_not_found",
			`There is no file "`+file.ID+`": upload it with the purpose "batch" first.`)

	f.send(http.MethodPost, "/v1/batches", asKey("other"),
		strings.NewReader(`{"endpoint":"/v1/completions","input_file_id":"`+outputID+`"}`)).
		checkError(t, 400, "input_file_id", "file_not_found",
			`There is no file "`+outputID+`": upload it with the purpose "batch" first.`)
	for _, id := range []string{file.ID, outputID} {
		f.send(http.MethodGet, "/v1/files?after="+id, asKey("other"), nil).checkError(t, 400, "after", "",
			fmt.Sprintf("The parameter after is %q, and must be the id of a file: last_id of the page before.", id))
	}

	for secret, n := range map[string]int{"own": 2, "other": 0, "all": 2} {
		files := decode[listObject[fileObject]](t, f.send(http.MethodGet, "/v1/files", asKey(secret), nil))
		batches := decode[listObject[batchObject]](t, f.send(http.MethodGet, "/v1/batches", asKey(secret), nil))
		if len(files.Data) != n || len(batches.Data) != n/2 {
			t.Errorf("%s sees %d files and %d batches", secret, len(files.Data), len(batches.Data))
		}
	}

	// A refusal does not name the batch of another key.
	f.batches.add(batch.Batch{ID: "batch_foreign", Owner: "key_3", State: proto.StateInProgress, InputFileID: file.ID})
	f.send(http.MethodDelete, "/v1/files/"+file.ID, asKey("own"), nil).
		checkError(t, 400, "", "file_in_use", "A batch needs the file.")

	b := decode[batchObject](t, f.send(http.MethodPost, "/v1/batches", asKey("own"), strings.NewReader(create)))
	if q := f.batches.requests[0]; b.InputFileID != file.ID || q.Owner != "key_1" {
		t.Errorf("%+v", q)
	}

	// A key that sees all reads and deletes files of others.
	if a := f.send(http.MethodGet, "/v1/files/"+outputID+"/content", asKey("all"), nil); a.body != "{}\n" {
		t.Errorf("%+v", a)
	}
}

// TestReadOnly ensures that a key which was made so looks at all, and changes nothing.
func TestReadOnly(t *testing.T) {
	f := start(t, func(f *fixture) {
		f.keys = fakeKeys{"look": {ID: "key_1", Name: "wall", Rights: apikey.Rights{ReadOnly: true}}, "all": {ID: "key_2"}}
	})

	header, body := formOf(formPart{name: "purpose", value: "batch"}, formPart{"file", "a.jsonl", "{}\n"})
	header.Set("Authorization", "Bearer all")
	file := decode[fileObject](t, f.send(http.MethodPost, "/v1/files", header, strings.NewReader(body)))
	f.batches.add(batch.Batch{ID: "batch_1", Owner: "key_2", State: proto.StateInProgress, InputFileID: file.ID})

	for _, path := range []string{"/v1/files", "/v1/files/" + file.ID + "/content", "/v1/batches/batch_1", "/v1/models"} {
		if a := f.send(http.MethodGet, path, asKey("look"), nil); a.status != 200 {
			t.Errorf("GET %s: %+v", path, a)
		}
	}

	for _, c := range []struct{ method, path string }{
		{"POST", "/v1/files"},
		{"DELETE", "/v1/files/" + file.ID},
		{"POST", "/v1/uploads"},
		{"POST", "/v1/batches"},
		{"POST", "/v1/batches/batch_1/cancel"},
	} {
		f.send(c.method, c.path, asKey("look"), strings.NewReader("{}")).checkError(t, 403, "", "read_only_key",
			"The API key wall may look at files and batches, and change none: use a key that was made without --read-only.")
	}
}

// TestNoKeys ensures that each key is good where none is needed.
func TestNoKeys(t *testing.T) {
	f := start(t, func(f *fixture) { f.keys = nil })

	for _, secret := range []string{"", "x"} {
		if a := f.send(http.MethodGet, "/v1/files", asKey(secret), nil); a.status != 200 {
			t.Errorf("%+v", a)
		}
	}

	var _ Keys = (*apikey.File)(nil)
}
