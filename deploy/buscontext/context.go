// Package buscontext keeps buses under names, so that a command on a laptop need not name its bus each
// time: promptmill workers --context head.
//
// A [Context] is a join string, or a NATS server with a user. A [Folder] has one file for each, and the
// name of the one that is selected: it is used by commands that name no bus. The folder is laid out as
// that of the nats program is (github.com/nats-io/jsm.go/natscontext): context.txt has the selected
// name. The files have secrets, so only their owner may read them.
package buscontext

import (
	"errors"
	"fmt"
	"regexp"
)

// Context is a bus and the way in. Either Join or URL is set.
type Context struct {
	// Join is a join string. Empty for a NATS server.
	Join string `json:"join,omitempty"`
	// URL is the URL of a NATS server, or several with commas.
	URL string `json:"url,omitempty"`
	// User is a user of that server, and Password its password.
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	// PasswordFile has the password in place of Password.
	PasswordFile string `json:"password_file,omitempty"`
	// Credentials is a file of NATS credentials.
	Credentials string `json:"creds,omitempty"`
	// CA, Certificate and Key are files in PEM: authorities to trust, and the client's certificate.
	CA          string `json:"ca,omitempty"`
	Certificate string `json:"cert,omitempty"`
	Key         string `json:"key,omitempty"`
}

// MaxName is the longest name of a context in bytes.
const MaxName = 64

var (
	// ErrName is returned for a text that cannot be the name of a context.
	ErrName = errors.New("a name has letters, digits, dots, dashes and underscores, begins with a letter or a digit, " +
		"and has at most 64 characters")
	// ErrUnknown is returned for a name that no context has.
	ErrUnknown = errors.New("there is no such context")
	// ErrWrite is returned for a folder that cannot be changed.
	ErrWrite = errors.New("the contexts cannot be changed")
	// ErrContent is returned for a file that is no context.
	ErrContent = errors.New("it is not what promptmill join save writes")
)

// contextName matches names of contexts. They are names of files too.
var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// CheckName returns an error that wraps [ErrName] unless a text can be the name of a context.
func CheckName(name string) error {
	if len(name) > MaxName || !contextName.MatchString(name) {
		return fmt.Errorf("%q: %w", name, ErrName)
	}
	return nil
}

// check returns an error that wraps [ErrContent] unless a context names one bus.
func (c Context) check() error {
	if (c.Join == "") == (c.URL == "") {
		return fmt.Errorf("%w: it names a join string or the URL of a NATS server", ErrContent)
	}
	return nil
}
