package producer

import (
	"io/fs"

	"github.com/promptmill/promptmill/proto"
)

// DescribeFile describes an input file as it is now.
func DescribeFile(path string, info fs.FileInfo) proto.File {
	f := proto.File{
		Path:    path,
		Bytes:   info.Size(),
		ModTime: info.ModTime().UTC(),
	}

	f.Inode, f.ChangeTime = fileIdentity(info)

	return f
}

// IsUnchanged reports whether a file is still the file that then describes, with the same contents,
// as far as that can be known without reading it. On a file system without inodes and change times
// it returns false.
func IsUnchanged(then proto.File, info fs.FileInfo) bool {
	now := DescribeFile(then.Path, info)

	return then.Inode != 0 && now.Inode == then.Inode && now.Bytes == then.Bytes &&
		now.ModTime.Equal(then.ModTime) && now.ChangeTime.Equal(then.ChangeTime)
}
