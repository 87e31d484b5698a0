//go:build !linux

package filestore

import "os"

// startWriteback does nothing: only Linux has such a hint.
func startWriteback(*os.File, int64, int64) {}
