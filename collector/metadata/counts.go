package metadata

// CountSent returns how many requests were sent to model servers and have ended, answered or failed.
func (r *Results) CountSent() int { return r.SuccessCount + r.CountFailed() }

// CountFailed returns how many requests were sent and failed. It is the FailureCount less those that were never
// sent, which say nothing of the model server.
func (r *Results) CountFailed() int { return max(0, r.FailureCount-r.NotSentCount) }
