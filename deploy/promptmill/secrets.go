package main

import (
	"os"
	"strings"
	"unsafe"

	"github.com/promptmill/promptmill/deploy/busconn"
)

// ownArguments returns the command line of this process and wipes its secrets from what ps and
// /proc show to all users of the machine.
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

// secretOf returns the secret part of a flag's value, in the value's memory.
func secretOf(flag, value string) string {
	if !strings.HasPrefix(flag, "-") {
		return ""
	}

	switch strings.TrimLeft(flag, "-") {
	case "join", "api-key", "webhook":
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

// follows reports whether a text is directly after another in memory, as the arguments of the
// system are. Other texts may be in memory that must not be written.
func follows(before, text string) bool {
	if len(before) == 0 || len(text) == 0 {
		return false
	}
	end := uintptr(unsafe.Pointer(unsafe.StringData(before))) + uintptr(len(before)) + 1
	return uintptr(unsafe.Pointer(unsafe.StringData(text))) == end
}

// wipe overwrites a text in the memory of the arguments.
func wipe(text string) {
	memory := unsafe.Slice(unsafe.StringData(text), len(text))
	for i := range memory {
		memory[i] = 'x'
	}
}
