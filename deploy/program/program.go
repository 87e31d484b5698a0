// Package program knows how this program is typed, for commands that it prints: promptmill
// where it is in the PATH, ./promptmill for one that was called by its path, and go run
// ./deploy/promptmill under go run, which leaves no program behind.
//
// [Name] is that name. [TypedCommands] writes it into a text that names commands.
package program

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/promptmill/promptmill/collector/report"
)

// usualName is the name of the program where it is installed.
const usualName = "promptmill"

// Name returns the words that call this program in the shell and folder that it was called in.
var Name = sync.OnceValue(func() string {
	executable, err := os.Executable()
	if err != nil {
		return usualName
	}

	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}

	folder, err := os.Getwd()
	if err != nil {
		folder = "/"
	}

	return nameOf(os.Args[0], executable, folder, info)
})

// nameOf returns the name of a program that was called as typed in a folder.
func nameOf(typed, executable, folder string, info *debug.BuildInfo) string {
	switch {
	case !strings.Contains(typed, "/"): // the shell has found it
		return report.ShellWords(typed)
	case builtByGoRun.MatchString(executable):
		return goRun(info, folder)
	case strings.HasSuffix(executable, ".test"): // a test of a package, which prints commands as well
		return usualName
	case isInPath(typed, executable):
		return report.ShellWords(filepath.Base(typed))
	}

	return report.ShellWords(typed)
}

// builtByGoRun matches the places of a program that go run has built: a temporary folder, and
// since Go 1.24 the build cache.
var builtByGoRun = regexp.MustCompile(`/go-build\d+/b\d+/exe/[^/]+$|/[0-9a-f]{2}/[0-9a-f]{64}-d/[^/]+$`)

// isInPath reports whether a shell finds this program by the last part of its path.
func isInPath(typed, executable string) bool {
	found, err := exec.LookPath(filepath.Base(typed))
	if err != nil {
		return false
	}

	a, errA := os.Stat(found)
	b, errB := os.Stat(executable)

	return errA == nil && errB == nil && os.SameFile(a, b)
}

// goRun returns the go run of a main package, typed in a folder: inside the source by its path from
// there, and elsewhere by its name and version.
func goRun(info *debug.BuildInfo, folder string) string {
	inside := strings.TrimPrefix(info.Path, info.Main.Path) // of the package in its module
	module := filepath.Base(info.Main.Path)

	for top := folder; ; top = filepath.Dir(top) {
		for _, root := range []string{top, filepath.Join(top, module)} {
			text, err := os.ReadFile(filepath.Join(root, "go.mod"))
			if err != nil || !strings.HasPrefix(string(text), "module "+info.Main.Path+"\n") {
				continue
			}

			if path, err := filepath.Rel(folder, filepath.Join(root, inside)); err == nil {
				if !strings.HasPrefix(path, ".") {
					path = "./" + path
				}
				return "go run " + report.ShellWords(path)
			}
		}

		if top == filepath.Dir(top) {
			break
		}
	}

	if v := info.Main.Version; v != "" && v != "(devel)" {
		return "go run " + info.Path + "@" + v
	}

	return usualName
}

// Commands are the commands that people are asked to type on this machine. A worker is started on
// another one, where the program has its usual name.
var Commands = []string{
	"run", "trial", "sim", "doctor", "verify", "export", "report", "compare", "history", "serve", "submit", "collect",
	"join", "key", "nats-config",
	"list", "status", "workers", "tail", "pause", "resume", "cancel", "retry", "delete", "webhooks", "completion", "man", "version",
	"help",
}

// command matches a command in a text, and promptmill with a flag.
var command = regexp.MustCompile(`(^|[\s(])` + usualName + ` (?:` + strings.Join(Commands, "|") + `|--?\w+)\b`)

// TypedCommands returns a text in which each of [Commands] is as it is typed here. Other
// mentions of promptmill stay as they are.
func TypedCommands(text string) string { return typedCommands(text, Name()) }

// TypedFormat is [TypedCommands] for the format of [fmt.Sprintf].
func TypedFormat(format string) string { return typedCommands(format, escapeFormat(Name())) }

// escapeFormat returns a text as a part of a format.
func escapeFormat(text string) string { return strings.ReplaceAll(text, "%", "%%") }

func typedCommands(text, name string) string {
	if name == usualName {
		return text
	}
	return command.ReplaceAllStringFunc(text, func(found string) string {
		return strings.Replace(found, usualName, name, 1)
	})
}
