package uplot

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

// TestTheFilesAreThoseOfTheRelease pins dist/uPlot.iife.min.js, dist/uPlot.min.css and LICENSE of the
// npm package uplot@1.6.32 (`npm pack uplot@1.6.32`).
func TestTheFilesAreThoseOfTheRelease(t *testing.T) {
	t.Parallel()

	for _, file := range []struct{ name, text, sum string }{
		{"uPlot.iife.min.js", Script, "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"},
		{"uPlot.min.css", Style, "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"},
		{"LICENSE", License, "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd"},
	} {
		if sum := sha256.Sum256([]byte(file.text)); hex.EncodeToString(sum[:]) != file.sum {
			t.Errorf("%s has the SHA-256 %x, the release %s", file.name, sum, file.sum)
		}
	}
}

func TestTheScriptNamesItsVersion(t *testing.T) {
	t.Parallel()

	if !strings.HasPrefix(Script, "/*! https://github.com/leeoniya/uPlot (v"+Version+") */") {
		t.Errorf("the script begins with %.80q", Script)
	}
}

// TestTheFilesCanStandInAPage: what ends an element would cut the script off.
func TestTheFilesCanStandInAPage(t *testing.T) {
	t.Parallel()

	for name, text := range map[string]string{"script": Script, "style": Style} {
		for _, part := range []string{"</" + name, "<!--"} {
			if strings.Contains(strings.ToLower(text), part) {
				t.Errorf("the %s holds %q", name, part)
			}
		}
	}

	if strings.Contains(Style, "url(") || strings.Contains(Style, "@import") {
		t.Error("the style asks for another file")
	}
}
