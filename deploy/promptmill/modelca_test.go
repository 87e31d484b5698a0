package main

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker/sim"
)

// A model server with a certificate of one's own is used when that is named, and the way to
// name it is said.
func TestModelCA(t *testing.T) {
	t.Parallel()

	server := httptest.NewTLSServer(sim.New(sim.Config{Models: []string{"sim"}, Tokens: 5}))
	t.Cleanup(server.Close)
	c := newCommand(t)
	in := c.input("in.jsonl", 3)
	ca := filepath.Join(c.dir, "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, certificate, 0o600); err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct {
		args []string
		code int
		said string
	}{
		{[]string{"run", in}, exit.CodeUnreachable, "--model-ca FILE names the certificates to trust"},
		{[]string{"run", in, "--model-ca", in}, exit.CodeUsage, "there is no certificate in it"},
		{[]string{"run", in, "--model-ca", "none.pem"}, exit.CodeUsage, "--model-ca none.pem: no such file"},
		{[]string{"worker", "--model-ca", "none.pem"}, exit.CodeUsage, "--model-ca none.pem: no such file"},
		{[]string{"doctor", "--model-ca", "none.pem"}, exit.CodeUsage, "--model-ca none.pem: no such file"},
		{[]string{"doctor"}, exit.CodeUnreachable, "--model-ca FILE names the certificates to trust"},
		{[]string{"doctor", "--model-ca", ca}, exit.CodeOK, "sim answered /v1/chat/completions"},
		{[]string{"run", in, "--model-ca", ca}, exit.CodeOK, "3 answered, 0 failed"},
	} {
		if said, code := c.run(append(tt.args, "--url", server.URL)...); code != tt.code ||
			!strings.Contains(said, tt.said) {
			t.Errorf("%v: exit code %d\n%s", tt.args, code, said)
		}
	}
}
