//go:build !unix

package notice

// newSignalSource returns false: this system has no signals for users.
func newSignalSource(string) (Source, bool) { return nil, false }
