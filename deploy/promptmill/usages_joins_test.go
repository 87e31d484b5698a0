package main

import "testing"

// The command lines of join that are refused, and what they say.
func TestUsagesOfJoins(t *testing.T) {
	t.Parallel()

	const file = "join-strings.json"
	joins := map[string]string{file: `{"version": 1, "revision": 2, "joins": [
		{"name": "box7", "role": "worker", "id": "a", "identity": "i", "created_at": "2026-11-29T22:00:00Z"},
		{"name": "old", "role": "worker", "id": "b", "identity": "i", "created_at": "2026-11-29T22:00:00Z",
			"revoked_at": "2026-11-30T22:00:00Z"}]}`}
	broken := map[string]string{file: `{"version": 1}`}
	later := map[string]string{file: `{"version": 2, "joins": []}`}
	const expiryHint = "for example --expires 30d, --expires 12h or --expires 2027-01-31"

	testUsages(t, []usage{
		{
			args: "join creat",
			err:  `there is no role "creat"`,
			hint: "did you mean promptmill join create?",
			code: 2,
		},
		{
			args: "join --json list",
			err:  "--json stands before list",
			hint: "put it behind list",
			code: 2,
		},
		{
			args: "join create",
			err:  "want a name for the join string",
			hint: "for example promptmill join create box7",
			code: 2,
		},
		{
			args: "join create worker",
			err:  "the name worker: it is the name of a role",
			hint: "choose another name, such as box7; --role says the role",
			code: 2,
		},
		{
			args: "join create a/b",
			err:  "the name a/b: it may have letters, digits, dots, dashes and underscores, and begins with a letter or a digit",
			hint: "choose another name, such as box7; --role says the role",
			code: 2,
		},
		{
			args: "join create box7 --role boss",
			err:  `--role: there is no role "boss"`,
			hint: "want worker, producer, collector or reader",
			code: 2,
		},
		{
			args: "join create box7 --expires soon",
			err:  "--expires soon: it is no duration, no date and no time",
			hint: expiryHint,
			code: 2,
		},
		{
			args: "join create box7 --expires 2020-01-31",
			err:  "--expires 2020-01-31: that is over already",
			hint: expiryHint,
			code: 2,
		},
		{
			args: "join create box7 --expires 0s",
			err:  "--expires 0s: that is over already",
			hint: expiryHint,
			code: 2,
		},
		{
			args: "join create box7 --expires 9999-06-01",
			err:  "--expires 9999-06-01: that is after the year 9998",
			hint: expiryHint,
			code: 2,
		},
		{
			args: "join create box7 --advertise http://head",
			err:  "--advertise http://head: want the name or address of this box, and perhaps a port",
			hint: "for example --advertise head.example or --advertise head.example:4333",
			code: 2,
		},
		{
			args:  "join list --state .",
			files: broken,
			err:   "the join strings in DIR/join-strings.json cannot be used: it is not what promptmill join create writes",
			hint:  "repair the file, or move it away: the strings in it let nobody in then",
			code:  1,
		},
		{
			args:  "join revoke box7 --state .",
			files: later,
			err: "the join strings in DIR/join-strings.json cannot be used: it is not what promptmill join create writes: " +
				"it is of a later promptmill (version 2, this one reads 1)",
			hint: "repair the file, or move it away: the strings in it let nobody in then",
			code: 1,
		},
		{
			args: "join revoke",
			err:  "want the name of one join string",
			hint: "promptmill join list shows the names",
			code: 2,
		},
		{
			args: "join revoke box7 --state here",
			err:  "there is no join string box7: DIR/here/join-strings.json has none",
			hint: "promptmill join create --state here NAME makes one",
			code: 2,
		},
		{
			args:  "join revoke boxx --state .",
			files: joins,
			err:   "there is no join string boxx",
			hint:  "did you mean box7? promptmill join list --state . shows the names",
			code:  2,
		},
		{
			args:  "join revoke old --state .",
			files: joins,
			err:   "the join string old was revoked already",
			hint:  "promptmill join list --state . shows the others",
			code:  2,
		},
	})
}
