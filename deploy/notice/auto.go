package notice

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// vendorFolder has what the firmware says about a machine. Hypervisors say who they are; containers see it, too.
const vendorFolder = "/sys/class/dmi/id"

// azureTag is the asset tag of the chassis of each machine of Azure; other machines of Hyper-V have none.
const azureTag = "7783-7084-3265-9085-8269-3286-77"

// probeTime is the time in which a metadata service must answer to be found.
const probeTime = time.Second

// auto is the metadata service of the cloud of this box, if it is in one.
type auto struct {
	folder string // see [vendorFolder]
	clouds clouds
}

// clouds are the sources of the clouds that are known.
type clouds struct {
	aws   *aws
	gcp   *gcp
	azure *azure
}

// String returns auto.
func (s *auto) String() string { return "auto" }

func (s *auto) watch(ctx context.Context, w *watcher) {
	found := s.find(ctx)
	if found == nil {
		w.log.Debug().Msg("this box is in no cloud whose notices are known")
		return
	}

	w.log.Debug().Str("source", found.String()).Msg("watching whether the cloud takes this box back")
	found.watch(ctx, w.withQuietLog())
}

// find returns the source of the cloud of this box; nil: it is in none.
func (s *auto) find(ctx context.Context) Source {
	vendor, err := os.ReadFile(filepath.Join(s.folder, "sys_vendor"))
	if err != nil {
		return s.probe(ctx)
	}

	tag, _ := os.ReadFile(filepath.Join(s.folder, "chassis_asset_tag")) // absent: it is not Azure's

	switch strings.TrimSpace(string(vendor)) {
	case "Amazon EC2":
		return s.clouds.aws
	case "Google":
		return s.clouds.gcp
	case "Microsoft Corporation":
		if strings.TrimSpace(string(tag)) == azureTag {
			return s.clouds.azure
		}
	case "Xen": // the oldest instances of Amazon
		version, _ := os.ReadFile(filepath.Join(s.folder, "product_version"))
		if strings.Contains(string(version), "amazon") {
			return s.clouds.aws
		}
	}

	return nil
}

// probe asks each metadata service once, and returns the source of the one that answers; nil: none does.
func (s *auto) probe(ctx context.Context) (found Source) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()

	answers := map[Source]func() bool{
		s.clouds.aws: func() bool { return s.clouds.aws.renewToken(ctx) == nil },
		s.clouds.gcp: func() bool {
			_, _, err := s.clouds.gcp.readKey(ctx, "id", "")
			return err == nil
		},
		s.clouds.azure: func() bool { return s.clouds.azure.learnName(ctx) == nil },
	}

	var mu sync.Mutex
	var probing sync.WaitGroup
	for source, answersTo := range answers {
		probing.Go(func() {
			if !answersTo() {
				return
			}

			mu.Lock()
			defer mu.Unlock()
			found = source
			cancel()
		})
	}

	probing.Wait()

	return found
}

// newClouds returns the sources of all clouds, at their usual addresses or those that the environment names.
func newClouds(getenv func(string) string) clouds {
	c := clouds{
		aws:   newAWS(linkLocal, awsIPv6),
		gcp:   newGCP(linkLocal, gcpIPv6),
		azure: newAzure(linkLocal),
	}

	// https://docs.aws.amazon.com/sdkref/latest/guide/feature-imds-credentials.html
	if base := getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"); base != "" {
		c.aws = newAWS(strings.TrimSuffix(base, "/"))
	}

	// https://pkg.go.dev/cloud.google.com/go/compute/metadata
	if host := getenv("GCE_METADATA_HOST"); host != "" {
		c.gcp = newGCP("http://" + host)
	}

	return c
}
