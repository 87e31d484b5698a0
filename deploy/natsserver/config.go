package natsserver

import (
	"fmt"
	"io"
	"strings"

	"github.com/promptmill/promptmill/proto"
)

// WriteConfig writes the accounts, users and limits of the embedded server as a configuration file
// of nats-server.
func WriteConfig(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# promptmill's accounts and users. Passwords come from the environment of nats-server.\n")
	fmt.Fprintf(&b, "max_payload: %d\n", MaxPayload)
	fmt.Fprintf(&b, "max_pending: %d\n", maxPending)

	err := proto.WriteAccounts(&b, func(user string) string {
		return "$PROMPTMILL_" + strings.ToUpper(user) + "_PASSWORD"
	})
	if err != nil {
		return err
	}

	_, err = io.WriteString(w, b.String())

	return err
}
