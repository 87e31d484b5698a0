package localbus

import (
	"encoding/pem"
	"strings"

	"github.com/promptmill/promptmill/proto"
)

// ClientContext has all that a NATS client needs to connect as a role. Its JSON is a context file
// of the nats program, with Certificate added.
type ClientContext struct {
	Description string `json:"description"`
	// URL has the URLs of the server with commas between them, in the order in which to try them.
	URL         string `json:"url"`
	User        string `json:"user"`
	Password    string `json:"password"`
	InboxPrefix string `json:"inbox_prefix"`
	// CA is the path of a file with Certificate.
	CA string `json:"ca"`
	// Certificate is the server's own certificate as PEM. A client accepts no other.
	Certificate string `json:"certificate"`
}

// ClientContext returns the connection of a role to a bus at some addresses, and writes the
// certificate into the state folder.
func (id *Identity) ClientContext(state string, role proto.Role, addresses []string) (ClientContext, error) {
	ca, err := id.WriteCertificate(state)
	if err != nil {
		return ClientContext{}, err
	}

	j := id.Join(role, addresses)

	return ClientContext{
		Description: "promptmill " + string(role),
		URL:         "tls://" + strings.Join(j.Addresses, ",tls://"),
		User:        j.User(),
		Password:    j.Password(),
		InboxPrefix: role.InboxPrefix(),
		CA:          ca,
		Certificate: string(id.certificatePEM()),
	}, nil
}

// certificatePEM returns the certificate without its key.
func (id *Identity) certificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Certificate.Certificate[0]})
}
