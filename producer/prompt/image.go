package prompt

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

// maxImage is the size of the largest image, in bytes.
const maxImage = 32 << 20

// appendImage appends the URL of the image of a column as a JSON string.
func (r *Renderer) appendImage(dst []byte, column int) ([]byte, error) {
	r.flag = imageFlag
	v := r.value(column)
	name := r.names[column]
	switch {
	case v.IsEmpty():
		return dst, newEmptyError(name)
	case v.Kind == table.KindBytes:
		return appendDataURL(dst, name, "it", v.Text)
	case v.Kind == table.KindText:
		return r.appendImageAt(dst, column, string(v.Text))
	case v.Kind != table.KindJSON:
		return dst, &CellError{Column: name, Reason: "it has no image, path or URL"}
	}

	// Data sets of Hugging Face have both, of which one may be null.
	var image struct {
		Bytes []byte  `json:"bytes"`
		Path  *string `json:"path"`
	}

	err := json.Unmarshal(v.Text, &image)
	switch {
	case err == nil && len(image.Bytes) > 0:
		return appendDataURL(dst, name, "it", image.Bytes)
	case err == nil && image.Path != nil && *image.Path != "":
		return r.appendImageAt(dst, column, *image.Path)
	}

	return dst, &CellError{Column: name, Reason: "it is no object with the bytes or the path of an image"}
}

// appendImageAt appends the URL of the image at a path or a URL.
func (r *Renderer) appendImageAt(dst []byte, column int, at string) ([]byte, error) {
	at = strings.TrimSpace(at)
	scheme, _, isURL := strings.Cut(at, ":")
	scheme = strings.ToLower(scheme)
	if isURL && (scheme == "http" || scheme == "https" || scheme == "data") { // the model server reads it
		return r.appendString(dst, []byte(at), []int{column})
	}

	if r.noFiles {
		return dst, &CellError{
			Column: r.names[column],
			Reason: at + " is a file, which other machines cannot read",
		}
	}

	path := r.resolvePath(at)
	data, err := r.readImage(path)
	if cell, ok := errors.AsType[*CellError](err); ok {
		cell.Column = r.names[column]
	}

	if err != nil {
		return dst, err
	}

	return appendDataURL(dst, r.names[column], path, data)
}

// resolvePath returns a path relative to the folder of the table's file.
func (r *Renderer) resolvePath(path string) string {
	switch {
	case strings.Contains(path, "://"):
		return path
	case strings.Contains(r.file, "://"):
		file := r.file
		if strings.HasPrefix(file, "http") {
			file, _, _ = strings.Cut(file, "?") // a query may have slashes
		}
		return file[:strings.LastIndexByte(file, '/')+1] + strings.TrimPrefix(path, "./")
	case filepath.IsAbs(path):
		return path
	}

	return filepath.Join(filepath.Dir(r.file), path)
}

// readImage reads the file of an image.
func (r *Renderer) readImage(path string) ([]byte, error) {
	f, err := r.opener.Open(r.ctx, proto.File{Path: path})
	pathErr, isPath := errors.AsType[*fs.PathError](err)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		return nil, &CellError{Reason: "there is no file " + path}
	case errors.Is(err, fs.ErrPermission):
		return nil, &CellError{Reason: path + " may not be read"}
	case isPath:
		return nil, &CellError{Reason: fmt.Sprintf("%s: %v", path, pathErr.Err)}
	default:
		return nil, fmt.Errorf("read image %s: %w", path, err)
	}

	defer f.Close()

	if f.Size() > maxImage {
		return nil, newSizeError("", path)
	}

	data, err := io.ReadAll(io.LimitReader(f, maxImage+1))
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", path, err)
	}

	return data, nil
}

// appendDataURL appends an image as a data URL. what names the image in errors.
func appendDataURL(dst []byte, column, what string, data []byte) ([]byte, error) {
	if len(data) > maxImage {
		return dst, newSizeError(column, what)
	}

	kind := imageType(data)
	if kind == "" {
		return dst, &CellError{Column: column, Reason: what + " is no PNG, JPEG, GIF or WebP image"}
	}

	dst = append(dst, `"data:image/`...)
	dst = append(dst, kind...)
	dst = append(dst, ";base64,"...)
	dst = base64.StdEncoding.AppendEncode(dst, data)

	return append(dst, '"'), nil
}

// newSizeError returns the error of an image that is too large.
func newSizeError(column, what string) *CellError {
	return &CellError{Column: column, Reason: fmt.Sprintf("%s is an image of more than %d MiB", what, maxImage>>20)}
}

// imageType returns the type of an image by its first bytes, empty if it is not one that model
// servers read.
func imageType(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		return "png"
	case bytes.HasPrefix(data, []byte("\xff\xd8\xff")):
		return "jpeg"
	case bytes.HasPrefix(data, []byte("GIF87a")), bytes.HasPrefix(data, []byte("GIF89a")):
		return "gif"
	case len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP":
		return "webp"
	}

	return ""
}
