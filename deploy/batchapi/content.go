package batchapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
)

// Output is the text of an output file, see content.Content.
type Output interface {
	// Size is the number of bytes, of whole lines.
	Size() int64
	Lines() int64
	// Complete reports that the run has ended and the text is final.
	Complete() bool
	CopyRange(ctx context.Context, w io.Writer, offset, n int64) error
	// Packed returns the zstd file of a complete output.
	Packed() (*os.File, bool)
	Close() error
}

// The headers of the output of a batch that has not ended.
const (
	// headerIncomplete is true if more lines will come.
	headerIncomplete = "X-Incomplete"
	// headerLastLine is the number of the last line of the file in this answer, from 1. It is absent if
	// the answer ends before the lines that are there.
	headerLastLine = "X-Last-Line"
)

// contentOutput answers with bytes.
type contentOutput struct{ Body func(huma.Context) }

// getContent answers the bytes of a file.
func (s *server) getContent(ctx context.Context, in *fileInput) (*contentOutput, error) {
	x := exchangeOf(ctx)

	file, isOutput, err := s.findFile(x, in.ID)
	if err != nil {
		return nil, err
	}

	if !isOutput {
		return s.answerInput(x, file)
	}

	out, _, err := s.batches.OpenOutput(file.ID)
	if errors.Is(err, filestore.ErrNotFound) {
		return nil, noSuchFile(file.ID)
	}
	if err != nil {
		return nil, err
	}

	return s.answerOutput(ctx, x, file, out)
}

// answerInput answers the bytes of a file that a client has uploaded.
func (s *server) answerInput(x *exchange, file filestore.File) (*contentOutput, error) {
	data, file, err := s.files.Open(file.ID)
	if errors.Is(err, filestore.ErrNotFound) {
		return nil, noSuchFile(file.ID)
	}
	if err != nil {
		return nil, err
	}

	header := http.Header{}
	setContentHeader(header, file.Filename)
	header.Set("ETag", `"`+file.SHA256+`"`)

	part, status, refused := choosePart(x.request, header, file.Bytes)
	if refused != nil {
		data.Close()
		return nil, refused
	}

	return &contentOutput{func(huma.Context) {
		defer data.Close()
		s.sendBody(x, file.ID, status, header, func(w io.Writer) error { return copyFile(w, data, part) })
	}}, nil
}

// copyFile copies a part of a file, in the kernel where that is possible.
func copyFile(w io.Writer, file *os.File, part byteRange) error {
	if _, err := file.Seek(part.offset, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(w, file, part.length)

	return err
}

// abortShort cuts the connection if a handler has written less than it has announced: a client must
// not take the part for the whole.
func (s *server) abortShort(x *exchange) {
	announced, err := strconv.ParseInt(x.writer.Header().Get("Content-Length"), 10, 64)
	if err == nil && x.request.Method != http.MethodHead && x.writer.written < announced {
		panic(http.ErrAbortHandler)
	}
}

// answerOutput answers the text of an output, and closes it.
func (s *server) answerOutput(
	ctx context.Context, x *exchange, file filestore.File, out Output,
) (*contentOutput, error) {
	header := http.Header{}
	setContentHeader(header, file.Filename)
	if !out.Complete() {
		header.Set(headerIncomplete, "true")
		header.Set("Cache-Control", "no-store")
	}

	packed := describePacked(out)
	if packed != nil {
		header.Set("Vary", "Accept-Encoding")
		header.Set("ETag", formatETag(file.ID, packed, ""))
	}

	part, status, refused := choosePart(x.request, header, out.Size())
	if refused != nil {
		if !out.Complete() {
			refused.with(headerLastLine, strconv.FormatInt(out.Lines(), 10))
		}
		out.Close()
		return nil, refused
	}

	if !out.Complete() && part.offset+part.length == out.Size() {
		header.Set(headerLastLine, strconv.FormatInt(out.Lines(), 10))
	}

	copyBody := func(w io.Writer) error { return out.CopyRange(ctx, w, part.offset, part.length) }

	if packed != nil && status == http.StatusOK && acceptsZstd(x.request.Header.Values("Accept-Encoding")) {
		header.Set("Content-Encoding", "zstd")
		header.Set("ETag", formatETag(file.ID, packed, "-zstd"))
		header.Set("Content-Length", strconv.FormatInt(packed.Size(), 10))
		copyBody = func(w io.Writer) error {
			file, _ := out.Packed()
			return copyFile(w, file, byteRange{length: packed.Size()})
		}
	}

	return &contentOutput{func(huma.Context) {
		defer out.Close()
		s.sendBody(x, file.ID, status, header, copyBody)
	}}, nil
}

// describePacked describes the zstd file of a complete output, nil if there is none.
func describePacked(out Output) fs.FileInfo {
	packed, ok := out.Packed()
	if !ok {
		return nil
	}

	info, err := packed.Stat()
	if err != nil {
		return nil // the text is sent
	}

	return info
}

// formatETag returns the entity tag of a complete output. Failed requests that run again change it.
func formatETag(id string, packed fs.FileInfo, encoding string) string {
	return fmt.Sprintf(`"%s-%x-%x%s"`, id, packed.ModTime().UnixNano(), packed.Size(), encoding)
}

// choosePart returns the part of a file that a request asks for, with the status of the answer. It
// describes the part in the header.
func choosePart(r *http.Request, header http.Header, size int64) (byteRange, int, *failure) {
	whole := byteRange{length: size}
	header.Set("Accept-Ranges", "bytes")
	header.Set("Content-Length", strconv.FormatInt(size, 10))

	asked := r.Header.Get("Range")
	if asked == "" || !rangeApplies(r, header.Get("ETag")) {
		return whole, http.StatusOK, nil
	}

	switch part, kind := parseRange(asked, size); kind {
	case partOfFile:
		header.Set("Content-Range", part.contentRange(size))
		header.Set("Content-Length", strconv.FormatInt(part.length, 10))

		return part, http.StatusPartialContent, nil
	case outsideFile:
		refused := newFailure(http.StatusRequestedRangeNotSatisfiable, "", "range_not_satisfiable",
			"The range %q is not in the file, which has %d bytes now.", asked, size).
			with("Content-Range", fmt.Sprintf("bytes */%d", size))
		if incomplete := header.Get(headerIncomplete); incomplete != "" {
			refused.with(headerIncomplete, incomplete)
		}

		return whole, 0, refused
	}

	return whole, http.StatusOK, nil
}

// rangeApplies reports whether the range of a request is meant for the file as it is.
func rangeApplies(r *http.Request, etag string) bool {
	condition := r.Header.Get("If-Range")
	return condition == "" || etag != "" && condition == etag
}

// sendBody sends the header, and unless the client asks for that alone, the body. If not even the
// first bytes can be read, the answer is an error.
func (s *server) sendBody(x *exchange, id string, status int, header http.Header, copyBody func(io.Writer) error) {
	earlier := x.writer.Header().Clone()
	maps.Copy(x.writer.Header(), header)
	x.writer.status = status

	if x.request.Method == http.MethodHead {
		x.writer.begin()
		return
	}

	err := copyBody(x.writer)
	if err != nil && x.request.Context().Err() == nil {
		s.logError(x.request).Err(err).Str("file", id).Msg("failed to read a file that is being sent")
	}

	switch {
	case err == nil:
		x.writer.begin() // there may be no bytes
		s.abortShort(x)
	case x.writer.started:
		panic(http.ErrAbortHandler)
	default:
		clear(x.writer.Header())
		maps.Copy(x.writer.Header(), earlier)
		newFailure(http.StatusInternalServerError, "", "",
			"The server failed to read the file. Its log has the reason.").write(x.writer)
	}
}

// setContentHeader describes bytes that a client has chosen: a browser stores them, and shows or runs
// nothing of them.
func setContentHeader(header http.Header, filename string) {
	header.Set("Content-Type", "application/octet-stream")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": filename}))
}

// acceptsZstd reports whether the header Accept-Encoding has zstd, not only as "any".
func acceptsZstd(headers []string) bool {
	for element := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		coding, params, _ := strings.Cut(element, ";")
		if !strings.EqualFold(strings.TrimSpace(coding), "zstd") {
			continue
		}

		name, weight, _ := strings.Cut(strings.TrimSpace(params), "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			return true
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)

		return err == nil && q > 0
	}

	return false
}

// describeContent describes the answers with the bytes of a file.
func describeContent() map[string]*huma.Response {
	body := map[string]*huma.MediaType{
		"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}},
	}

	return map[string]*huma.Response{
		"200": {Description: "The bytes.", Headers: describeIncomplete(), Content: body},
		"206": {Description: "The bytes that the header Range asks for.", Headers: describeIncomplete(), Content: body},
	}
}

// describeIncomplete describes the headers of the output of a batch that has not ended.
func describeIncomplete() map[string]*huma.Header {
	return map[string]*huma.Header{
		headerIncomplete: {
			Description: "true if the batch has not ended, and more lines will come.",
			Schema:      &huma.Schema{Type: "string"},
		},
		headerLastLine: {
			Description: "The number of the last line of the file in this answer, from 1, while the batch has not ended. " +
				"Absent if the answer ends before the lines that are there.",
			Schema: &huma.Schema{Type: "integer"},
		},
	}
}
