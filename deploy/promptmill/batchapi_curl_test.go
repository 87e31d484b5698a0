package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// curl answers of the API as JSON.
type curlAnswer struct {
	ID           string `json:"id"`
	Bytes        int64  `json:"bytes"`
	Status       string `json:"status"`
	OutputFileID string `json:"output_file_id"`
	Error        struct {
		Message string `json:"message"`
		Param   string `json:"param"`
	} `json:"error"`
}

// People try an API with curl first.
func TestBatchAPIWithCurl(t *testing.T) {
	t.Parallel()

	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl")
	}

	a := startBatchAPI(t)
	curl := func(args ...string) []byte {
		t.Helper()

		cmd := exec.Command("curl", append([]string{"-sS", "--noproxy", "*", "-H", "Authorization: Bearer unused"},
			args...)...)
		cmd.Dir = a.dir
		said := &lockedBuffer{}
		cmd.Stderr = said

		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("curl %s: %v: %s", strings.Join(args, " "), err, said)
		}

		return out
	}

	ask := func(path string, args ...string) (answer curlAnswer) {
		t.Helper()
		text := curl(append(args, a.url()+path)...)
		if err := json.Unmarshal(text, &answer); err != nil {
			t.Fatalf("%s: %v: %s", path, err, text)
		}
		return answer
	}

	input := chatLines(3000, "fast")
	must(t, os.WriteFile(filepath.Join(a.dir, "in.jsonl"), []byte(input), 0o600))

	// The parts of a form come in the order of the options.
	ids := map[string]bool{}
	for _, parts := range [][]string{
		{"-F", "purpose=batch", "-F", "file=@in.jsonl"},
		{"-F", "file=@in.jsonl", "-F", "purpose=batch"},
		{"-F", "file=@in.jsonl;type=text/plain", "-F", "purpose=batch", "-H", "Transfer-Encoding: chunked"},
	} {
		file := ask("/files", parts...)
		if !strings.HasPrefix(file.ID, "file-") || file.Bytes != int64(len(input)) || ids[file.ID] {
			t.Fatalf("curl %q: %+v", parts, file)
		}
		ids[file.ID] = true
	}

	for param, parts := range map[string][]string{
		"file":    {"-F", "purpose=batch"},
		"purpose": {"-F", "file=@in.jsonl"},
	} {
		if answer := ask("/files", parts...); answer.Error.Param != param || answer.Error.Message == "" {
			t.Errorf("without %s: %+v", param, answer)
		}
	}

	var file string
	for file = range ids {
		if text := curl(a.url() + "/files/" + file + "/content"); string(text) != input {
			t.Errorf("%d bytes of %s come back, want %d", len(text), file, len(input))
		}
	}

	batch := ask("/batches", "-H", "Content-Type: application/json", "-d",
		`{"input_file_id":"`+file+`","endpoint":"/v1/chat/completions","completion_window":"24h"}`)
	poll(t, patience, "the end of the batch", func() bool {
		batch = ask("/batches/" + batch.ID)
		return slices.Contains(endedStates, batch.Status)
	})

	if batch.Status != "completed" {
		t.Fatalf("batch %+v", batch)
	}

	content := a.url() + "/files/" + batch.OutputFileID + "/content"
	whole := curl(content)
	if lines := byID(t, whole); len(lines) != 3000 {
		t.Errorf("%d lines", len(lines))
	}

	// A download that was cut off continues.
	must(t, os.WriteFile(filepath.Join(a.dir, "cut.jsonl"), whole[:len(whole)/3], 0o600))
	curl("-f", "-C", "-", "-o", "cut.jsonl", content)

	if text, err := os.ReadFile(filepath.Join(a.dir, "cut.jsonl")); err != nil || string(text) != string(whole) {
		t.Errorf("the continued download has %d bytes, want %d: %v", len(text), len(whole), err)
	}

	if text := curl("-f", "-r", "100-199", content); string(text) != string(whole[100:200]) {
		t.Errorf("a range is %q", text)
	}

	if version, _ := exec.Command("curl", "--version").Output(); !strings.Contains(string(version), "zstd") {
		t.Log("left out: this curl does not unpack zstd")
		return
	}

	if text := curl("--compressed", content); string(text) != string(whole) {
		t.Errorf("packed, %d bytes come, want %d", len(text), len(whole))
	}

	packed := curl("-H", "Accept-Encoding: zstd", content)
	onDisk, err := os.ReadFile(filepath.Join(a.dir, strings.TrimPrefix(batch.ID, "batch_")+".jsonl.zst"))
	must(t, err)
	if string(packed) != string(onDisk) {
		t.Errorf("packed, %d bytes come, and the output has %d", len(packed), len(onDisk))
	}
}
