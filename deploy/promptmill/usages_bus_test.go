package main

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto/bus"
)

func TestUsageOfBusCertificates(t *testing.T) {
	t.Parallel()

	ca, other := newAuthority(t, "one authority"), newAuthority(t, "another authority")
	ends := time.Now().Add(time.Hour)
	good := ca.sign("good", ends, "127.0.0.1")
	expired := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	accounts := natsAccounts(t)

	secure := startNATSServer(t, accounts+tlsConfig(good, ""))
	strict := startNATSServer(t, accounts+tlsConfig(good, fmt.Sprintf(", ca_file: %q, verify: true", ca.file)))
	old := startNATSServer(t, accounts+tlsConfig(ca.sign("old", expired, "127.0.0.1"), ""))
	elsewhere := startNATSServer(t, accounts+tlsConfig(ca.sign("elsewhere", ends, "bus.example"), ""))
	plain := startNATSServer(t, accounts)

	reader := " --nats-user reader:secret-of-reader"
	files := map[string]string{"text.txt": "no certificate\n"}
	testUsages(t, []usage{
		{
			args: "list --nats nats://" + secure + reader,
			err:  "connect to the NATS server at nats://" + secure + ": the authority of its certificate is not known here (one authority)",
			hint: "give the certificate of that authority with --tls-ca FILE",
			code: 4,
		},
		{
			args: "list --nats nats://" + secure + reader + " --tls-ca " + other.file,
			err:  "connect to the NATS server at nats://" + secure + ": the authority of its certificate is not known here (one authority)",
			hint: "give the certificate of that authority with --tls-ca: " + other.file + " has that of another",
			code: 4,
		},
		{
			args: "list --nats nats://" + secure + reader + " --tls-ca nosuch.pem",
			err:  "--tls-ca nosuch.pem: no such file or directory",
			hint: "give the path of a file that this user may read",
			code: 2,
		},
		{
			args:  "list --nats nats://" + secure + reader + " --tls-ca text.txt",
			files: files,
			err:   "--tls-ca text.txt: there is no certificate in it",
			hint:  "give a file with certificates in PEM",
			code:  2,
		},
		{
			args: "list --nats nats://" + old + reader + " --tls-ca " + ca.file,
			err:  "connect to the NATS server at nats://" + old + ": its certificate expired at 2025-03-01 12:00:00 UTC",
			hint: "make a new certificate for the server; if it is new already, correct the clock of this machine",
			code: 4,
		},
		{
			args: "list --nats nats://" + elsewhere + reader + " --tls-ca " + ca.file,
			err:  "connect to the NATS server at nats://" + elsewhere + ": its certificate is for bus.example, and not for 127.0.0.1",
			hint: "give the server's name in the URL as the certificate has it, or make a certificate for this name",
			code: 4,
		},
		{
			args: "list --nats nats://" + strict + reader + " --tls-ca " + ca.file,
			err:  "connect to the NATS server at nats://" + strict + ": it wants a client certificate that its authority has signed",
			hint: "give one with --tls-cert FILE and --tls-key FILE",
			code: 4,
		},
		{
			args: "list --nats nats://" + strict + reader + " --tls-ca " + ca.file + " --tls-cert " + good,
			err:  "--tls-cert " + good + ": the file is not a certificate with its key: found a certificate rather than a key in the PEM for the private key",
			hint: "give the certificate with --tls-cert and its key with --tls-key, both in PEM",
			code: 2,
		},
		{
			args: "list --nats nats://" + strict + reader + " --tls-ca " + ca.file + " --tls-key " + keyOf(good),
			err:  "--tls-key " + keyOf(good) + " is the key of no certificate",
			hint: "give the certificate too, with --tls-cert",
			code: 2,
		},
		{
			args: "list --nats tls://" + plain + reader,
			err:  "connect to the NATS server at tls://" + plain + ": it does not use TLS",
			hint: "write nats:// in place of tls://, and leave out --tls-ca, --tls-cert and --tls-key",
			code: 4,
		},
		{
			args: "worker --sim --nats nats://" + plain + reader + " --tls-ca " + ca.file,
			err:  "connect to the NATS server at nats://" + plain + ": it does not use TLS",
			hint: "write nats:// in place of tls://, and leave out --tls-ca, --tls-cert and --tls-key",
			code: 4,
		},
	})
}

func TestUsageOfBusUsers(t *testing.T) {
	t.Parallel()

	at := startNATSServer(t, natsAccounts(t))
	url := "nats://" + at
	token := "nats://" + startNATSServer(t, "authorization { token: right }")
	pair, err := nkeys.CreateUser()
	must(t, err)
	seed, err := pair.Seed()
	must(t, err)

	files := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n", "user.nk": string(seed) + "\n"}
	wrongRole := func(command, user, role string) usage {
		right := role
		if strings.HasPrefix(command, "run ") {
			right = "owner"
		}

		return usage{
			args:  fmt.Sprintf("%s --nats %s --nats-user %s:secret-of-%s", command, url, user, user),
			files: files,
			err: fmt.Sprintf("the user %s of the NATS server at %s has the rights of a %s, and promptmill %s needs those of a %s",
				user, at, user, strings.Fields(command)[0], role),
			hint: fmt.Sprintf("give the %s of promptmill nats-config: --nats-user %s, and its password in NATS_PASSWORD",
				right, right),
			code: 4,
		}
	}

	anyUser := "give --nats-creds FILE, --nats-user USER with NATS_PASSWORD in the environment, or --tls-cert FILE"
	testUsages(t, []usage{
		{
			args: "list --nats " + url,
			err:  "the NATS server at " + url + " refuses a client without credentials",
			hint: anyUser,
			code: 4,
		},
		{
			args: "list",
			env:  []string{"NATS_URL=" + url},
			err:  "the NATS server at " + url + " (from NATS_URL) refuses a client without credentials",
			hint: anyUser,
			code: 4,
		},
		{
			args: "list --nats " + url,
			env:  []string{"NATS_PASSWORD=secret-of-reader"},
			err:  "the NATS server at " + url + " refuses a client without credentials",
			hint: "give the user of the password in NATS_PASSWORD with --nats-user USER",
			code: 4,
		},
		{
			args: "list --nats-user reader --nats " + url,
			err:  "the NATS server at " + url + " refuses these credentials: the user reader has no password here",
			hint: "set NATS_PASSWORD in the environment to the password of reader",
			code: 4,
		},
		{
			args: "list --nats-user reader --nats " + url,
			env:  []string{"NATS_PASSWORD=wrong"},
			err:  "the NATS server at " + url + " refuses these credentials: it has no user reader, or one with another password",
			hint: "correct --nats-user, or NATS_PASSWORD in the environment",
			code: 4,
		},
		{
			args: "worker --sim --nats-user worker:wrong --nats " + url,
			err:  "the NATS server at " + url + " refuses these credentials: it has no user worker, or one with another password",
			hint: "correct --nats-user USER:PASSWORD",
			code: 4,
		},
		{
			args: "list --nats nats://reader:wrong@" + at,
			err:  "the NATS server at " + url + " refuses the user reader",
			hint: "correct the user and the password in the URL",
			code: 4,
		},
		{
			args: "list --nats nats://wrong@" + strings.TrimPrefix(token, "nats://"),
			err:  "the NATS server at " + token + " refuses the client with the token of the URL",
			hint: "NATS takes a name without a password in a URL as a token; give a user with --nats-user USER, and NATS_PASSWORD in the environment",
			code: 4,
		},
		{
			args: "list --nats nats://reader:secret@" + at + " --nats-user reader",
			err:  "--nats " + url + ": the URL names a user, and so does a flag",
			hint: "leave the user out of the URL, or leave out --nats-user and --nats-creds (NATS_USER and NATS_CREDS in the environment)",
			code: 2,
		},
		{
			args: "list --nats-creds nosuch.creds --nats " + url,
			err:  "--nats-creds nosuch.creds: no such file or directory",
			hint: "give the path of a file that this user may read",
			code: 2,
		},
		{
			args:  "list --nats-creds in.jsonl --nats " + url,
			files: files,
			err:   "--nats-creds in.jsonl: there is no seed of a user in it",
			hint:  "give a .creds file, such as nsc makes, or a file with the seed of an NKey user",
			code:  2,
		},
		{
			args:  "list --nats-creds user.nk --nats " + url,
			files: files,
			err:   "the NATS server at " + url + " refuses these credentials: it has no users with NKeys",
			hint:  "give --nats-user USER with NATS_PASSWORD in the environment, or a .creds file",
			code:  4,
		},
		wrongRole("submit in.jsonl --model m", "reader", "producer"),
		wrongRole("submit in.jsonl --model m", "worker", "producer"),
		wrongRole("submit in.jsonl --model m --wait -o out.jsonl.zst", "producer", "collector"),
		wrongRole("worker --sim", "reader", "worker"),
		wrongRole("worker --sim", "collector", "worker"),
		wrongRole("collect run1", "producer", "collector"),
		wrongRole("delete run1", "producer", "collector"),
		wrongRole("pause run1", "reader", "producer"),
		wrongRole("serve", "producer", "collector"),
		wrongRole("run in.jsonl --sim", "reader", "collector"),
		wrongRole("run in.jsonl --sim", "producer", "collector"),
	})
}

func TestUsageOfBusServers(t *testing.T) {
	t.Parallel()

	off := startNATSServer(t, "")
	account := startNATSServer(t, `jetstream { store_dir: STORE }
		accounts {
			A { users: [ { user: a, password: a } ] }
			B { jetstream: enabled, users: [ { user: b, password: b } ] }
		}`)
	payload := startNATSServer(t, "jetstream { store_dir: STORE }\nmax_payload: 1024")
	full := startNATSServer(t, "jetstream { store_dir: STORE, max_file: 1MB }")
	single := startNATSServer(t, "jetstream { store_dir: STORE }")
	web := httptest.NewServer(nil)
	t.Cleanup(web.Close)

	http := strings.TrimPrefix(web.URL, "http://")
	ssh, silent, gone := startTalker(t, "SSH-2.0-OpenSSH_9.2\r\n"), startTalker(t, ""), freeAddress(t)
	files := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n"}
	deaf := oldServer(t, "2.15.3") // JetStream does not answer there
	example := "for example --nats nats://HOST:4222"
	testUsages(t, []usage{
		{
			args: "list --nats " + off,
			err:  "JetStream is off at the NATS server at " + off,
			hint: "add jetstream { store_dir: DIR } to the server's configuration, or start it with -js",
			code: 4,
		},
		{
			args: "worker --sim --nats " + off,
			err:  "JetStream is off at the NATS server at " + off,
			hint: "add jetstream { store_dir: DIR } to the server's configuration, or start it with -js",
			code: 4,
		},
		{
			args: "list --nats-user a:a --nats " + account,
			err:  "the account of the user a at the NATS server at " + account + " has no JetStream",
			hint: `set "jetstream: enabled" for that account in the server's configuration, or use a user of another account`,
			code: 4,
		},
		{
			args: "list --nats " + payload,
			err:  "the NATS server at " + payload + " takes messages of 1024 bytes at most, and promptmill needs 65536",
			hint: "set max_payload: 16777216 in the server's configuration, as promptmill nats-config does",
			code: 4,
		},
		{
			args:  "submit in.jsonl --model m --nats " + full,
			files: files,
			err:   "the NATS server at " + full + " has no room for another stream",
			hint:  "delete ended runs with promptmill delete RUN, or raise max_file of its JetStream, or the limit of the account",
			code:  4,
		},
		{
			args:  "submit in.jsonl --model m --replicas 3",
			files: files,
			err:   "--replicas 3: a bus of promptmill is one server, and keeps one copy of each stream",
			hint:  "leave out --replicas, or name a cluster of NATS servers with --nats",
			code:  2,
		},
		{
			args: "collect first -o out.jsonl.zst --replicas 2",
			err:  "--replicas 2: a bus of promptmill is one server, and keeps one copy of each stream",
			hint: "leave out --replicas, or name a cluster of NATS servers with --nats",
			code: 2,
		},
		{
			args:  "submit in.jsonl --model m --replicas 3 --nats " + single,
			files: files,
			err:   "the NATS server at " + single + " is no cluster, and cannot have 3 copies of a stream",
			hint:  "leave out --replicas",
			code:  4,
		},
		{
			args: "list --nats " + http,
			err:  "connect to the NATS server at " + http + ": it is an HTTP server, not a NATS server",
			hint: "give the port of the NATS server, 4222 by default",
			code: 4,
		},
		{
			args: "list --nats " + ssh,
			err:  "connect to the NATS server at " + ssh + ": it is not a NATS server",
			hint: "give the port of the NATS server, 4222 by default",
			code: 4,
		},
		{
			args: "list --nats " + silent,
			err:  "connect to the NATS server at " + silent + ": it takes the connection and says nothing for 5s",
			hint: "give the port of the NATS server, 4222 by default; if it is this one, look at its log",
			code: 4,
		},
		{
			args: "list --nats " + gone,
			err:  "connect to the NATS server at " + gone + ": connection refused",
			hint: "start it, or correct the URL",
			code: 4,
		},
		{
			args: "list",
			env:  []string{"NATS_URL=" + gone},
			err:  "connect to the NATS server at " + gone + " (from NATS_URL): connection refused",
			hint: "start it, or correct the URL; without NATS_URL, this command uses the bus of this machine",
			code: 4,
		},
		{
			args: "list --nats " + gone + "," + ssh,
			err:  "connect to one of several NATS servers: " + gone + ": connection refused; " + ssh + ": it is not a NATS server",
			hint: "start it, or correct the URL",
			code: 4,
		},
		{
			args: "list --nats " + deaf,
			err:  "JetStream at the NATS server at " + strings.TrimPrefix(deaf, "nats://") + " does not answer within 5s",
			hint: "look at the server's log; in a cluster, more than half of the servers must run",
			code: 4,
		},
		{
			args: "list --nats " + deaf + " --join pm1_",
			err:  "--join and --nats each name a bus",
			hint: "leave out one of them, also in the environment",
			code: 2,
		},
		{
			args: "list --nats nosuch.invalid",
			err:  "connect to the NATS server at nosuch.invalid: no address has the name nosuch.invalid",
			hint: "correct the name in the URL, or give the address of the server in its place",
			code: 4,
		},
		{
			args: "list --nats http://127.0.0.1:4222",
			err:  "--nats http://127.0.0.1:4222: http is not the scheme of a NATS server, which is nats, tls, ws or wss",
			hint: example,
			code: 2,
		},
		{
			args: "list --nats nats://127.0.0.1:abc",
			err:  "--nats nats://127.0.0.1:abc: its port is not a number",
			hint: example,
			code: 2,
		},
		{
			args: "list --nats nats://127.0.0.1:99999",
			err:  "--nats nats://127.0.0.1:99999: there is no port 99999",
			hint: example,
			code: 2,
		},
		{
			args: "run in.jsonl --sim --nats nats://",
			err:  "--nats nats://: there is no host in it",
			hint: example,
			code: 2,
		},
	})
}

func TestUsageOfJoin(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	gone, other := freeAddress(t), freeAddress(t)
	join := c.joinOf(gone)
	several := mustParseJoin(t, join)
	several.Addresses = []string{gone, startTalker(t, ""), other}
	plain := mustParseJoin(t, join)
	plain.Addresses = []string{startNATSServer(t, "")}

	damaged := join[:20] + "A" + join[21:]
	if damaged == join {
		damaged = join[:20] + "B" + join[21:]
	}

	paste := "paste all of it, as promptmill serve or run --listen has printed it"
	running := "start promptmill serve or run --listen there, and let this port through its firewall"
	files := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n"}
	testUsages(t, []usage{
		{
			args: "list --join nats://127.0.0.1:4333",
			err:  `--join: not a join string: it does not begin with "pm1_"`,
			hint: "give a URL with --nats",
			code: 2,
		},
		{
			args: "list --nats " + join,
			err:  "--nats: this is a join string, not a URL",
			hint: "give it with --join",
			code: 2,
		},
		{
			args: "list --join pm2_abc",
			err:  "--join: not a join string: it is of another version of promptmill",
			hint: paste,
			code: 2,
		},
		{
			args: "worker --sim --join " + damaged,
			err:  "--join: not a join string: it is damaged, or a part of it is missing",
			hint: paste,
			code: 2,
		},
		{
			args: "doctor --join " + join[:20],
			err:  "--join: not a join string: a part of it is missing",
			hint: paste,
			code: 2,
		},
		{
			args: "list --join " + join + " --nats 127.0.0.1:4222",
			err:  "--join and --nats each name a bus",
			hint: "leave out one of them, also in the environment",
			code: 2,
		},
		{
			args: "list --join " + join,
			err:  "no bus answers at " + gone + ": connection refused",
			hint: running,
			code: 4,
		},
		{
			args: "list --join " + several.String(),
			err: "no bus answers at " + gone + ": connection refused; " + several.Addresses[1] +
				": it takes the connection and says nothing for 5s; " + other + ": connection refused",
			hint: running,
			code: 4,
		},
		{
			args: "list --join " + plain.String(),
			err:  "no bus answers at " + plain.Addresses[0] + ": it does not use TLS",
			hint: "start promptmill serve or run --listen there again: it is stopped, or another program has its port",
			code: 4,
		},
		{
			args:  "submit in.jsonl --model m --join " + join,
			files: files,
			err:   "this join string lets in a worker, and submit needs one of a producer",
			hint:  "promptmill join producer, on the machine of the bus, prints the right one",
			code:  2,
		},
	})
}

// A string that was pasted with quotes, blanks and line breaks joins its bus.
func TestJoinStringAsPasted(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	_, out := c.serve()
	join := joinOf(t, out)
	for _, text := range []string{
		`"` + join + `"`, "'" + join + "'", join[:40] + "\n" + join[40:], join[:40] + "\r\n  " + join[40:] + "\n",
		"“" + join + "”", "`" + join + "`",
	} {
		c.must("list", "--join", text)
	}
}

// A file with the seed of an NKey user is credentials.
func TestNKeyCredentials(t *testing.T) {
	t.Parallel()

	pair, err := nkeys.CreateUser()
	must(t, err)
	seed, err := pair.Seed()
	must(t, err)
	public, err := pair.PublicKey()
	must(t, err)

	c := newCommand(t)
	path := filepath.Join(c.dir, "user.nk")
	must(t, os.WriteFile(path, append(seed, '\n'), 0o600))
	url := startNATSServer(t, "jetstream { store_dir: STORE }\nauthorization { users: [ { nkey: "+public+" } ] }")
	c.must("list", "--nats", url, "--nats-creds", path)
}

// operator is the operator of a NATS server, with one account that has JetStream.
type operator struct {
	t       *testing.T
	pair    nkeys.KeyPair
	account nkeys.KeyPair
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	pair, err := nkeys.CreateOperator()
	must(t, err)
	account, err := nkeys.CreateAccount()
	must(t, err)
	return &operator{t: t, pair: pair, account: account}
}

// config returns the configuration of a server of the operator.
func (o *operator) config(limits jwt.JetStreamLimits) string {
	o.t.Helper()

	own := jwt.NewOperatorClaims(publicKey(o.t, o.pair))
	token, err := own.Encode(o.pair)
	must(o.t, err)

	claims := jwt.NewAccountClaims(publicKey(o.t, o.account))
	claims.Limits.JetStreamLimits = limits
	account, err := claims.Encode(o.pair)
	must(o.t, err)

	pair, err := nkeys.CreateAccount() // JetStream needs one for the system
	must(o.t, err)
	system := publicKey(o.t, pair)
	systemAccount, err := jwt.NewAccountClaims(system).Encode(o.pair)
	must(o.t, err)

	return fmt.Sprintf("jetstream { store_dir: STORE }\noperator: %s\nsystem_account: %s\nresolver: MEMORY\n"+
		"resolver_preload: { %s: %s, %s: %s }\n",
		token, system, system, systemAccount, publicKey(o.t, o.account), account)
}

// credentials writes a .creds file of a user that ends at a time, and returns its path.
func (o *operator) credentials(name string, ends time.Time) (path string) {
	o.t.Helper()

	user, err := nkeys.CreateUser()
	must(o.t, err)
	seed, err := user.Seed()
	must(o.t, err)

	claims := jwt.NewUserClaims(publicKey(o.t, user))
	claims.Expires = ends.Unix()
	token, err := claims.Encode(o.account)
	must(o.t, err)

	text, err := jwt.FormatUserConfig(token, seed)
	must(o.t, err)
	path = filepath.Join(o.t.TempDir(), name)
	must(o.t, os.WriteFile(path, text, 0o600))

	return path
}

func publicKey(t *testing.T, pair nkeys.KeyPair) string {
	t.Helper()
	key, err := pair.PublicKey()
	must(t, err)
	return key
}

// A .creds file lets in a user of the server's operator, and no other.
func TestUsageOfBusCredentials(t *testing.T) {
	t.Parallel()

	o, other := newOperator(t), newOperator(t)
	later := time.Now().Add(time.Hour)
	good, foreign := o.credentials("good.creds", later), other.credentials("foreign.creds", later)
	expired := o.credentials("expired.creds", time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC))
	at := startNATSServer(t, o.config(jwt.JetStreamLimits{DiskStorage: jwt.NoLimit, MemoryStorage: jwt.NoLimit,
		Streams: jwt.NoLimit, Consumer: jwt.NoLimit}))
	bare := startNATSServer(t, o.config(jwt.JetStreamLimits{}))
	few := startNATSServer(t, o.config(jwt.JetStreamLimits{DiskStorage: 1 << 30, MemoryStorage: 1 << 20, Streams: 1,
		Consumer: jwt.NoLimit}))

	c := newCommand(t)
	c.must("list", "--nats", at, "--nats-creds", good)

	files := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n"}
	hint := "give the credentials of a user that this server knows with --nats-creds FILE"
	testUsages(t, []usage{
		{
			args: "list --nats " + at + " --nats-creds " + foreign,
			err:  "the NATS server at " + at + " refuses these credentials, of " + foreign,
			hint: hint,
			code: 4,
		},
		{
			args: "list --nats " + at + " --nats-creds " + expired,
			err:  "the NATS server at " + at + " refuses these credentials: " + expired + " expired at 2025-03-01 12:00:00 UTC",
			hint: hint,
			code: 4,
		},
		{
			args: "list --nats " + bare + " --nats-creds " + good,
			err:  "the account of the user of " + good + " at the NATS server at " + bare + " has no JetStream",
			hint: `set "jetstream: enabled" for that account in the server's configuration, or use a user of another account`,
			code: 4,
		},
		{
			args:  "submit in.jsonl --model m --nats " + few + " --nats-creds " + good,
			files: files,
			err:   "the NATS server at " + few + " has as many streams as the account may have",
			hint:  "delete ended runs with promptmill delete RUN, or raise the limit of the account",
			code:  4,
		},
	})
}

// A worker ends when its NATS server comes back and refuses its user.
func TestWorkerWhoseUserWasChanged(t *testing.T) {
	t.Parallel()

	address, accounts := freeAddress(t), natsAccounts(t)
	s := startNATSServerAt(t, address, accounts)
	c := newCommand(t)
	working, out := c.start("worker", "--sim", "--nats", address, "--nats-user", "worker:secret-of-worker")
	poll(t, pollTime, "the worker", func() bool { return strings.Contains(out.String(), ": bus "+address) })

	s.Shutdown()
	s.WaitForShutdown()
	startNATSServerAt(t, address, strings.ReplaceAll(accounts, "secret-of-worker", "another"))

	code := waitExit(t, working, out, patience)
	if code != exit.CodeUnreachable || strings.Contains(out.String(), "nats: ") ||
		strings.Count(out.String(), "lost the bus; reconnecting") != 1 ||
		!strings.Contains(out.String(), "error: the NATS server at "+address+" does not let the user worker in any more\n") ||
		!strings.Contains(out.String(), "hint: give the user and the password that the server has now\n") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// A user with a part of a role's permissions gets the subject that is missing.
func TestMissingPermission(t *testing.T) {
	t.Parallel()

	url := startNATSServer(t, `jetstream { store_dir: STORE }
		accounts { A { jetstream: enabled, users: [
			{ user: all, password: all }
			{ user: part, password: part, permissions: {
				publish: { allow: [ "$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.DIRECT.GET.*" ] }
				subscribe: { allow: "_INBOX_reader.>" }
			} }
		] } }`)
	l, err := busconn.Dial(url, zerolog.Nop(), nats.UserInfo("all", "all"))
	must(t, err)
	t.Cleanup(l.Close)
	must(t, bus.CreateBuckets(t.Context(), l.JS, l.Limits))

	said, code := newCommand(t).run("status", "some-run", "--nats", url, "--nats-user", "part:part")
	if code != exit.CodeUnreachable ||
		!strings.Contains(said, "error: the user part of the NATS server at "+url+" has no right to the subject $JS.API.") ||
		!strings.Contains(said, "hint: promptmill nats-config prints the permissions of each role, also after an upgrade\n") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
}

// A worker whose user has another name than its role works with the permissions of the role, and is
// refused without them.
func TestUserOfAnotherName(t *testing.T) {
	t.Parallel()

	text := strings.ReplaceAll(natsAccounts(t), "user: worker,", "user: gpu,")
	text = strings.ReplaceAll(text, "user: reader,", "user: dashboard,")
	url := startNATSServer(t, text)

	c := newCommand(t)
	c.must("list", "--nats", url, "--nats-user", "dashboard:secret-of-reader")
	said, code := c.run("worker", "--sim", "--nats", url, "--nats-user", "dashboard:secret-of-reader")
	if code != 4 || !strings.Contains(said, "the user dashboard of the NATS server at "+url+" may not subscribe to _INBOX_worker.>") &&
		!strings.Contains(said, "the user dashboard of the NATS server at "+url+" has the rights of a reader") {
		t.Errorf("exit code %d:\n%s", code, said)
	}

	working, out := c.start("worker", "--sim", "--nats", url, "--nats-user", "gpu:secret-of-worker")
	poll(t, pollTime, "the worker", func() bool { return strings.Contains(out.String(), ": bus "+url) })
	terminate(t, working, out)
}
