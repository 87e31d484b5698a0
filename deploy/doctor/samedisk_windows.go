package doctor

import (
	"path/filepath"
	"strings"
)

// isSameDisk compares the letters of the disks. A disk that is mounted in a folder counts as the one around it.
func isSameDisk(a, b string) bool {
	return strings.EqualFold(filepath.VolumeName(a), filepath.VolumeName(b))
}
