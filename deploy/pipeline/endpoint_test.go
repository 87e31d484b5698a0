package pipeline

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// A submit whose lines are refused returns them one by one, and puts nothing on the bus.
func TestSubmitRefusesLines(t *testing.T) {
	t.Parallel()

	l := startServer(t).as(t, proto.RoleProducer)
	input := filepath.Join(t.TempDir(), "in.jsonl")
	if err := os.WriteFile(input, []byte("\xef\xbb\xbf"+`{"custom_id":"a","body":{"model":"m","messages":[]}}`+"\r\n\r\n"+
		`{"custom_id":"b","url":"/v1/embeddings","body":{"model":"m","input":"x"}}`), 0o600); err != nil {
		t.Fatal(err)
	}

	cfg := SubmitConfig{
		Bus:      l,
		Inputs:   []string{input},
		Settings: proto.Settings{Endpoint: "/v1/chat/completions"},
		RunID:    "refused",
	}
	_, err := Submit(t.Context(), cfg)
	refused, ok := errors.AsType[*InputError](err)
	if !ok || !errors.Is(err, ErrInvalidInput) || exit.Code(err) != exit.CodeUsage {
		t.Fatalf("error %v", err)
	}

	lines := refused.Report.Lines
	if refused.Report.Count != 1 || len(lines) != 1 || lines[0].Line != 3 || lines[0].Code != "mismatched_endpoint" ||
		lines[0].Param != "url" || lines[0].Message != "the line has another endpoint: its url is /v1/embeddings, "+
		"but the batch's endpoint is /v1/chat/completions" {
		t.Errorf("report %+v", refused.Report)
	}

	// With lines for that endpoint alone the same id is free.
	if err := os.WriteFile(input, []byte(`{"custom_id":"a","body":{"model":"m","messages":[]}}`), 0o600); err != nil {
		t.Fatal(err)
	}

	m, err := Submit(t.Context(), cfg)
	if err != nil || m.Schema != 4 || m.Settings.Endpoint != "/v1/chat/completions" || m.Input.Requests != 1 {
		t.Fatalf("manifest %+v, %v", m, err)
	}

	// The same input for another endpoint, or for none, is another run.
	cfg.Settings.Endpoint = "/v1/responses"
	_, err = Submit(t.Context(), cfg)
	if want := "there is a run refused on the bus already, which had other settings: --endpoint was " +
		"/v1/chat/completions and is /v1/responses now"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
