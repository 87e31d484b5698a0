package inputfile

import (
	"io/fs"

	"github.com/promptmill/promptmill/proto"
)

// Describe describes an input file as it is now.
func Describe(path string, info fs.FileInfo) proto.File {
	f := proto.File{
		Path:    path,
		Bytes:   info.Size(),
		ModTime: info.ModTime().UTC(),
	}

	f.Inode, f.ChangeTime = fileIdentity(info)

	return f
}

// IsUnchanged reports whether the file that now describes is the one that then describes, with
// the same contents, as far as that can be known without reading it. Without an ETag, and on a
// file system without inodes and change times, it returns false.
func IsUnchanged(then, now proto.File) bool {
	if then.ETag != "" || now.ETag != "" {
		return now.Path == then.Path && now.ETag == then.ETag && now.Bytes == then.Bytes
	}

	return then.Inode != 0 && now.Inode == then.Inode && now.Bytes == then.Bytes &&
		now.ModTime.Equal(then.ModTime) && now.ChangeTime.Equal(then.ChangeTime)
}
