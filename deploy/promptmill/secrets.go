package main

import (
	"os"
	"strings"
	"unsafe"

	"github.com/promptmill/promptmill/deploy/busconn"
)

// ownArguments is the command line of this process. The secrets in it are wiped from what
// ps and /proc show to everybody on the machine.
func ownArguments() []string {
	args := make([]string, len(os.Args))
	for i, arg := range os.Args {
		args[i] = strings.Clone(arg)
	}

	for i, end := 1, len(os.Args); i < end && follows(os.Args[i-1], os.Args[i]); i++ {
		flag, value, joined := strings.Cut(os.Args[i], "=")
		switch {
		case joined:
			wipe(secretOf(flag, value))
		case i+1 < end && follows(os.Args[i], os.Args[i+1]):
			wipe(secretOf(flag, os.Args[i+1]))
		}
	}

	return args
}

// secretOf is the part of a flag's value that only its owner may see. It shares the
// value's memory.
func secretOf(flag, value string) string {
	if !strings.HasPrefix(flag, "-") {
		return ""
	}

	switch strings.TrimLeft(flag, "-") {
	case "join", "api-key":
		return value
	case "nats-user":
		if _, password, ok := strings.Cut(value, ":"); ok {
			return password
		}
	case "url", "nats":
		if busconn.RedactURLs(value) != value {
			return value
		}
	}

	return ""
}

// follows reports whether a text lies right behind another in memory, as the arguments do
// that the system has put there. Others may lie where nobody may write.
func follows(before, text string) bool {
	if len(before) == 0 || len(text) == 0 {
		return false
	}
	end := uintptr(unsafe.Pointer(unsafe.StringData(before))) + uintptr(len(before)) + 1
	return uintptr(unsafe.Pointer(unsafe.StringData(text))) == end
}

// wipe overwrites a text in memory that the system has made.
func wipe(text string) {
	memory := unsafe.Slice(unsafe.StringData(text), len(text))
	for i := range memory {
		memory[i] = 'x'
	}
}
