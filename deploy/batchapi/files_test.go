package batchapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/proto"
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
	if n := f.countStored(); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

// TestFileOnTheWire has a file to the letter.
func TestFileOnTheWire(t *testing.T) {
	f := start(t)

	header, body := formOf(formPart{"file", "a.jsonl", "x"}, formPart{name: "purpose", value: "user_data"},
		formPart{name: "expires_after[anchor]", value: "created_at"},
		formPart{name: "expires_after[seconds]", value: "3600"}, formPart{name: "color", value: "blue"})
	a := f.send(http.MethodPost, "/v1/files", header, strings.NewReader(body))
	file := decode[fileObject](t, a)

	want := fmt.Sprintf(`{"id":%q,"object":"file","bytes":1,"created_at":%d,"expires_at":%d,"filename":"a.jsonl",`+
		`"purpose":"user_data","status":"processed"}`, file.ID, file.CreatedAt, *file.ExpiresAt)
	if strings.TrimSpace(a.body) != want {
		t.Errorf("%s, want %s", a.body, want)
	}
	if lifetime := *file.ExpiresAt - file.CreatedAt; lifetime != 3600 {
		t.Errorf("the file expires after %d s", lifetime)
	}
}

// TestFormErrors has the errors of forms to the letter, and ensures that nothing is stored.
func TestFormErrors(t *testing.T) {
	f := start(t)

	file := formPart{"file", "a.jsonl", strings.Repeat("x", 1<<20)}
	purpose := formPart{name: "purpose", value: "batch"}
	const seconds = "The field expires_after.seconds must be a number from 3600 (one hour) to 2592000 (30 days)."
	anchor := formPart{name: "expires_after[anchor]", value: "created_at"}
	for _, c := range []struct {
		parts   []formPart
		param   string
		message string
	}{
		{[]formPart{file}, "purpose", `The field purpose is missing: give "batch" for the input of a batch.`},
		{[]formPart{purpose}, "file", "The form has no file: the field file is missing."},
		{nil, "file", "The form has no file: the field file is missing."},
		{[]formPart{{name: "file", value: "a"}, purpose}, "file",
			"The field file has no file name, so it is no file: with curl, write -F file=@PATH."},
		{[]formPart{file, purpose, file}, "file", "The form has more than one file in the field file: send one request for each."},
		{[]formPart{{name: "purpose", value: "x"}, file}, "purpose",
			`The purpose is "x", and must be one of assistants, batch, fine-tune, vision, user_data, evals.`},
		{[]formPart{file, {name: "purpose", value: "batch_output"}}, "purpose",
			`The purpose is "batch_output", and must be one of assistants, batch, fine-tune, vision, user_data, evals.`},
		{[]formPart{purpose, file, purpose}, "purpose", "The form has the field purpose twice."},
		{[]formPart{{name: "purpose", value: strings.Repeat("x", maxField+1)}, file}, "purpose",
			"The field purpose is longer than 64 KiB."},
		{[]formPart{purpose, file, anchor, {name: "expires_after[seconds]", value: "3599"}}, "expires_after.seconds", seconds},
		{[]formPart{purpose, file, anchor, {name: "expires_after[seconds]", value: "2592001"}}, "expires_after.seconds", seconds},
		{[]formPart{purpose, file, anchor, {name: "expires_after[seconds]", value: "1h"}}, "expires_after.seconds", seconds},
		{[]formPart{purpose, file, anchor, {name: "expires_after[seconds]", value: "+3600"}}, "expires_after.seconds", seconds},
		{[]formPart{purpose, file, {name: "expires_after[seconds]", value: "3600"}}, "expires_after.anchor",
			`The field expires_after.anchor is missing, and must be "created_at".`},
		{[]formPart{purpose, file, {name: "expires_after", value: `{"anchor":"created_at","seconds":3600}`}},
			"expires_after", "The form has the field expires_after: send expires_after[anchor] and expires_after[seconds]."},
		{[]formPart{purpose, file, {name: "expires_after[anchor]", value: "created_at"}}, "expires_after.seconds", seconds},
		{[]formPart{purpose, file, {name: "expires_after[anchor]", value: "now"}}, "expires_after.anchor",
			`The field expires_after.anchor is "now", and must be "created_at".`},
	} {
		header, body := formOf(c.parts...)
		f.send(http.MethodPost, "/v1/files", header, strings.NewReader(body)).checkError(t, 400, c.param, "", c.message)
	}

	header, body := formOf(purpose, file)
	const cut = "The body ends in the middle of the form, and nothing was stored: send it again."
	const malformed = "The body is no well-formed multipart/form-data with the boundary of its header."
	for end, message := range map[int]string{0: cut, 10: cut, 100: cut, 500: cut, len(body) - 10: cut} {
		f.send(http.MethodPost, "/v1/files", header, strings.NewReader(body[:end])).checkError(t, 400, "", "", message)
	}
	f.send(http.MethodPost, "/v1/files", header, strings.NewReader(strings.ReplaceAll(body, "Content-", "\x00"))).
		checkError(t, 400, "", "", malformed)
	f.send(http.MethodPost, "/v1/files", http.Header{"Content-Type": {"multipart/form-data"}}, strings.NewReader(body)).
		checkError(t, 400, "", "", "The content type has no boundary: send a form of the type multipart/form-data, "+
			"with the file in the field file.")

	if n := f.countStored(); n != 0 {
		t.Errorf("%d files are stored", n)
	}
}

// TestUploadCutOff breaks the connection in the middle of an upload.
func TestUploadCutOff(t *testing.T) {
	f := start(t)

	header, body := formOf(formPart{name: "purpose", value: "batch"}, formPart{"file", "a", strings.Repeat("x", 1<<20)})
	broken := errors.New("the client breaks off")
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/v1/files",
		io.MultiReader(strings.NewReader(body[:len(body)/2]), failingReader{broken}))
	req.Header = header

	if _, err := http.DefaultTransport.RoundTrip(req); !errors.Is(err, broken) {
		t.Fatal(err)
	}

	f.server.Close() // waits for the handler
	if n := f.countStored(); n != 0 {
		t.Errorf("%d files are stored", n)
	}
}

// failingReader fails.
type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// TestPartsOfFormsInAnyOrder sends forms with parts in random orders, among fields that are unknown.
func TestPartsOfFormsInAnyOrder(t *testing.T) {
	f := start(t)

	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		text := make([]byte, random.IntN(300<<10))
		for i := range text {
			text[i] = "\r\n-\x00ab"[random.IntN(6)]
		}

		parts := []formPart{
			{"file", "a.jsonl", string(text)},
			{name: "purpose", value: "batch"},
			{name: "expires_after[anchor]", value: "created_at"},
			{name: "expires_after[seconds]", value: "7200"},
			{name: "unknown", value: string(text[:min(len(text), 100)])},
			{"other_file", "b", string(text)},
			{name: "unknown", value: "again"},
		}
		random.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })

		header, body := formOf(parts...)
		file := decode[fileObject](t, f.send(http.MethodPost, "/v1/files", header, strings.NewReader(body)))
		if got := f.get("/v1/files/" + file.ID + "/content"); got.body != string(text) || file.ExpiresAt == nil {
			t.Fatalf("%d bytes came back of %d; %+v", len(got.body), len(text), file)
		}
	}
}

// TestFormKeepsBytes ensures that a transfer encoding of a part is not undone.
func TestFormKeepsBytes(t *testing.T) {
	f := start(t)

	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	w.WriteField("purpose", "batch")
	part, _ := w.CreatePart(textproto.MIMEHeader{
		"Content-Disposition":       {`form-data; name="file"; filename="a"`},
		"Content-Transfer-Encoding": {"quoted-printable"},
	})
	io.WriteString(part, "a=3Db")
	w.Close()

	file := decode[fileObject](t, f.send(http.MethodPost, "/v1/files",
		http.Header{"Content-Type": {w.FormDataContentType()}}, &body))
	if got := f.get("/v1/files/" + file.ID + "/content").body; got != "a=3Db" {
		t.Error(got)
	}
}

func TestCleanFilename(t *testing.T) {
	for name, want := range map[string]string{
		"a.jsonl":                      "a.jsonl",
		"../../etc/passwd":             "passwd",
		`C:\data\Größe 1.jsonl`:        "Größe 1.jsonl",
		"a\x00b\nc\u202e\xff.x":        "abc.x",
		"..":                           "..",
		strings.Repeat("é", 200):       strings.Repeat("é", 127),
		"/":                            "",
		"@batchinput.jsonl":            "@batchinput.jsonl",
		"a" + strings.Repeat("b", 255): "a" + strings.Repeat("b", 254),
	} {
		if got := cleanFilename(name); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
}

// TestRetriedUpload repeats uploads as SDKs do.
func TestRetriedUpload(t *testing.T) {
	f := start(t)

	retry := func(name, value string, text string) fileObject {
		header, body := formOf(formPart{name: "purpose", value: "batch"}, formPart{"file", "input.jsonl", text})
		header.Set(name, value)
		return decode[fileObject](t, f.send(http.MethodPost, "/v1/files", header, strings.NewReader(body)))
	}

	first := f.upload("a\n")
	if again := f.upload("a\n"); again.ID == first.ID {
		t.Error("two uploads are one file")
	}
	latest := f.upload("a\n")

	if got := retry("X-Stainless-Retry-Count", "0", "a\n"); got.ID == latest.ID {
		t.Error("a first attempt is taken for a repetition")
	} else {
		latest = got
	}

	if got := retry("X-Stainless-Retry-Count", "1", "a\n"); got != latest {
		t.Errorf("%+v, want %+v", got, latest)
	}
	if got := retry("X-Stainless-Retry-Count", "2", "b\n"); got.Bytes != 2 || got.ID == latest.ID {
		t.Errorf("%+v", got)
	}

	if n := f.countStored(); n != 2*5 {
		t.Errorf("%d files are stored", n)
	}
}

// TestIdempotencyKeyOfFile repeats uploads under keys: a key has one file, and a file one key.
func TestIdempotencyKeyOfFile(t *testing.T) {
	f := start(t)
	f.upload("a\n") // has no key

	upload := func(key, text string, header ...string) answer {
		h, body := formOf(formPart{name: "purpose", value: "batch"}, formPart{"file", "input.jsonl", text})
		h.Set("Idempotency-Key", key)
		for i := 0; i < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return f.send(http.MethodPost, "/v1/files", h, strings.NewReader(body))
	}

	first := decode[fileObject](t, upload("k", "a\n"))
	if again := decode[fileObject](t, upload("k", "a\n", "X-Stainless-Retry-Count", "1")); again != first {
		t.Errorf("%+v, want %+v", again, first)
	}
	other := decode[fileObject](t, upload("k2", "a\n", "X-Stainless-Retry-Count", "1"))
	if other.ID == first.ID {
		t.Error("two keys have one file")
	}
	upload("k", "b\n").checkError(t, 400, "", "idempotency_key_reused", "The idempotency key was used for file "+first.ID+
		", with other bytes, another name or another purpose: use a new key.")
	upload(strings.Repeat("k", 256), "a\n").checkError(t, 400, "", "invalid_idempotency_key",
		"The idempotency key has 256 bytes: use at most 255.")

	// The deletion of one leaves the other, and makes its key free.
	f.send(http.MethodDelete, "/v1/files/"+first.ID, nil, nil)
	decode[fileObject](t, f.get("/v1/files/"+other.ID))
	decode[fileObject](t, upload("k", "b\n"))

	if n := f.countStored(); n != 2*3 {
		t.Errorf("%d files are stored", n)
	}
}

// TestPaging pages through 330 files, the outputs of batches among them, while files come and go. Each
// file that is there all the time is listed once, in order.
func TestPaging(t *testing.T) {
	f := start(t)

	store := func() string {
		file, err := f.files.Create(t.Context(), filestore.File{Purpose: "batch"}, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		return file.ID
	}

	var all []string // oldest first
	for i := range 300 {
		all = append(all, store())

		if i%10 == 0 {
			b := batch.Batch{
				ID:           fmt.Sprintf("batch_%d", i),
				State:        proto.StateCompleted,
				OutputFileID: fmt.Sprintf("file-output%d", i),
				CreatedAt:    time.Now(),
			}
			f.batches.add(b)
			f.batches.setOutput(b.OutputFileID, &fakeOutput{complete: true})
			all = append(all, b.OutputFileID)
		}
	}

	for _, order := range []string{"asc", "desc"} {
		before := slices.Clone(all)

		var seen []string
		after := ""
		for more := true; more; {
			page := decode[listObject[fileObject]](t, f.get("/v1/files?limit=7&order="+order+"&after="+after))
			for _, file := range page.Data {
				seen = append(seen, file.ID)
			}
			after, more = *page.LastID, page.HasMore

			// The file of the cursor goes, and so do a file that was listed and one that comes later.
			for _, id := range []string{after, store(), seen[max(0, len(seen)-3)]} {
				if f.files.Delete(id) != nil {
					f.batches.DeleteOutput(id)
				}
				all = slices.DeleteFunc(all, func(a string) bool { return a == id })
			}
		}

		if order == "desc" {
			slices.Reverse(seen)
		}
		if !slices.Equal(seen, before) {
			t.Errorf("%s: %d files were listed, of %d", order, len(seen), len(before))
		}
	}
}

// TestListPurpose filters a list.
func TestListPurpose(t *testing.T) {
	f := start(t)
	f.batches.add(batch.Batch{ID: "batch_1", State: proto.StateCompleted, OutputFileID: "file-out"})
	f.batches.setOutput("file-out", &fakeOutput{text: "{}\n", complete: true})
	input := f.upload("x")

	for purpose, want := range map[string]string{"batch": input.ID, "batch_output": "file-out"} {
		got := decode[listObject[fileObject]](t, f.get("/v1/files?purpose="+purpose))
		if len(got.Data) != 1 || got.Data[0].ID != want || got.HasMore {
			t.Errorf("%s: %+v", purpose, got)
		}
	}

	a := f.get("/v1/files?purpose=vision")
	const empty = `{"object":"list","data":[],"first_id":null,"last_id":null,"has_more":false}`
	if strings.TrimSpace(a.body) != empty {
		t.Error(a.body)
	}
}
