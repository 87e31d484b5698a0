package objectstore

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
)

// gcsChunk is the size of the parts of an upload to Google Cloud Storage. It must be a multiple
// of 256 KiB.
const gcsChunk = 16 << 20

// partTimeout is the limit for sending one part.
const partTimeout = 10 * time.Minute

// maxSessions is the number of times that one upload to Google Cloud Storage begins. A store keeps
// an upload for a week, so a second one is rare.
const maxSessions = 4

// errUploadGone reports that the store does not know an upload any more.
var errUploadGone = errors.New("the store has forgotten the upload")

// Describe implements writableStore.
func (g *gcsStore) Describe(ctx context.Context, key string) (Object, error) {
	o, err := g.describe(ctx, key)
	return Object{
		Key:      key,
		Size:     o.object().Size,
		Metadata: lowerKeys(o.Metadata),
	}, err
}

// Delete implements writableStore.
func (g *gcsStore) Delete(ctx context.Context, key string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodDelete, g.address(key, nil), nil)
	if err != nil {
		return exit.Usage("", "%s is not a URL", g.name(key))
	}

	answer, err := g.do(request, key)
	if err != nil {
		return err
	}

	return answer.Body.Close()
}

// AbortUploads implements writableStore. The store does not list uploads, and forgets them
// after a week.
func (g *gcsStore) AbortUploads(context.Context, string, func(key string) bool) error { return nil }

// gcsUpload is an upload to Google Cloud Storage.
type gcsUpload struct {
	newObject

	store *gcsStore
	// crc32c is the checksum of the file, as the API has it.
	crc32c string

	// session is the URL of the upload. Empty: it has not begun.
	session string
	// sessions is the number of times that the upload has begun.
	sessions int
	// offset is the number of bytes that the store has.
	offset int64
	// unsure reports that the offset must be asked for.
	unsure bool
}

// Upload implements writableStore.
func (g *gcsStore) Upload(ctx context.Context, f newObject) error {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	if n, err := io.Copy(sum, io.NewSectionReader(f.file, 0, f.size)); err != nil || n != f.size {
		return errors.Join(fmt.Errorf("%s: the file to upload has %d bytes, not %d", g.name(f.key), n, f.size), err)
	}

	u := &gcsUpload{
		newObject: f,
		store:     g,
		crc32c:    base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum.Sum32())),
	}

	err := u.run(ctx)
	if err != nil && u.session != "" {
		u.cancel(ctx)
	}

	return err
}

// run sends one part after the other. The attempts begin again with each part that arrives.
func (u *gcsUpload) run(ctx context.Context) error {
	for done := false; !done; {
		err := u.store.retry.retry(ctx, u.store.name(u.key), func() (err error) {
			done, err = u.step(ctx)
			return err
		})
		if err != nil {
			return err
		}
	}

	return nil
}

// step makes one attempt to send the next part, and begins the upload first, or asks where it
// stands, if need be. It reports whether the object is there. A part from which the store keeps
// nothing has failed.
func (u *gcsUpload) step(ctx context.Context) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()

	if u.session == "" {
		if err := u.begin(ctx); err != nil {
			return false, err
		}
	}

	if u.unsure {
		if done, err = u.askOffset(ctx); err != nil || done {
			return done, u.noteFailure(err)
		}
	}

	before := u.offset
	if done, err = u.sendPart(ctx); err == nil && !done && u.offset <= before {
		err = &temporaryError{err: fmt.Errorf("the store keeps %d bytes of the file, and takes no more", u.offset)}
	}

	return done, u.noteFailure(err)
}

// noteFailure notes how the next attempt begins.
func (u *gcsUpload) noteFailure(err error) error {
	u.unsure = err != nil && u.session != ""
	if errors.Is(err, errUploadGone) {
		u.restart()
		return &temporaryError{err: err}
	}

	return err
}

// restart has the next attempt begin the upload again.
func (u *gcsUpload) restart() { u.session, u.offset, u.unsure = "", 0, false }

// sendPart sends the next part. A file whose bytes the store has already, and an empty one, have
// none.
func (u *gcsUpload) sendPart(ctx context.Context) (done bool, err error) {
	length := min(gcsChunk, u.size-u.offset)
	if length == 0 {
		return u.askOffset(ctx)
	}

	return u.put(ctx, fmt.Sprintf("bytes %d-%d/%d", u.offset, u.offset+length-1, u.size),
		io.NewSectionReader(u.file, u.offset, length), length)
}

// askOffset asks how much of the file the store has. If it has all, it makes the object.
func (u *gcsUpload) askOffset(ctx context.Context) (done bool, err error) {
	return u.put(ctx, fmt.Sprintf("bytes */%d", u.size), http.NoBody, 0)
}

// begin begins the upload.
func (u *gcsUpload) begin(ctx context.Context) error {
	if u.sessions == maxSessions {
		return exit.Unreachable(fmt.Errorf("%s: the upload was begun %d times, and the store has not made the object",
			u.store.name(u.key), u.sessions), "run the same command again")
	}

	text, err := json.Marshal(gcsObject{
		Name:     u.key,
		CRC32C:   u.crc32c,
		Metadata: u.metadata,
	})
	if err != nil {
		return err
	}

	query := url.Values{"uploadType": {"resumable"}, "name": {u.key}}
	if u.absent {
		query.Set("ifGenerationMatch", "0")
	}

	address := u.store.base + "/upload/storage/v1/b/" + url.PathEscape(u.store.bucket) + "/o?" + query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(text))
	if err != nil {
		return exit.Usage("", "%s is not a URL", u.store.name(u.key))
	}

	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Upload-Content-Type", "application/octet-stream")
	request.Header.Set("X-Upload-Content-Length", strconv.FormatInt(u.size, 10))

	answer, err := u.store.do(request, "")
	if err != nil {
		return err
	}

	answer.Body.Close()

	if u.session = answer.Header.Get("Location"); u.session == "" {
		return &temporaryError{err: errors.New("the store begins an upload without a place for it")}
	}

	u.sessions++

	return nil
}

// put sends a part, or asks for the offset, and notes the offset that the store answers.
func (u *gcsUpload) put(ctx context.Context, contentRange string, body io.Reader, length int64) (bool, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, u.session, body)
	if err != nil {
		return false, exit.Usage("", "%s is not a URL", u.store.name(u.key))
	}

	request.ContentLength = length
	request.Header.Set("Content-Range", contentRange)

	answer, err := u.store.client(ctx).Do(request)
	if err != nil {
		return false, describeTokenFailure(u.store.name(u.key), err)
	}
	defer answer.Body.Close()

	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return false, connectionFailure(err)
	}

	switch answer.StatusCode {
	case http.StatusPermanentRedirect: // the store has a part
		return false, u.noteOffset(answer.Header.Get("Range"))
	case http.StatusOK, http.StatusCreated:
		return true, u.checkObject(text)
	case http.StatusNotFound, http.StatusGone:
		return false, errUploadGone
	}

	return false, u.store.describeRefusal(answer, u.key, text)
}

// noteOffset notes what the store has: "bytes=0-99".
func (u *gcsUpload) noteOffset(has string) error {
	_, last, found := strings.Cut(has, "-")
	if !found {
		u.offset = 0
		return nil
	}

	n, err := strconv.ParseInt(last, 10, 64)
	if err != nil || n < 0 || n >= u.size {
		return &temporaryError{err: fmt.Errorf("the store has the range %q of %d bytes", has, u.size)}
	}

	u.offset = n + 1

	return nil
}

// checkObject compares the object that the store has made with the file.
func (u *gcsUpload) checkObject(text []byte) error {
	var made gcsObject
	if json.Unmarshal(text, &made) != nil || made.Size == "" { // the object is there: ask for it
		return &temporaryError{err: errors.New("the store does not describe the object that was uploaded")}
	}

	if made.object().Size != u.size || made.CRC32C != u.crc32c {
		u.restart()
		return &temporaryError{err: fmt.Errorf("the store has %s bytes with the CRC32C %s, not %d with %s", made.Size,
			made.CRC32C, u.size, u.crc32c)}
	}

	return nil
}

// cancel discards the upload. A failure costs nothing but room in the store, for a week.
func (u *gcsUpload) cancel(ctx context.Context) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()

	request, err := http.NewRequestWithContext(ctx, http.MethodDelete, u.session, nil)
	if err != nil {
		return
	}

	if answer, err := u.store.client(ctx).Do(request); err == nil {
		answer.Body.Close()
	}
}
