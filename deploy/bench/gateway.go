package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The keys of the gateway.
const (
	accessKey = "bench"
	secretKey = "benchbench"
)

// gateway is versitygw, a server with the API of S3 whose objects are the files in a folder.
type gateway struct {
	// bucket is the folder of the bucket.
	bucket string
	client *minio.Client
	// stored are the URLs of the files that are stored, by their paths.
	stored map[string]string
}

// findGateway returns the path of versitygw, if this machine has it.
func findGateway() (program string, ok bool) {
	program, err := exec.LookPath(cmp.Or(os.Getenv("PROMPTMILL_TEST_VERSITYGW"), "versitygw"))
	return program, err == nil
}

// startGateway starts a gateway for the time of the section, and names it in the environment of
// the processes.
func (b *bench) startGateway(ctx context.Context, program string) (*gateway, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}

	address := listener.Addr().String()
	listener.Close()

	dir, remove, err := b.makeFolder()
	if err != nil {
		return nil, err
	}

	b.stops = append(b.stops, remove)

	g := &gateway{bucket: filepath.Join(dir, "bucket"), stored: map[string]string{}}
	if err := os.Mkdir(g.bucket, 0o700); err != nil {
		return nil, err
	}

	p, err := b.startProcess(ctx, dir, program, "--port", address, "--access", accessKey, "--secret", secretKey,
		"posix", dir)
	if err != nil {
		return nil, err
	}

	b.stops = append(b.stops, func() { p.stop() })

	err = awaitCondition(ctx, "versitygw", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	if err != nil {
		return nil, err
	}

	b.env = []string{
		"AWS_ENDPOINT_URL_S3=http://" + address,
		"AWS_ACCESS_KEY_ID=" + accessKey,
		"AWS_SECRET_ACCESS_KEY=" + secretKey,
		"AWS_REGION=us-east-1",
	}

	g.client, err = minio.New(address, &minio.Options{Creds: credentials.NewStaticV4(accessKey, secretKey, "")})

	return g, err
}

// storeFile stores a file, if it is not stored yet, and returns its URL.
func (g *gateway) storeFile(ctx context.Context, path string) (url string, err error) {
	if url, ok := g.stored[path]; ok {
		return url, nil
	}

	bucket, name := filepath.Base(g.bucket), filepath.Base(path)
	if _, err := g.client.FPutObject(ctx, bucket, name, path, minio.PutObjectOptions{}); err != nil {
		return "", fmt.Errorf("store an input: %w", err)
	}

	g.stored[path] = "s3://" + bucket + "/" + name

	return g.stored[path], nil
}
