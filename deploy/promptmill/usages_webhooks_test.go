package main

import "testing"

func TestUsageOfWebhooks(t *testing.T) {
	t.Parallel()

	const example = "for example https://example.com/hooks"
	const onEnd = `for example --on-end 'notify-send "$PROMPTMILL_END_RUN is $PROMPTMILL_END_STATE"'`
	const noBus = "start one with promptmill serve or promptmill run, or name one with " +
		"--join-file FILE, --context NAME or --nats URL"
	files := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n", "secret": "hush\n", "empty": "\n"}

	testUsages(t, []usage{
		{
			args: "webhooks lst",
			err:  `unknown command "lst"`,
			hint: "did you mean promptmill webhooks list? promptmill webhooks --help lists all commands",
			code: 2,
		},
		{
			args: "serve --webhook example.com/hooks",
			err:  "--webhook example.com/hooks: must begin with http:// or https://",
			hint: example,
			code: 2,
		},
		{
			args: "serve --webhook ftp://example.com",
			err:  "--webhook ftp://example.com: must begin with http:// or https://",
			hint: example,
			code: 2,
		},
		{
			args: "serve --webhook https://me:secret@example.com",
			err: "--webhook https://example.com: must have no user or password: events are signed, and the " +
				"receiver verifies that",
			hint: example,
			code: 2,
		},
		{
			args: "serve --webhook http://me:sekret@example.com/flaky?token=TOPSECRET",
			err: "--webhook http://example.com/flaky?...: must have no user or password: events are signed, and the " +
				"receiver verifies that",
			hint: "for example https://example.com/hooks",
			code: 2,
		},
		{
			args: "serve --webhook http://me:sekret@example.com:x/?token=TOPSECRET",
			err:  "--webhook: it is not a URL",
			hint: "for example https://example.com/hooks",
			code: 2,
		},
		{
			args: "serve --webhook https://example.com/h --webhook https://example.com/h",
			err:  "--webhook https://example.com/h is given twice",
			hint: "leave out one of them",
			code: 2,
		},
		{
			args: "serve --webhook-secret-file secret",
			err:  "--webhook-secret-file needs --webhook",
			hint: "give --webhook too, or leave out --webhook-secret-file",
			code: 2,
		},
		{
			args:  "serve --webhook https://example.com --webhook-secret-file secret",
			files: files,
			err:   "secret: line 1: the signing secret of webhooks must begin with whsec_",
			hint:  "promptmill webhooks secret prints a secret in that form",
			code:  2,
		},
		{
			args:  "webhooks secret --webhook-secret-file empty",
			files: files,
			err:   "empty: it has no signing secret of webhooks",
			hint:  "promptmill webhooks secret prints a secret in that form",
			code:  2,
		},
		{
			args: "serve --webhook https://example.com --webhook-secret-file nosuch",
			err:  "--webhook-secret-file: read the signing secret of webhooks in nosuch: no such file or directory",
			hint: "promptmill webhooks secret prints the secret of this machine, for such a file",
			code: 2,
		},
		{
			args: "webhooks list",
			err:  "no bus runs on this machine",
			hint: noBus,
			code: 4,
		},
		{
			args: "webhooks redeliver",
			err:  "want the id of an event, or --failed",
			hint: "promptmill webhooks list shows the events",
			code: 2,
		},
		{
			args: "webhooks redeliver evt_1 --failed",
			err:  "--failed sends all events that were given up, and evt_1 are named",
			hint: "leave out one of them",
			code: 2,
		},
		{
			args: "webhooks test",
			err:  "want the URL of an endpoint, or --all",
			hint: "for example promptmill webhooks test http://127.0.0.1:9000/hooks",
			code: 2,
		},
		{
			args: "webhooks test --all https://example.com",
			err:  "want the URL of an endpoint, or --all",
			hint: "for example promptmill webhooks test http://127.0.0.1:9000/hooks",
			code: 2,
		},
		{
			args: "webhooks test example.com",
			err:  "example.com: must begin with http:// or https://",
			hint: example,
			code: 2,
		},
		{
			args:  "run in.jsonl --sim --on-end (",
			files: files,
			err:   "--on-end: the shell cannot read it at character 1: `(` must be followed by a statement list",
			hint:  onEnd,
			code:  2,
		},
		{
			args:  "submit in.jsonl --on-end true",
			files: files,
			err:   "--on-end needs --wait",
			hint:  "give --wait too, or leave out --on-end",
			code:  2,
		},
		{
			args: "serve --on-end if",
			err:  "--on-end: the shell cannot read it at character 1: `if` must be followed by a statement list",
			hint: onEnd,
			code: 2,
		},
	})
}

// A bus without webhooks, or without the event that is named.
func TestUsageOfEvents(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.serve()
	testUsages(t, []usage{
		{
			args:  "webhooks redeliver evt_1",
			state: c.state,
			err:   "there is no event evt_1",
			hint:  "promptmill webhooks list shows the events",
			code:  2,
		},
		{
			args:  "webhooks test --all",
			state: c.state,
			err:   "no process on this bus has had a webhook",
			hint:  "start promptmill serve with --webhook URL",
			code:  1,
		},
	})
}
