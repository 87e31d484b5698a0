package table

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

// isParquetCodec reports whether pages with a compression can be read.
func isParquetCodec(codec format.CompressionCodec) bool {
	switch codec {
	case format.Uncompressed, format.Snappy, format.Gzip, format.Brotli, format.Zstd, format.Lz4Raw:
		return true
	}
	return false
}

// codecName names a compression that is not supported.
func codecName(codec format.CompressionCodec) string {
	switch codec {
	case format.LZO:
		return "LZO"
	case format.Lz4:
		return "Hadoop's LZ4"
	}
	return "an unknown codec"
}

// errPageLength is the error of a page that has another length than its header says.
var errPageLength = errors.New("the page has another length than its header says")

// zstdDecoder decompresses blocks, without a goroutine, and never more than fits the destination.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true))
})

// decompressParquet decompresses src, which fills dst: no more, whatever src has, and no less.
// The library decompresses as much as there is.
func decompressParquet(codec format.CompressionCodec, dst, src []byte) error {
	if len(dst) == 0 && len(src) == 0 {
		return nil
	}

	switch codec {
	case format.Snappy:
		return decompressSnappy(dst, src)
	case format.Zstd:
		decoder, err := zstdDecoder()
		if err != nil {
			return err
		}
		text, err := decoder.DecodeAll(src, dst[:0:len(dst)])
		return checkLength(len(text), dst, err)
	case format.Lz4Raw:
		n, err := lz4.UncompressBlock(src, dst)
		return checkLength(n, dst, err)
	case format.Gzip:
		r, err := gzip.NewReader(bytes.NewReader(src))
		if err != nil {
			return err
		}
		return readExactly(r, dst)
	case format.Brotli:
		return readExactly(brotli.NewReader(bytes.NewReader(src)), dst)
	}

	return errors.ErrUnsupported
}

func decompressSnappy(dst, src []byte) error {
	n, err := snappy.DecodedLen(src)
	if err := checkLength(n, dst, err); err != nil {
		return err
	}

	text, err := snappy.Decode(dst, src)

	return checkLength(len(text), dst, err)
}

func checkLength(n int, dst []byte, err error) error {
	if err == nil && n != len(dst) {
		err = errPageLength
	}
	return err
}

// readExactly fills dst, and checks that there is no more.
func readExactly(r io.Reader, dst []byte) error {
	if _, err := io.ReadFull(r, dst); err != nil {
		return err
	}

	switch n, err := io.CopyN(io.Discard, r, 1); {
	case n > 0:
		return errPageLength
	case !errors.Is(err, io.EOF):
		return err
	}

	return nil
}
