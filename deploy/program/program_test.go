package program

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
)

func Example() {
	fmt.Println(typedCommands("start promptmill serve, or promptmill run --listen", "./promptmill"))
	fmt.Println(typedCommands("promptmill --help lists the commands of promptmill", "/opt/pm"))
	// Output:
	// start ./promptmill serve, or ./promptmill run --listen
	// /opt/pm --help lists the commands of promptmill
}

func TestTypedCommands(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]string{
		"promptmill run":                   "pm run",
		"(promptmill join)":                "(pm join)",
		"promptmill runs":                  "promptmill runs",
		"promptmill also waits":            "promptmill also waits",
		"/opt/promptmill run":              "/opt/promptmill run",
		"a\npromptmill join; b":            "a\npm join; b",
		"promptmill worker --join S":       "promptmill worker --join S", // on another box
		"promptmill workers":               "pm workers",
		"promptmill run and promptmill -V": "pm run and pm -V",
	} {
		if got := typedCommands(text, "pm"); got != want {
			t.Errorf("%q is written as %q, want %q", text, got, want)
		}
		if got := typedCommands(text, usualName); got != text {
			t.Errorf("%q is written as %q where promptmill is installed", text, got)
		}
	}
}

func TestGoRun(t *testing.T) {
	t.Parallel()

	top := t.TempDir()
	for _, dir := range []string{"deploy/promptmill", "deploy/exit", "producer"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	for path, module := range map[string]string{"deploy/go.mod": "deploy", "producer/go.mod": "producer"} {
		text := []byte("module example.org/mill/" + module + "\n\ngo 1.26\n")
		if err := os.WriteFile(filepath.Join(top, path), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	info := func(version string) *debug.BuildInfo {
		return &debug.BuildInfo{
			Path: "example.org/mill/deploy/promptmill",
			Main: debug.Module{Path: "example.org/mill/deploy", Version: version},
		}
	}

	for folder, want := range map[string]string{
		"":                  "go run ./deploy/promptmill",
		"deploy":            "go run ./promptmill",
		"deploy/promptmill": "go run .",
		"deploy/exit":       "go run ../promptmill",
		"producer":          "go run ../deploy/promptmill",
	} {
		if got := goRun(info("(devel)"), filepath.Join(top, folder)); got != want {
			t.Errorf("in %q: %s, want %s", folder, got, want)
		}
	}

	elsewhere := t.TempDir()
	if got, want := goRun(info("v1.2.3"), elsewhere), "go run example.org/mill/deploy/promptmill@v1.2.3"; got != want {
		t.Errorf("elsewhere, with a version: %s, want %s", got, want)
	}

	if got := goRun(info("(devel)"), elsewhere); got != usualName {
		t.Errorf("elsewhere: %s, want %s", got, usualName)
	}
}

func TestBuiltByGoRun(t *testing.T) {
	t.Parallel()

	const hash = "598d36f3ad62d250e77b98825040403b7c207487dd0a380c414c8642d52f6325"
	for path, want := range map[string]bool{
		"/tmp/go-build123/b001/exe/promptmill":                 true,
		"/home/u/.cache/go-build/59/" + hash + "-d/promptmill": true,
		"/tmp/go-build123/b001/promptmill.test":                false,
		"/usr/local/bin/promptmill":                            false,
		"/home/u/go/bin/promptmill":                            false,
	} {
		if got := builtByGoRun.MatchString(path); got != want {
			t.Errorf("%s is built by go run: %t, want %t", path, got, want)
		}
	}
}

// The program has the name by which it was called, unless that is in the PATH.
func TestNameOf(t *testing.T) {
	top := t.TempDir()
	installed, another := filepath.Join(top, "bin", "pm"), filepath.Join(top, "pm")
	for _, path := range []string{installed, another} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.Mkdir(filepath.Join(top, "deploy"), 0o755); err != nil {
		t.Fatal(err)
	}

	module := []byte("module example.org/mill/deploy\n")
	if err := os.WriteFile(filepath.Join(top, "deploy", "go.mod"), module, 0o644); err != nil {
		t.Fatal(err)
	}

	t.Setenv("PATH", filepath.Dir(installed))
	for _, tt := range []struct{ typed, executable, want string }{
		{"pm", installed, "pm"},
		{installed, installed, "pm"},
		{"bin/pm", installed, "pm"},
		{"./pm", another, "./pm"},
		{another, another, another},
		{"../my tools/pm", another, "'../my tools/pm'"},
		{"./renamed", installed, "./renamed"},
		{"/tmp/go-build1/b001/program.test", "/tmp/go-build1/b001/program.test", usualName},
		{"/tmp/go-build1/b001/exe/pm", "/tmp/go-build1/b001/exe/pm", "go run ./deploy/promptmill"},
	} {
		info := &debug.BuildInfo{
			Path: "example.org/mill/deploy/promptmill",
			Main: debug.Module{Path: "example.org/mill/deploy", Version: "(devel)"},
		}
		if got := nameOf(tt.typed, tt.executable, top, info); got != tt.want {
			t.Errorf("called as %s, it is %s, want %s", tt.typed, got, tt.want)
		}
	}
}

// A name with a percent sign is no part of a format.
func TestTypedFormat(t *testing.T) {
	t.Parallel()

	format := typedCommands("promptmill run %s", escapeFormat("./50%/promptmill"))
	if got, want := fmt.Sprintf(format, "in.jsonl"), "./50%/promptmill run in.jsonl"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
