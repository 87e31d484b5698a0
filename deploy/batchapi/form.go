package batchapi

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxField is the most bytes of a field of a form that is no file.
const maxField = 64 << 10

// form reads the parts of a form as they come, in any order.
type form struct {
	// fileField is the name of the field that has the file.
	fileField string
	// fields are the names of the other fields that are wanted. Fields that are not wanted are ignored.
	fields []string

	body   *tailReader
	end    []byte // the delimiter that ends the form
	reader *multipart.Reader
	values map[string]string
}

// openForm opens the form of a request.
func openForm(r *http.Request, fileField string, fields ...string) (*form, error) {
	const usage = "send a form of the type multipart/form-data, with the file in the field %s."

	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err != nil || kind != "multipart/form-data":
		return nil, refuse("", "The body is no form: "+usage, fileField)
	case params["boundary"] == "":
		return nil, refuse("", "The content type has no boundary: "+usage, fileField)
	}

	body := &tailReader{Reader: r.Body}

	return &form{
		fileField: fileField,
		fields:    fields,
		body:      body,
		end:       []byte("--" + params["boundary"] + "--"),
		reader:    multipart.NewReader(bufio.NewReaderSize(body, 256<<10), params["boundary"]),
		values:    map[string]string{},
	}, nil
}

// nextFile returns the file of the form and its name as the client wrote it, or an error if the form
// has none. The fields before it are in values afterwards.
func (f *form) nextFile() (*multipart.Part, error) {
	part, err := f.nextPart()
	switch {
	case errors.Is(err, io.EOF):
		return nil, refuse(f.fileField, "The form has no file: the field %s is missing.", f.fileField)
	case err != nil:
		return nil, err
	case part.FileName() == "":
		return nil, refuse(f.fileField, "The field %s has no file name, so it is no file: "+
			"with curl, write -F %s=@PATH.", f.fileField, f.fileField)
	}

	return part, nil
}

// finish reads the rest of the form. Its fields are in values afterwards.
func (f *form) finish() error {
	part, err := f.nextPart()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}

	return refuse(part.FormName(), "The form has more than one file in the field %s: send one request for each.",
		f.fileField)
}

// nextPart reads fields until the next file, or io.EOF at the end of the form.
func (f *form) nextPart() (*multipart.Part, error) {
	for {
		part, err := f.reader.NextRawPart()
		switch {
		case err == io.EOF && bytes.Contains(f.body.tail, f.end): //nolint:errorlint // a wrapped one is no end
			return nil, io.EOF
		case err != nil:
			return nil, describeFormError(err)
		}

		name := part.FormName()
		if name == f.fileField {
			return part, nil
		}

		if !slices.Contains(f.fields, name) {
			continue
		}

		value, err := io.ReadAll(io.LimitReader(part, maxField+1))
		switch _, twice := f.values[name]; {
		case err != nil:
			return nil, describeFormError(err)
		case twice:
			return nil, refuse(name, "The form has the field %s twice.", name)
		case len(value) > maxField:
			return nil, refuse(name, "The field %s is longer than %d KiB.", name, maxField>>10)
		}
		f.values[name] = string(value)
	}
}

// maxTail is more than a form has behind its last part.
const maxTail = 8 << 10

// tailReader keeps the last bytes that were read: package mime/multipart returns the same error for the
// end of a form and for a body that ends in the header of a part.
type tailReader struct {
	io.Reader

	tail []byte
}

// Read implements io.Reader.
func (r *tailReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.tail = append(r.tail, p[max(n-maxTail, 0):n]...)
	if len(r.tail) > 2*maxTail {
		r.tail = append(r.tail[:0], r.tail[len(r.tail)-maxTail:]...)
	}

	return n, err
}

// describeFormError returns the error of a body that is no form, or ends in the middle of one.
func describeFormError(err error) error {
	if isCutOff(err) {
		return refuse("", "The body ends in the middle of the form, and nothing was stored: send it again.")
	}
	return refuse("", "The body is no well-formed multipart/form-data with the boundary of its header.")
}

// isCutOff reports whether a body has ended before its end. A fault of the disk is none: the number that
// the system gives to it counts as a net.Error.
func isCutOff(err error) bool {
	if _, disk := errors.AsType[*fs.PathError](err); disk {
		return false
	}
	_, network := errors.AsType[net.Error](err)

	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// cleanFilename returns the last part of a name that a client gave, without control characters, and
// of bounded length. It is a label, and no path.
func cleanFilename(name string) string {
	const longest = 255 // bytes, as in file systems

	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name)

	for len(name) > longest {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}

	return name
}
