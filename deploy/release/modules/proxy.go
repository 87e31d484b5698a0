package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// writeTo writes the module into a folder as a module proxy has it (https://go.dev/ref/mod#goproxy-protocol).
func (m *module) writeTo(proxy, version string) error {
	dir := filepath.Join(proxy, filepath.FromSlash(m.path), "@v") // the paths have no capital letters to escape
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}

	text, err := os.ReadFile(m.inRoot("go.mod"))
	if err != nil {
		return err
	}

	archive, err := os.Create(filepath.Join(dir, version+".zip"))
	if err != nil {
		return err
	}

	return errors.Join(
		m.writeZip(archive, version),
		archive.Close(),
		os.WriteFile(filepath.Join(dir, version+".mod"), text, 0o644),
		os.WriteFile(filepath.Join(dir, version+".info"), fmt.Appendf(nil, `{"Version":%q}`, version), 0o644),
		os.WriteFile(filepath.Join(dir, "list"), []byte(version+"\n"), 0o644),
	)
}
