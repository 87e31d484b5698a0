package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// imageConfig returns how an engine starts the image. Its state is in the one volume. There is no health check: it
// differs by command, and OCI images have none.
func imageConfig(labels map[string]string) v1.Config {
	return v1.Config{
		User:       fmt.Sprintf("%d:%d", userID, userID),
		Entrypoint: []string{"/" + programPath},
		Cmd:        []string{"--help"},
		Env: []string{
			"PATH=/usr/local/bin:/usr/bin:/bin",
			"HOME=/" + stateFolder,
			"XDG_STATE_HOME=/" + filepath.Dir(stateFolder),
		},
		Volumes:    map[string]struct{}{"/" + stateFolder: {}},
		WorkingDir: "/" + workFolder,
		Labels:     labels,
	}
}

// describeImage returns the labels of the image
// (https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md).
func describeImage(version, revision string, created time.Time) map[string]string {
	labels := map[string]string{
		"org.opencontainers.image.title":         "promptmill",
		"org.opencontainers.image.description":   "runs files of prompts through language models that you host",
		"org.opencontainers.image.source":        "https://github.com/promptmill/promptmill",
		"org.opencontainers.image.documentation": "https://github.com/promptmill/promptmill/tree/main/deploy/docker",
		"org.opencontainers.image.licenses":      "Apache-2.0",
		"org.opencontainers.image.created":       created.Format(time.RFC3339),
	}
	if version != "" {
		labels["org.opencontainers.image.version"] = version
	}
	if revision != "" {
		labels["org.opencontainers.image.revision"] = revision
	}

	return labels
}

// makeImage returns the image of a program.
func makeImage(program []byte, platform v1.Platform, labels map[string]string, created time.Time) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}

	file = file.DeepCopy()
	file.OS, file.Architecture, file.Variant = platform.OS, platform.Architecture, platform.Variant
	file.Config = imageConfig(labels)
	file.Created = v1.Time{Time: created}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return nil, err
	}

	for _, part := range []struct {
		by      string
		entries []entry
	}{
		{"certificates and folders", baseEntries()},
		{"promptmill", programEntries(program)},
	} {
		layer, err := makeLayer(part.entries)
		if err != nil {
			return nil, err
		}

		image, err = mutate.Append(image, mutate.Addendum{
			Layer:     layer,
			MediaType: types.OCILayer,
			History:   v1.History{CreatedBy: part.by, Created: v1.Time{Time: created}},
		})
		if err != nil {
			return nil, err
		}
	}

	return image, nil
}

// buildAll builds the image for each platform and writes or pushes it.
func buildAll(ctx context.Context, o options, out io.Writer) error {
	if o.folder != "" {
		if err := claimFolder(o.folder); err != nil {
			return err
		}
	}

	source := readCommit(ctx)
	if o.created.IsZero() {
		o.created = source.time
	}
	if o.created.IsZero() {
		o.created = time.Unix(0, 0).UTC()
	}

	labels := describeImage(o.version, source.hash, o.created)
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range o.platforms {
		image, err := buildImage(ctx, o, platform, labels)
		if err != nil {
			return err
		}

		if err := o.writeArchive(image, platform, out); err != nil {
			return err
		}

		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &platform},
		})
	}

	annotated, ok := mutate.Annotations(index, labels).(v1.ImageIndex)
	if !ok {
		return errors.New("the index of the platforms cannot be annotated")
	}

	return o.writeIndex(ctx, annotated, out)
}

// buildImage returns the image for a platform.
func buildImage(ctx context.Context, o options, platform v1.Platform, labels map[string]string) (v1.Image, error) {
	var program []byte
	var err error
	if file := o.binaries[platform.String()]; file != "" {
		program, err = os.ReadFile(file)
	} else {
		program, err = buildProgram(ctx, platform, o.version)
	}
	if err != nil {
		return nil, err
	}

	if err := checkProgram(program, platform); err != nil {
		return nil, fmt.Errorf("%s: %w", cmp.Or(o.binaries[platform.String()], programPackage), err)
	}

	return makeImage(program, platform, labels, o.created)
}

// claimFolder makes the folder of the output. It refuses one with files, which could be of another version.
func claimFolder(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}

	entries, err := os.ReadDir(folder)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("-o %s: the folder is not empty; remove it or choose another", folder)
	}

	return err
}

// writeArchive writes the archive of a platform for docker load and podman load.
func (o options) writeArchive(image v1.Image, platform v1.Platform, out io.Writer) error {
	if o.folder == "" {
		return nil
	}

	size, err := compressedSize(image)
	if err != nil {
		return err
	}

	file := filepath.Join(o.folder, "promptmill-"+strings.ReplaceAll(platform.String(), "/", "-")+".tar")
	if err := tarball.WriteToFile(file, o.tag, image); err != nil {
		return err
	}

	_, err = fmt.Fprintf(out, "%s: %s, %.1f MB compressed\n", file, platform, float64(size)/1e6)

	return err
}

// compressedSize returns how many bytes the layers of an image are in a registry.
func compressedSize(image v1.Image) (total int64, err error) {
	layers, err := image.Layers()
	if err != nil {
		return 0, err
	}

	for _, layer := range layers {
		size, err := layer.Size()
		if err != nil {
			return 0, err
		}
		total += size
	}

	return total, nil
}

// writeIndex writes the image of all platforms as an OCI layout, and pushes it.
func (o options) writeIndex(ctx context.Context, index v1.ImageIndex, out io.Writer) error {
	digest, err := index.Digest()
	if err != nil {
		return err
	}

	if o.folder != "" {
		place := filepath.Join(o.folder, "oci")
		path, err := layout.Write(place, empty.Index)
		if err != nil {
			return err
		}

		tag := map[string]string{"org.opencontainers.image.ref.name": o.tag.TagStr()}
		if err := path.AppendIndex(index, layout.WithAnnotations(tag)); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: an OCI layout of all platforms, %s\n", place, digest)
	}

	if !o.push {
		return nil
	}

	return pushIndex(ctx, o.tag, index, out)
}

// pushIndex pushes an image to the registry of its tag.
func pushIndex(ctx context.Context, tag name.Tag, index v1.ImageIndex, out io.Writer) error {
	err := remote.WriteIndex(tag, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	if err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}

	digest, err := index.Digest()
	if err == nil {
		_, err = fmt.Fprintf(out, "pushed %s@%s\n", tag.Repository, digest)
	}

	return err
}
