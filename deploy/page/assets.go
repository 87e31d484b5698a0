package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/promptmill/promptmill/collector/report/uplot"
)

// assetFiles are the page, its scripts and its styles.
//
//go:embed assets
var assetFiles embed.FS

// asset is a file of the page.
type asset struct {
	plain, packed []byte
	contentType   string
	etag          string
}

// loadAssets returns the files of the page by their names, with those of the chart library.
func loadAssets() (map[string]*asset, error) {
	assets := map[string]*asset{
		"uPlot.iife.min.js": newAsset("uPlot.iife.min.js", []byte(uplot.Script)),
		"uPlot.min.css":     newAsset("uPlot.min.css", []byte(uplot.Style)),
		"uPlot.LICENSE.txt": newAsset("uPlot.LICENSE.txt", []byte(uplot.License)),
	}

	entries, err := fs.ReadDir(assetFiles, "assets")
	if err != nil {
		return nil, err
	}

	for _, e := range entries {
		text, err := fs.ReadFile(assetFiles, path.Join("assets", e.Name()))
		if err != nil {
			return nil, err
		}
		assets[e.Name()] = newAsset(e.Name(), text)
	}

	return assets, nil
}

// contentTypes are the types of files, which must not depend on the tables of the machine.
var contentTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// newAsset returns a file of the page.
func newAsset(name string, text []byte) *asset {
	sum := sha256.Sum256(text)
	a := &asset{plain: text, etag: `"` + hex.EncodeToString(sum[:8]) + `"`, contentType: contentTypes[path.Ext(name)]}
	if a.contentType == "" {
		a.contentType = mime.TypeByExtension(path.Ext(name))
	}

	var packed bytes.Buffer
	w, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // the level is one of gzip's
	w.Write(text)
	w.Close()
	a.packed = packed.Bytes()

	return a
}

// serve answers with the file. A browser asks each time whether it has changed, since another version of promptmill
// may be at the address.
func (a *asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")

	body, etag := a.plain, a.etag
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") && len(a.packed) < len(a.plain) {
		body, etag = a.packed, strings.TrimSuffix(a.etag, `"`)+`-gzip"`
		h.Set("Content-Encoding", "gzip")
	}

	h.Set("ETag", etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}
