package files

// MostOpen returns 0: Windows sets no limit to the files and connections of a process.
func MostOpen() (uint64, error) { return 0, nil }
