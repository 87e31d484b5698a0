package main

import "testing"

func TestUsageOfSecretFiles(t *testing.T) {
	t.Parallel()

	files := map[string]string{"empty": "\n", "text": "no string", "url": "nats://127.0.0.1:4222\n"}
	const (
		readable = "give the path of a file that this user may read"
		both     = "leave out one of them, also in the environment"
		bus      = "list --nats nats://127.0.0.1:1 --nats-user reader"
	)
	usages := []usage{
		{
			args: "list --join-file nosuch",
			err:  "--join-file nosuch: no such file or directory",
			hint: readable,
		},
		{
			args: "worker --sim --join-file .",
			err:  "--join-file .: is a directory",
			hint: readable,
		},
		{
			args: "worker --sim --join-file empty",
			err:  "--join-file empty: the file is empty",
			hint: "write the secret into it",
		},
		{
			args: "list --join-file text",
			err:  `--join-file text: not a join string: it does not begin with "pm1_"`,
			hint: "paste all of it, as promptmill serve or run --listen has printed it",
		},
		{
			args: "list",
			env:  []string{"PROMPTMILL_JOIN_FILE=url"},
			err:  `--join-file url: not a join string: it does not begin with "pm1_"`,
			hint: "give a URL with --nats",
		},
		{
			args: "list --join-file -",
			err:  "--join-file -: the secret is read from a file, and standard input may be the input of the command",
			hint: "give the path of a file, or /dev/stdin",
		},
		{
			args: "list --join x --join-file text",
			err:  "--join and --join-file each name a bus",
			hint: both,
		},
		{
			args: "list",
			env:  []string{"PROMPTMILL_JOIN=x", "PROMPTMILL_JOIN_FILE=text"},
			err:  "--join and --join-file each name a bus",
			hint: both,
		},
		{
			args: "list --join-file text --nats nats://127.0.0.1:1",
			err:  "--join-file and --nats each name a bus",
			hint: both,
		},
		{
			args: "worker --model-key-file nosuch",
			err:  "--model-key-file nosuch: no such file or directory",
			hint: readable,
		},
		{
			args: "worker --model-key-file text --api-key x",
			err:  "--model-key-file text: --api-key names a key too",
			hint: both,
		},
		{
			args: bus + " --nats-password-file nosuch",
			err:  "--nats-password-file nosuch: no such file or directory",
			hint: readable,
		},
		{
			args: bus + ":secret --nats-password-file text",
			err:  "--nats-password-file text: --nats-user has a password, and so has the file",
			hint: "leave the password out of --nats-user",
		},
		{
			args: "list --nats nats://127.0.0.1:1 --nats-password-file text",
			err:  "--nats-password-file text has the password of no user",
			hint: "give the user too, with --nats-user",
		},
	}

	for i := range usages {
		usages[i].files, usages[i].code = files, 2
	}

	testUsages(t, usages)
}
