package inputerror

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/fileformat"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/prompt"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// Input is the input of a command.
type Input struct {
	// Files are the paths of the files that were read. Required.
	Files []string
	// Validated are the files as the validation of their run has found them, see [producer.Source]. Defaults to
	// none.
	Validated []proto.File
	// Opener opens the files. Defaults to files of this machine.
	Opener inputfile.Opener
	// Stdin is set if the one file is a copy of standard input. Defaults to false.
	Stdin bool
	// Prompts is set if the command takes --prompt, so that a table needs no conversion. Defaults to false.
	Prompts bool
	// Submitted is set if the run is submitted, so that other machines read its rows. Defaults to false.
	Submitted bool
}

// name returns the name of a file as a person knows it.
func (in Input) name(path string) string {
	if in.Stdin && slices.Contains(in.Files, path) {
		return "standard input"
	}
	return files.Short(path)
}

// Describe returns an error of reading the input with exit code 2 and a hint, if the input is at
// fault. Any other error is returned as it is.
func (in Input) Describe(err error) error {
	if format, ok := errors.AsType[*producer.FormatError](err); ok {
		named := *format
		named.File = in.name(format.File)
		return in.hintForFormat(format).usage("%w", &named)
	}

	if template, ok := errors.AsType[*prompt.TemplateError](err); ok {
		return in.describeTemplate(template)
	}

	if format, ok := errors.AsType[*table.FormatError](err); ok {
		named := *format
		named.File = in.name(format.File)
		return in.hintForNoTable(format).usage("%w", &named)
	}

	if file, ok := errors.AsType[*table.FileError](err); ok {
		named := *file
		named.File = in.name(file.File)
		return exit.Usage("", "%w", &named)
	}

	if filler, ok := errors.AsType[*producer.FillerError](err); ok {
		named := *filler
		named.File = in.name(filler.File)
		return exit.Usage("remove the blank lines", "%w", &named)
	}

	if described, ok := errors.AsType[*exit.Error](err); ok { // by the store of a URL
		if slices.ContainsFunc(in.Files, func(file string) bool { return strings.HasPrefix(described.Error(), file) }) {
			return described
		}
		return err
	}

	damage, damaged := errors.AsType[*jsonl.DamageError](err)
	switch {
	case errors.Is(err, producer.ErrEmpty) && len(in.Files) == 1 && isJournal(in.Files[0]):
		return hintForOutput(in.Files[0]).usage("%s is the journal of a run without answers", in.names())
	case errors.Is(err, producer.ErrNoRows):
		return exit.Usage("it needs a row for each request, and CSV the names of its columns before them",
			"%s: %w", in.names(), err)
	case errors.Is(err, producer.ErrEmpty):
		return exit.Usage(`it needs one request a line, such as {"prompt": "..."}`,
			"%s: %w", in.names(), err)
	case damaged:
		return in.hintForDamage(damage).usage("%s: %w", in.name(damage.File), damage)
	case errors.Is(err, proto.ErrInputChanged):
		return exit.WithHint(err, "run the same command again when no program writes the input")
	case errors.Is(err, fs.ErrNotExist):
		return missingFile(in.name(pathOf(err)))
	case errors.Is(err, fs.ErrPermission):
		return exit.Usage("let this user read it", "input %s: permission denied", in.name(pathOf(err)))
	}

	return err
}

// names lists the files.
func (in Input) names() string {
	var names []string
	for _, path := range in.Files {
		names = append(names, in.name(path))
	}
	return strings.Join(names, ", ")
}

// pathOf returns the path in an error of the file system.
func pathOf(err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Path
	}
	return ""
}

// hintForFormat returns the way from a file of another format to requests.
func (in Input) hintForFormat(e *producer.FormatError) hint {
	switch e.Format {
	case fileformat.Results, fileformat.Failures, fileformat.Metadata:
		return hintForOutput(e.File)
	}

	if in.Prompts {
		if h, ok := in.hintForTable(e); ok {
			return h
		}
	}

	c := conversionOf(e.Detection)
	if in.Stdin {
		return c.hintForStdin()
	}

	return c.hint(files.Short(e.File), e.Compression)
}

// hintForDamage returns the way to a file that can be unpacked.
func (in Input) hintForDamage(e *jsonl.DamageError) hint {
	unpacker := conversion{verb: "unpack", command: "zstd -dc --long=31"}
	switch {
	case e.Window && in.Stdin:
		return unpacker.hintForStdin()
	case e.Window:
		return unpacker.hint(files.Short(e.File), "")
	case in.Stdin:
		return hint{text: "check the command that writes it"}
	}

	return hint{text: "copy or download it again"}
}
