package proto

// ModelLoad has the parts of the time that a model server took to load its model, in seconds, as its log
// reports them. Null is unknown. They add up to less than the whole: no log times everything.
type ModelLoad struct {
	// DownloadSeconds is the time for the weights to come onto the disk; 0: they were there.
	DownloadSeconds *float64 `json:"download_seconds"`
	// WeightsSeconds is the time for them to come from the disk onto the GPUs.
	WeightsSeconds *float64 `json:"weights_seconds"`
	// CompileSeconds is the time of torch.compile, also where it reads its cache.
	CompileSeconds *float64 `json:"compile_seconds"`
	// GraphsSeconds is the time to capture CUDA graphs.
	GraphsSeconds *float64 `json:"graphs_seconds"`
	// WarmUpSeconds is the time of the first runs, with those that measure the memory that is left, and
	// for the KV cache to be created.
	WarmUpSeconds *float64 `json:"warm_up_seconds"`
}

// isPossible reports whether a load, which may be nil, can be true.
func (l *ModelLoad) isPossible() bool {
	if l == nil {
		return true
	}

	for _, seconds := range []*float64{
		l.DownloadSeconds, l.WeightsSeconds, l.CompileSeconds, l.GraphsSeconds, l.WarmUpSeconds,
	} {
		if !isAmount(seconds, maxSeconds) {
			return false
		}
	}

	return true
}
