package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// The places in the image.
const (
	programPath      = "usr/local/bin/promptmill"
	certificatesPath = "etc/ssl/certs/ca-certificates.crt" // where Go looks first (crypto/x509/root_linux.go)
	stateFolder      = "var/lib/promptmill"
	shareFolder      = "run/promptmill" // for a volume that several containers see: a join string
	workFolder       = "work"
)

// userID is the user and the group of the image, as of distroless's nonroot. Kubernetes' runAsNonRoot wants a number.
const userID = 65532

// accounts name the users of the image for programs that list processes or files.
const (
	passwd = "root:x:0:0:root:/root:/sbin/nologin\n" +
		"promptmill:x:65532:65532:promptmill:/var/lib/promptmill:/sbin/nologin\n"
	group = "root:x:0:\npromptmill:x:65532:\n"
)

// entry is a file or a folder of a layer. A folder has no content.
type entry struct {
	path    string
	mode    int64
	owner   int
	content []byte
}

// baseEntries returns all but the program: they change only with the certificates, so most updates of the image do not
// bring them again.
//
// Anybody may write to the three folders, as to /tmp: an engine gives a new volume the permissions of its folder in the
// image, and some people run containers as their own user. promptmill closes its state to other users itself.
func baseEntries() []entry {
	return []entry{
		{path: "etc/", mode: 0o755},
		{path: "etc/group", mode: 0o644, content: []byte(group)},
		{path: "etc/passwd", mode: 0o644, content: []byte(passwd)},
		{path: "etc/ssl/", mode: 0o755},
		{path: "etc/ssl/certs/", mode: 0o755},
		{path: certificatesPath, mode: 0o644, content: authorities()},
		{path: "run/", mode: 0o755},
		{path: shareFolder + "/", mode: 0o1777, owner: userID},
		{path: "tmp/", mode: 0o1777},
		{path: "var/", mode: 0o755},
		{path: "var/lib/", mode: 0o755},
		{path: stateFolder + "/", mode: 0o1777, owner: userID},
		{path: workFolder + "/", mode: 0o1777, owner: userID},
	}
}

// programEntries returns the program.
func programEntries(program []byte) []entry {
	return []entry{
		{path: "usr/", mode: 0o755},
		{path: "usr/local/", mode: 0o755},
		{path: "usr/local/bin/", mode: 0o755},
		{path: programPath, mode: 0o755, content: program},
	}
}

// authorities returns the certificates that Mozilla trusts, as PEM. Those that it trusts with conditions are left out:
// a file of certificates cannot say them.
func authorities() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes all
		}
	}

	return out.Bytes()
}

// makeLayer returns a layer. All times in it are 1970, so it changes only with its files.
func makeLayer(entries []entry) (v1.Layer, error) {
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, e := range entries {
		header := &tar.Header{
			Typeflag: tar.TypeReg,
			Name:     e.path,
			Mode:     e.mode,
			Uid:      e.owner,
			Gid:      e.owner,
			Size:     int64(len(e.content)),
			ModTime:  time.Unix(0, 0),
			Format:   tar.FormatUSTAR,
		}
		if e.content == nil {
			header.Typeflag = tar.TypeDir
		}

		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(e.content); err != nil {
			return nil, err
		}
	}

	if err := archive.Close(); err != nil {
		return nil, err
	}

	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(out.Bytes())), nil
	}, tarball.WithCompressionLevel(9), tarball.WithCompressedCaching)
}
