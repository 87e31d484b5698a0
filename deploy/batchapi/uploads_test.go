package batchapi

import (
	"crypto/md5"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestLongMimeType ensures that a MIME type is not a place for large texts.
func TestLongMimeType(t *testing.T) {
	f := start(t)

	create := func(n int) answer {
		return f.post("/v1/uploads", fmt.Sprintf(`{"filename":"a","purpose":"batch","bytes":1,"mime_type":%q}`,
			strings.Repeat("x", n)))
	}
	decode[uploadObject](t, create(255))
	create(256).checkError(t, 400, "mime_type", "", "The member mime_type has 256 bytes: use at most 255.")
}

// addPart adds a part to an upload.
func (f *fixture) addPart(uploadID, text string) answer {
	f.t.Helper()

	header, body := formOf(formPart{name: "unknown", value: "x"}, formPart{"data", "part", text})

	return f.send(http.MethodPost, "/v1/uploads/"+uploadID+"/parts", header, strings.NewReader(body))
}

// TestUpload makes a file of parts.
func TestUpload(t *testing.T) {
	f := start(t)

	a := f.post("/v1/uploads", `{"filename":"dir/a.jsonl","purpose":"batch","bytes":6,"mime_type":"text/jsonl",
		"expires_after":{"anchor":"created_at","seconds":3600}}`)
	u := decode[uploadObject](t, a)
	want := fmt.Sprintf(`{"id":%q,"object":"upload","bytes":6,"created_at":%d,"expires_at":%d,"filename":"a.jsonl",`+
		`"purpose":"batch","status":"pending"}`, u.ID, u.CreatedAt, u.CreatedAt+3600)
	if strings.TrimSpace(a.body) != want {
		t.Errorf("%s, want %s", a.body, want)
	}

	b := decode[partObject](t, f.addPart(u.ID, "def"))
	c := decode[partObject](t, f.addPart(u.ID, "abc"))
	if b.Object != "upload.part" || b.UploadID != u.ID {
		t.Errorf("%+v", b)
	}

	complete := func(ids ...string) answer {
		return f.post("/v1/uploads/"+u.ID+"/complete", fmt.Sprintf(`{"part_ids":["%s"],"md5":"%x"}`,
			strings.Join(ids, `","`), md5.Sum([]byte("abcdef"))))
	}
	complete(c.ID).checkError(t, 400, "part_ids", "",
		"The parts have 3 bytes together, but the upload was created with 6 bytes: "+
			"send the missing bytes as further parts, or create an upload with that size.")
	more := decode[partObject](t, f.addPart(u.ID, "xy"))
	complete(c.ID, b.ID, more.ID).checkError(t, 400, "part_ids", "",
		"The parts have 8 bytes together, but the upload was created with 6 bytes: "+
			"name fewer parts, or create an upload with that size.")
	complete(b.ID, c.ID).checkError(t, 400, "md5", "", fmt.Sprintf("The parts have the MD5 %x together, not %x.",
		md5.Sum([]byte("defabc")), md5.Sum([]byte("abcdef"))))

	done := decode[uploadObject](t, complete(c.ID, b.ID))
	if done.Status != "completed" || done.File == nil || done.File.Filename != "a.jsonl" || done.File.ExpiresAt == nil {
		t.Fatalf("%+v", done)
	}
	if got := f.get("/v1/files/" + done.File.ID + "/content").body; got != "abcdef" {
		t.Error(got)
	}

	// A repetition has the same answer; all else is over.
	if again := decode[uploadObject](t, complete(c.ID, b.ID)); again.File.ID != done.File.ID {
		t.Errorf("%+v", again)
	}
	const ended = "The upload is completed, cancelled or expired: create another one."
	complete(b.ID).checkError(t, 400, "", "", ended)
	f.addPart(u.ID, "x").checkError(t, 400, "", "", ended)
	f.post("/v1/uploads/"+u.ID+"/cancel", "").checkError(t, 400, "", "", ended)
}

// TestCancelUpload cancels an upload, and again.
func TestCancelUpload(t *testing.T) {
	f := start(t)
	u := decode[uploadObject](t, f.post("/v1/uploads", `{"filename":"a","purpose":"batch","bytes":6}`))
	decode[partObject](t, f.addPart(u.ID, "def"))

	for range 2 {
		if got := decode[uploadObject](t, f.post("/v1/uploads/"+u.ID+"/cancel", "")); got.Status != "cancelled" {
			t.Errorf("%+v", got)
		}
	}
}

// TestPartErrors ensures that a part in a form that is wrong is not stored.
func TestPartErrors(t *testing.T) {
	f := start(t)
	u := decode[uploadObject](t, f.post("/v1/uploads", `{"filename":"a","purpose":"batch","bytes":6}`))
	before := f.countStored()

	send := func(header http.Header, body string) answer {
		return f.send(http.MethodPost, "/v1/uploads/"+u.ID+"/parts", header, strings.NewReader(body))
	}

	header, body := formOf(formPart{"data", "a", "x"}, formPart{"data", "b", "y"})
	send(header, body).checkError(t, 400, "data", "",
		"The form has more than one file in the field data: send one request for each.")
	send(header, body[:len(body)-4]).checkError(t, 400, "data", "",
		"The form has more than one file in the field data: send one request for each.")

	header, body = formOf(formPart{"data", "a", "x"})
	send(header, body[:len(body)-4]).checkError(t, 400, "", "",
		"The body ends in the middle of the form, and nothing was stored: send it again.")

	header, body = formOf(formPart{"file", "a", "x"})
	send(header, body).checkError(t, 400, "data", "", "The form has no file: the field data is missing.")

	if n := f.countStored(); n != before {
		t.Errorf("%d files are stored, and %d were before", n, before)
	}
}
