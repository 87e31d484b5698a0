package batchapi

import (
	"github.com/promptmill/promptmill/deploy/batchapi/batch"
)

// Runs returns the batches of a service, for [Config].
func Runs(s *batch.Service) Batches { return runs{s} }

// runs are the batches of a service.
type runs struct{ *batch.Service }

// singleRun is a run as the only batch.
type singleRun struct{ *batch.Single }

// OpenOutput opens the text of an output file.
func (r singleRun) OpenOutput(fileID string) (Output, batch.Batch, error) {
	return r.Single.OpenOutput(fileID)
}

// OpenOutput opens the text of an output file.
func (r runs) OpenOutput(fileID string) (Output, batch.Batch, error) {
	return r.Service.OpenOutput(fileID)
}
