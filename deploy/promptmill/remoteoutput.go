package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/export"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/upload"
)

// placeOutput returns the upload of an output that -o names by a URL, and the path of its local
// file, which lies in the state folder, in a folder of the URL. It returns nothing for any
// other output.
func placeOutput(
	ctx context.Context, env environment, c *cli.Command, places *objectstore.Client,
) (local string, copied pipeline.Upload, err error) {
	address := c.String("output")
	if !objectstore.IsURL(address) {
		return "", nil, nil
	}

	name := path.Base(address)
	if strings.HasSuffix(address, "/") || strings.Count(address, "/") < 3 || name == output.ResultsSuffix ||
		slices.Contains(export.Formats(), name) {
		return "", nil, exit.Usage("for example -o "+exampleOutputURL(address, name), "-o %s names no file", address)
	}

	ending := export.Ending(name)
	if strings.HasSuffix(name, output.ResultsSuffix) {
		ending = output.ResultsSuffix
	}

	if ending == "" {
		return "", nil, exit.Usage("for example -o "+report.ShellWords(strings.TrimSuffix(address, path.Ext(name))+".csv"),
			"-o %s: must end in %s, or for a table in %s", address, output.ResultsSuffix, listEndings())
	}

	bucket, key, err := places.OpenBucket(ctx, address)
	if err != nil {
		return "", nil, err
	}

	state, err := stateOf(env, c)
	if err != nil {
		return "", nil, err
	}

	url := strings.TrimSuffix(bucket.URL+"/"+key, ending) // one form of each address
	sum := sha256.Sum256([]byte(url))
	local = filepath.Join(state, "outputs", hex.EncodeToString(sum[:8]), name)
	var tables []string
	if ending != output.ResultsSuffix {
		tables = export.Paths(local, max(1, c.Int("shards")))
	}

	return local, upload.New(upload.Config{
		Store:  bucket,
		URL:    url,
		Key:    strings.TrimSuffix(key, ending),
		Local:  output.Prefix(strings.TrimSuffix(local, ending)),
		State:  state,
		Tables: tables,
	}), nil
}

// exampleOutputURL returns a URL of an output for an address that has no name before its ending, or is a folder.
func exampleOutputURL(address, name string) string {
	if folder, found := strings.CutSuffix(address, "/"+name); found && strings.HasPrefix(name, ".") {
		return folder + "/results" + name
	}
	return strings.TrimSuffix(address, "/") + "/results" + output.ResultsSuffix
}
