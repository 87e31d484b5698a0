package batchapi

import (
	"github.com/promptmill/promptmill/deploy/batchapi/batch"
)

// Runs returns the batches of a service, for [Config].
func Runs(s *batch.Service) Batches { return runs{s} }

// runs are the batches of a service.
type runs struct{ *batch.Service }

// OpenOutput opens the text of an output file.
func (r runs) OpenOutput(fileID string) (Output, batch.Batch, error) {
	return r.Service.OpenOutput(fileID)
}
