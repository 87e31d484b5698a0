package objectstore

import (
	"cmp"
	"context"
	"crypto/md5" //nolint:gosec // the API of S3 has it as its checksum
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"
)

const (
	// s3Part is the least size of the parts of an upload to S3. The API allows 5 MiB and more.
	s3Part = 16 << 20
	// s3MaxParts is the most parts that an upload may have.
	s3MaxParts = 10_000
	// s3Parallel is the number of parts that are sent at a time.
	s3Parallel = 4
)

// Describe implements writableStore.
func (s *s3Store) Describe(ctx context.Context, key string) (Object, error) {
	info, err := s.statInfo(ctx, key)
	if err != nil {
		return Object{}, err
	}

	return Object{
		Key:      key,
		Size:     info.Size,
		Metadata: lowerKeys(info.UserMetadata),
	}, nil
}

// statInfo describes an object with its metadata. Like Stat it asks for the first byte.
func (s *s3Store) statInfo(ctx context.Context, key string) (minio.ObjectInfo, error) {
	opts := minio.GetObjectOptions{}
	opts.Set("Range", formatRange(part{Length: 1}))

	body, info, header, err := s.client.GetObject(ctx, s.bucket, key, opts)
	if err != nil && minio.ToErrorResponse(err).StatusCode == http.StatusRequestedRangeNotSatisfiable {
		info, err = s.client.StatObject(ctx, s.bucket, key, minio.StatObjectOptions{}) // it is empty
		return info, s.describeError(err, key)
	}
	if err != nil {
		return info, s.describeError(err, key)
	}
	body.Close()

	var found object
	err = describeRange(&found, s.name(key), part{Length: 1}, header.Get("Content-Range"), info.Size)
	info.Size = found.Size

	return info, err
}

// Delete implements writableStore.
func (s *s3Store) Delete(ctx context.Context, key string) error {
	err := s.client.RemoveObject(ctx, s.bucket, key, minio.RemoveObjectOptions{})
	return s.describeError(err, key)
}

// AbortUploads implements writableStore.
func (s *s3Store) AbortUploads(ctx context.Context, prefix string, chosen func(key string) bool) error {
	var keyMarker, idMarker string
	for {
		list, err := s.client.ListMultipartUploads(ctx, s.bucket, prefix, keyMarker, idMarker, "", 1000)
		if err != nil {
			return s.describeError(err, prefix+"*")
		}

		for _, u := range list.Uploads {
			if !chosen(u.Key) {
				continue
			}

			err := s.client.AbortMultipartUpload(ctx, s.bucket, u.Key, u.UploadID)
			if err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchUpload {
				return s.describeError(err, u.Key)
			}
		}

		if !list.IsTruncated {
			return nil
		}

		keyMarker, idMarker = list.NextKeyMarker, list.NextUploadIDMarker
	}
}

// Upload implements writableStore.
func (s *s3Store) Upload(ctx context.Context, f newObject) error {
	if f.size <= s3Part {
		return s.retry.retry(ctx, s.name(f.key), func() error { return s.putObject(ctx, f) })
	}

	u := &s3Upload{
		newObject: f,
		store:     s,
		part:      max(s3Part, (f.size+s3MaxParts-1)/s3MaxParts),
	}

	return u.run(ctx)
}

// putObject makes one attempt to write a small object.
func (s *s3Store) putObject(ctx context.Context, f newObject) error {
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()

	sum, err := hashSection(f.file, 0, f.size)
	if err != nil {
		return fmt.Errorf("%s: read the file to upload: %w", s.name(f.key), err)
	}

	put := func(opts minio.PutObjectOptions) error {
		_, err := s.client.PutObject(ctx, s.bucket, f.key, io.NewSectionReader(f.file, 0, f.size), f.size,
			base64.StdEncoding.EncodeToString(sum), "", opts)
		return err
	}

	return s.describeError(f.sendCondition(putOptions(f.metadata), put), f.key)
}

// putOptions returns the options of an object with metadata.
func putOptions(metadata map[string]string) minio.PutObjectOptions {
	return minio.PutObjectOptions{
		UserMetadata:     metadata,
		ContentType:      "application/octet-stream",
		DisableMultipart: true,
	}
}

// sendCondition sends the request that makes an object appear, with the condition that none has
// the key. It sends the request without it to a server that knows no conditions.
func (f newObject) sendCondition(opts minio.PutObjectOptions, send func(minio.PutObjectOptions) error) error {
	if !f.absent {
		return send(opts)
	}

	conditional := opts
	conditional.SetMatchETagExcept("*")
	err := send(conditional)
	if minio.ToErrorResponse(err).StatusCode == http.StatusNotImplemented {
		return send(opts)
	}

	return err
}

// hashSection returns the MD5 of a part of a file.
func hashSection(file io.ReaderAt, offset, length int64) ([]byte, error) {
	hash := md5.New() //nolint:gosec // see the import
	n, err := io.Copy(hash, io.NewSectionReader(file, offset, length))
	if err == nil && n != length {
		err = io.ErrUnexpectedEOF
	}

	return hash.Sum(nil), err
}

// s3Upload is an upload to S3 in several parts.
type s3Upload struct {
	newObject

	store *s3Store
	part  int64 // the size of all parts but the last one

	id string
	// parts are the parts that the store has.
	parts []minio.CompletePart
	// sums are their checksums.
	sums [][]byte
}

// run uploads all parts, and completes the object or discards the parts.
func (u *s3Upload) run(ctx context.Context) error {
	s := u.store
	err := s.retry.retry(ctx, s.name(u.key), func() (err error) {
		// MinIO lists uploads of whole keys only. A store or a user that cannot list them can still upload.
		err = s.AbortUploads(ctx, u.key, func(key string) bool { return key == u.key })
		if _, ok := errors.AsType[*temporaryError](err); ok {
			return err
		}

		u.id, err = s.client.NewMultipartUpload(ctx, s.bucket, u.key, putOptions(u.metadata))
		return s.describeError(err, u.key)
	})
	if err != nil {
		return err
	}

	if err = u.sendParts(ctx); err == nil {
		err = u.complete(ctx)
	}
	if err != nil {
		u.abort(ctx)
	}

	return err
}

// sendParts sends all parts, several at a time.
func (u *s3Upload) sendParts(ctx context.Context) error {
	count := int((u.size + u.part - 1) / u.part)
	u.parts, u.sums = make([]minio.CompletePart, count), make([][]byte, count)

	group, sending := errgroup.WithContext(ctx)
	group.SetLimit(s3Parallel)

	for i := range count {
		group.Go(func() error {
			return u.store.retry.retry(sending, u.store.name(u.key), func() error { return u.sendPart(sending, i) })
		})
	}

	return group.Wait()
}

// sendPart makes one attempt to send a part. The store compares its MD5.
func (u *s3Upload) sendPart(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()

	offset := int64(i) * u.part
	length := min(u.part, u.size-offset)
	sum, err := hashSection(u.file, offset, length)
	if err != nil {
		return fmt.Errorf("%s: read the file to upload: %w", u.store.name(u.key), err)
	}

	part, err := u.store.client.PutObjectPart(ctx, u.store.bucket, u.key, u.id, i+1,
		io.NewSectionReader(u.file, offset, length), length, minio.PutObjectPartOptions{
			Md5Base64: base64.StdEncoding.EncodeToString(sum),
		})
	if err != nil {
		return u.store.describeError(err, u.key)
	}

	u.parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: part.ETag}
	u.sums[i] = sum

	return nil
}

// complete makes the object of the parts, and compares it with the file. An attempt whose
// answer was lost has made it, and the next one finds no upload.
func (u *s3Upload) complete(ctx context.Context) error {
	s := u.store
	var gone error

	err := s.retry.retry(ctx, s.name(u.key), func() error {
		ctx, cancel := context.WithTimeout(ctx, partTimeout)
		defer cancel()

		err := u.sendCondition(minio.PutObjectOptions{}, func(opts minio.PutObjectOptions) error {
			_, err := s.client.CompleteMultipartUpload(ctx, s.bucket, u.key, u.id, u.parts, opts)
			return err
		})
		if err != nil && minio.ToErrorResponse(err).Code == minio.NoSuchUpload {
			gone = s.describeError(err, u.key)
			return nil
		}

		return s.describeError(err, u.key)
	})
	if err != nil {
		return err
	}

	if err := u.checkObject(ctx); err != nil {
		return cmp.Or(gone, err)
	}

	return nil
}

// checkObject compares the object with the file: its size, its metadata, and its ETag if the store
// makes that of the MD5s of the parts, as S3 does unless it encrypts with a key of KMS.
func (u *s3Upload) checkObject(ctx context.Context) error {
	var info minio.ObjectInfo
	err := u.store.retry.retry(ctx, u.store.name(u.key), func() (err error) {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()

		info, err = u.store.statInfo(ctx, u.key)

		return err
	})
	if err != nil {
		return err
	}

	if info.Size != u.size {
		return fmt.Errorf("%s: the store has made an object of %d bytes, not %d",
			u.store.name(u.key), info.Size, u.size)
	}

	if want := u.etag(); want != "" && strings.Contains(info.ETag, "-") && trimQuotes(info.ETag) != want {
		return fmt.Errorf("%s: the store has made an object with the ETag %s, not %s", u.store.name(u.key), info.ETag,
			want)
	}

	found := lowerKeys(info.UserMetadata)
	for name, want := range u.metadata {
		if found[name] != want {
			return fmt.Errorf("%s: the object has the metadata %s=%q, not %q", u.store.name(u.key), name, found[name], want)
		}
	}

	return nil
}

// etag returns the ETag of the object if the ETags of the parts are their MD5s, and else nothing.
func (u *s3Upload) etag() string {
	hash := md5.New() //nolint:gosec // see the import
	for i, part := range u.parts {
		if trimQuotes(part.ETag) != hex.EncodeToString(u.sums[i]) {
			return ""
		}
		hash.Write(u.sums[i])
	}

	return fmt.Sprintf("%x-%d", hash.Sum(nil), len(u.parts))
}

// trimQuotes returns an ETag without its quotes.
func trimQuotes(etag string) string { return strings.Trim(etag, `"`) }

// abort discards the parts. If that fails, the next process does it.
func (u *s3Upload) abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()

	if err := u.store.client.AbortMultipartUpload(ctx, u.store.bucket, u.key, u.id); err != nil {
		u.store.retry.log.Debug().Err(err).Str("url", u.store.name(u.key)).
			Msg("failed to discard an upload; the next run with this output does it")
	}
}
