package main

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/promptmill/promptmill/deploy/files"
)

// documents returns the text of each Markdown file of the repository, by its path from the
// top.
func documents(t *testing.T) map[string]string {
	t.Helper()

	top := filepath.Join("..", "..")
	texts := map[string]string{}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != top):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}

		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}

		name, err := filepath.Rel(top, path)
		texts[name] = string(text)

		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	for _, name := range []string{"README.md", "CONTRIBUTING.md", filepath.Join("proto", "README.md")} {
		if texts[name] == "" {
			t.Fatalf("%s is missing or empty; found %d documents", name, len(texts))
		}
	}

	return texts
}

var (
	markdownLink   = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	markdownTitle  = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	markdownFenced = regexp.MustCompile("(?ms)^```.*?^```")
	codeBlockLine  = regexp.MustCompile(`(?m)^ {4}.*$`)
)

// anchors returns the anchors of a document's headings, as GitHub makes them.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	for _, title := range markdownTitle.FindAllStringSubmatch(markdownFenced.ReplaceAllString(text, ""), -1) {
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, title[1])

		found[anchor] = true
	}

	return found
}

// Relative links in documents lead to files that are there, and to headings in them.
//
// The cache of go test does not notice changes of documents, which lie outside this module:
// run it with -count=1.
func TestDocumentsLinks(t *testing.T) {
	texts := documents(t)

	links := 0
	for name, text := range texts {
		text = markdownFenced.ReplaceAllString(text, "")
		text = codeBlockLine.ReplaceAllString(text, "")

		for _, link := range markdownLink.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(link[1], "#")
			if strings.Contains(target, "://") {
				continue
			}

			links++
			path := name
			if target != "" {
				path = filepath.Join(filepath.Dir(name), target)
			}

			if !files.Exists(filepath.Join("..", "..", path)) {
				t.Errorf("%s: the link (%s) leads to no file", name, link[1])
				continue
			}

			if anchor != "" && !anchors(texts[path])[anchor] {
				t.Errorf("%s: the link (%s) leads to no heading of %s", name, link[1], path)
			}
		}
	}

	if links < 20 {
		t.Errorf("only %d relative links found: the pattern does not match them", links)
	}
}

// othersFlags are flags of other programs that documents name.
var othersFlags = strings.Fields(`
	--cache-ram --disable-metrics --enable-cache-report --enable-metrics --enable-prompt-tokens-details --host
	--context --inbox-prefix --long --max-model-len --max-num-seqs --metrics --models-max --port --raw --scale
	--served-model-name --threads-http --allow-empty --server --tlsca --user --password --tensor-parallel-size
	--pipeline-parallel-size --data-parallel-size --account --array --batch --env --export --gres --num-jobs --partition
	--requeue --secret --signal --time --rm --read-only --tmpfs --cap-drop --security-opt --stop-timeout --hostname
	--add-host --network --ulimit --init --from
	--create-namespace --from-file --namespace --strict --clean --config`)

var (
	documentFlag = regexp.MustCompile(`(?:^|[\s\x60("'|/])(--[a-z][a-z0-9-]*)`)
	flagInSource = regexp.MustCompile(`flags\.[A-Za-z0-9]+\((?:&[a-zA-Z.]+, )?"([a-z-]+)"`)
	shownCommand = regexp.MustCompile(`(?m)\b(promptmill [a-z-]+|deploy/chaos|deploy/bench|deploy/release/image) (.*)$`)
)

// flagsOfCommands returns the flags of each command.
func flagsOfCommands(t *testing.T) map[string][]string {
	t.Helper()

	flags := map[string][]string{"": {"--version"}}
	for _, c := range newApp(environment{}).Commands {
		flags[c.Name] = []string{"--help"} // which each command gets as it starts
		for _, f := range c.Flags {
			flags[c.Name] = append(flags[c.Name], "--"+f.Names()[0])
		}
		for _, sub := range listCommands(c.Commands) { // a line of a document is held against all of them
			for _, f := range sub.Flags {
				flags[c.Name] = append(flags[c.Name], "--"+f.Names()[0])
			}
		}
	}

	if len(flags) < 20 || len(flags["run"]) < 40 {
		t.Fatalf("there are %d commands with flags, and %d flags of run", len(flags), len(flags["run"]))
	}

	return flags
}

// flagsOfTools returns the flags of chaos, of bench and of the builder of the image.
func flagsOfTools(t *testing.T) map[string][]string {
	t.Helper()

	flags := map[string][]string{}
	for _, tool := range []string{"chaos", "bench", "release/image"} {
		source, err := os.ReadFile(filepath.Join("..", tool, "main.go"))
		if err != nil {
			t.Fatal(err)
		}

		for _, flag := range flagInSource.FindAllStringSubmatch(string(source), -1) {
			flags[tool] = append(flags[tool], "--"+flag[1])
		}

		if len(flags[tool]) < 4 {
			t.Fatalf("%s has %d flags: the pattern does not match its source", tool, len(flags[tool]))
		}
	}

	return flags
}

// Every flag that a document names exists; one that it shows with a command is the
// command's.
func TestDocumentsFlags(t *testing.T) {
	flags := flagsOfCommands(t)
	maps.Copy(flags, flagsOfTools(t))
	known := append(slices.Concat(slices.Collect(maps.Values(flags))...), othersFlags...)

	for name, text := range documents(t) {
		for _, flag := range documentFlag.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(known, flag[1]) {
				t.Errorf("%s names %s, which no command has", name, flag[1])
			}
		}

		for _, line := range shownCommand.FindAllStringSubmatch(text, -1) {
			command := strings.TrimPrefix(strings.TrimPrefix(line[1], "promptmill "), "deploy/")
			has, ok := flags[command]
			if !ok {
				continue
			}

			arguments, _, _ := strings.Cut(line[2], "`")
			arguments, _, _ = strings.Cut(arguments, "# ")
			for _, flag := range documentFlag.FindAllStringSubmatch(" "+arguments, -1) {
				if !slices.Contains(has, flag[1]) && !slices.Contains(othersFlags, flag[1]) {
					t.Errorf("%s shows %q, but %s has no %s", name, line[0], line[1], flag[1])
				}
			}
		}
	}
}

var (
	codeSpan     = regexp.MustCompile("`([^`\n]+)`")
	pathInSpan   = regexp.MustCompile(`^(?:proto|producer|worker|collector|deploy)/[a-z][a-zA-Z0-9_./-]*$`)
	testInText   = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`)
	testInSource = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
)

// goFolders returns the folders of the six modules that have Go files which are no tests,
// and the names of all tests.
func goFolders(t *testing.T) (folders, tests []string) {
	t.Helper()

	for _, module := range []string{"proto", "producer", "worker", "collector", "deploy"} { // which has deploy/release
		top := filepath.Join("..", "..")
		err := filepath.WalkDir(filepath.Join(top, module), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && d.Name() == "testdata":
				return fs.SkipDir
			case d.IsDir() || filepath.Ext(path) != ".go":
				return nil
			}

			if !strings.HasSuffix(path, "_test.go") {
				folder, err := filepath.Rel(top, filepath.Dir(path))
				folders = append(folders, filepath.ToSlash(folder))
				return err
			}

			source, err := os.ReadFile(path)
			for _, name := range testInSource.FindAllStringSubmatch(string(source), -1) {
				tests = append(tests, name[1])
			}

			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}

	slices.Sort(folders)

	return slices.Compact(folders), tests
}

// Paths and tests that documents name exist, and the map of CONTRIBUTING has each package.
func TestDocumentsNames(t *testing.T) {
	folders, tests := goFolders(t)
	texts := documents(t)

	paths := 0
	for name, text := range texts {
		for _, span := range codeSpan.FindAllStringSubmatch(text, -1) {
			if pathInSpan.MatchString(span[1]) {
				paths++
				if !files.Exists(filepath.Join("..", "..", span[1])) {
					t.Errorf("%s names %s, which does not exist", name, span[1])
				}
			}
		}

		for _, test := range testInText.FindAllString(text, -1) {
			if !slices.ContainsFunc(tests, func(name string) bool { return strings.HasPrefix(name, test) }) {
				t.Errorf("%s names the test %s, which does not exist", name, test)
			}
		}
	}

	if paths < 15 {
		t.Errorf("only %d paths found: the pattern does not match them", paths)
	}

	for _, folder := range folders {
		if !strings.Contains(texts["CONTRIBUTING.md"], "`"+folder+"`") {
			t.Errorf("the map of CONTRIBUTING.md lacks %s", folder)
		}
	}
}

// The files that documents show as a whole equal the files in the repository.
func TestDocumentsCode(t *testing.T) {
	texts := documents(t)
	for _, shown := range []struct{ document, language, file string }{
		{"CONTRIBUTING.md", "go", "worker/modelserver/lmdeploy.go"},
		{"proto/README.md", "python", "proto/examples/python/worker.py"},
		{"proto/README.md", "python", "proto/examples/python/reader.py"},
	} {
		file, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(shown.file)))
		if err != nil {
			t.Fatal(err)
		}

		if !strings.Contains(texts[filepath.FromSlash(shown.document)], "```"+shown.language+"\n"+string(file)+"```\n") {
			t.Errorf("%s shows another %s than the one in the repository", shown.document, shown.file)
		}
	}
}
