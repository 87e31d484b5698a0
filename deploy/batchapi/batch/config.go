package batch

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/proto"
)

// Config describes the bus and the folders of the batches.
type Config struct {
	// Bus is the bus of the runs. Required.
	Bus *busconn.Connection
	// Dir is the folder of the outputs, that of pipeline.ServeConfig. Required, as an absolute
	// path.
	Dir string
	// Records is the folder of the records. It is made if it is not there. Required, as an absolute
	// path.
	Records string
	// Files are the files that batches read. Required.
	Files *filestore.Store
	// State is the state folder. Required.
	State string
	// Format is the format of the outputs, that of pipeline.ServeConfig.
	Format output.Format
	// Settings apply to the requests of all batches, such as a default model.
	Settings proto.Settings
	// Keep is the time that a run stays on the bus after its end. Defaults to 24 hours.
	Keep time.Duration
	// Log gets warnings and errors. The zero value discards them.
	Log zerolog.Logger
	// Ended, if not nil, is called for each batch that has ended, also if it did so while no
	// process was there to see it. It is called again until it returns nil, and may be called
	// twice for an end. A batch whose run was retried ends again.
	Ended func(ctx context.Context, b Batch) error
}

// DefaultKeep is the time that the run of a batch stays on the bus after its end. Its output files
// stay for good.
const DefaultKeep = 24 * time.Hour

// validate returns an error that names the field of a value that cannot be used.
func (c Config) validate() error {
	switch {
	case c.Bus == nil:
		return errors.New("batch: Config.Bus is required")
	case !filepath.IsAbs(c.Dir):
		return fmt.Errorf("batch: Config.Dir is %q, must be an absolute path", c.Dir)
	case !filepath.IsAbs(c.Records):
		return fmt.Errorf("batch: Config.Records is %q, must be an absolute path", c.Records)
	case c.Files == nil:
		return errors.New("batch: Config.Files is required")
	case c.State == "":
		return errors.New("batch: Config.State is required")
	case c.Keep < 0:
		return fmt.Errorf("batch: Config.Keep is %s, must not be negative", c.Keep)
	}

	return nil
}

// output returns the files of a run.
func (c Config) output(run string) output.Prefix { return output.Prefix(filepath.Join(c.Dir, run)) }
