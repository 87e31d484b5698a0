package batchapi

import (
	"net/http"
	"strings"
	"testing"
)

func TestFileRoundTrip(t *testing.T) {
	f := start(t)

	file := f.upload("{\"a\":1}\n")
	if file.Bytes != 8 || file.Filename != "input.jsonl" || file.Purpose != "batch" || file.Status != "processed" {
		t.Errorf("%+v", file)
	}

	if got := decode[fileObject](t, f.get("/v1/files/"+file.ID)); got != file {
		t.Errorf("%+v", got)
	}

	a := f.get("/v1/files/" + file.ID + "/content")
	if a.status != http.StatusOK || a.body != "{\"a\":1}\n" || a.header.Get("Content-Length") != "8" {
		t.Errorf("%+v", a)
	}

	if got := decode[listObject[fileObject]](t, f.get("/v1/files")); len(got.Data) != 1 || *got.LastID != file.ID {
		t.Errorf("%+v", got)
	}

	if got := decode[deletedObject](t, f.send(http.MethodDelete, "/v1/files/"+file.ID, nil, nil)); !got.Deleted {
		t.Errorf("%+v", got)
	}

	f.get("/v1/files/"+file.ID).checkError(t, 404, "id", "",
		"There is no file "+file.ID+": it never existed, has expired or was deleted.")
	if strings.Contains(f.log.String(), "error") {
		t.Error(f.log.String())
	}
}
