package proto

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// OwnerAccount is the account that has JetStream, the streams and the buckets.
const OwnerAccount = "PROMPTMILL"

// Owner is the user of [OwnerAccount], with all rights there.
const Owner = "owner"

// Account is the account of a role.
func (r Role) Account() string { return OwnerAccount + "_" + strings.ToUpper(string(r)) }

// maxConnections is the most connections that a role may have at once.
func (r Role) maxConnections() int {
	if r == RoleWorker {
		return 4096
	}
	return 512
}

// maxSubscriptions is the most subscriptions that a connection may have at once: one for each
// pull or batch that is under way, and a few that stay.
const maxSubscriptions = 1024

// WriteAccounts writes the accounts and users of a bus in the language of nats-server's
// configuration files. password returns a user's password in the form that is written.
//
// Each role has its own account, without JetStream, into which the subjects that it
// may use are imported. So the server itself names the subject of each answer within
// [OwnerAccount]; the one that the asker names counts in the asker's account alone, where
// nothing but the role's own subjects leads anywhere.
func WriteAccounts(w io.Writer, password func(user string) string) error {
	services, streams := map[string][]string{}, map[string][]string{} // accounts by the subjects that they import
	var roles strings.Builder
	for _, role := range Roles() {
		p := role.Permissions()
		fmt.Fprintf(&roles, "  %s {\n", role.Account())
		fmt.Fprintf(&roles, "    users: [ { user: %s, password: %s, permissions: {\n", role, password(string(role)))
		fmt.Fprintf(&roles, "      publish: { allow: %s", quoteList(p.Publish))
		if len(p.Deny) > 0 {
			fmt.Fprintf(&roles, ", deny: %s", quoteList(p.Deny))
		}

		fmt.Fprintf(&roles, " }\n      subscribe: { allow: %s }\n    } } ]\n", quoteList(p.Subscribe))
		fmt.Fprintf(&roles, "    limits: { max_connections: %d, max_subscriptions: %d }\n    imports: [\n",
			role.maxConnections(), maxSubscriptions)

		for _, subject := range p.Publish {
			fmt.Fprintf(&roles, "      { service: { account: %s, subject: %q } }\n", OwnerAccount, subject)
			services[subject] = append(services[subject], role.Account())
		}

		for _, subject := range p.Import {
			fmt.Fprintf(&roles, "      { stream: { account: %s, subject: %q }, to: %q }\n",
				OwnerAccount, StoredPrefix+subject, numberWildcards(subject))
			streams[subject] = append(streams[subject], role.Account())
		}

		fmt.Fprintf(&roles, "    ]\n  }\n")
	}

	var b strings.Builder
	fmt.Fprintf(&b, "accounts {\n  %s {\n    jetstream: enabled\n", OwnerAccount)
	fmt.Fprintf(&b, "    # for promptmill run and serve, which do all that the others do\n")
	fmt.Fprintf(&b, "    users: [ { user: %s, password: %s } ]\n    exports: [\n", Owner, password(Owner))

	for _, subject := range slices.Sorted(maps.Keys(services)) {
		fmt.Fprintf(&b, "      { service: %q, accounts: [ %s ]", subject, strings.Join(services[subject], ", "))
		if severalAnswers(subject) {
			fmt.Fprintf(&b, ", response_type: stream")
		}
		fmt.Fprintf(&b, " }\n")
	}

	for _, subject := range slices.Sorted(maps.Keys(streams)) {
		fmt.Fprintf(&b, "      { stream: %q, accounts: [ %s ] }\n", StoredPrefix+subject, strings.Join(streams[subject], ", "))
	}

	fmt.Fprintf(&b, "    ]\n  }\n%s}\n", roles.String())
	_, err := io.WriteString(w, b.String())

	return err
}

// severalAnswers reports whether a request on a subject may have more than one answer: a
// pull, and a direct get of a batch.
func severalAnswers(subject string) bool {
	return strings.HasPrefix(subject, "$JS.API.CONSUMER.MSG.NEXT.") || subject == "$JS.API.DIRECT.GET.*"
}

// numberWildcards returns a subject as the destination of a mapping from one with the same
// wildcards.
func numberWildcards(subject string) string {
	for n := 1; strings.Contains(subject, "*"); n++ {
		subject = strings.Replace(subject, "*", fmt.Sprintf("$%d", n), 1)
	}
	return subject
}

func quoteList(list []string) string {
	var b strings.Builder
	b.WriteString("[\n")
	for _, s := range list {
		fmt.Fprintf(&b, "        %q\n", s)
	}
	return b.String() + "      ]"
}
