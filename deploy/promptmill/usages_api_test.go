package main

import "testing"

func TestUsageOfKeys(t *testing.T) {
	t.Parallel()

	keys := map[string]string{"keys.json": `{"keys":[{"id":"key_aaaaaaaaaaaa","name":"alice","sha256":` +
		`"0000000000000000000000000000000000000000000000000000000000000000","created_at":"2026-11-29T00:00:00Z"}]}`}
	broken := map[string]string{"keys.json": "keys:\n"}

	testUsages(t, []usage{
		{
			args: "key lst",
			err:  `unknown command "lst"`,
			hint: "did you mean promptmill key list? promptmill key --help lists all commands",
			code: 2,
		},
		{
			args: "key --name alice",
			err:  "unknown flag --name",
			hint: "promptmill worker and key create have it; promptmill key --help lists all commands",
			code: 2,
		},
		{
			args: "key create alice",
			err:  "unexpected argument alice",
			hint: "usage: promptmill key create [FLAGS]",
			code: 2,
		},
		{
			args: "key create --name key_mine",
			err:  "--name key_mine: the name cannot be used: it begins with key_, as the ids of keys do",
			hint: "choose another name",
			code: 2,
		},
		{
			args:  "key create --api-key-file keys.json --name alice",
			files: keys,
			err:   `--name alice: the name cannot be used: key_aaaaaaaaaaaa has the name "alice" already`,
			hint:  "choose another name",
			code:  2,
		},
		{
			args:  "key create --api-key-file keys.json",
			files: broken,
			err:   "the API keys in DIR/keys.json cannot be used: it is not what promptmill key create writes",
			hint:  "repair the file, or move it away and make new keys",
			code:  1,
		},
		{
			args: "key create --api-key-file nosuch/keys.json",
			err:  "write the API keys in DIR/nosuch/keys.json: no such file or directory",
			hint: "name another file with --api-key-file",
			code: 1,
		},
		{
			args: "key create --api-key-file .",
			err:  "write the API keys in DIR: it is not a regular file: DIR is a folder",
			hint: "name another file with --api-key-file",
			code: 1,
		},
		{
			args: "key revoke",
			err:  "want the id or the name of one key",
			hint: "promptmill key list shows the keys",
			code: 2,
		},
		{
			args: "key revoke alice",
			err:  "there is no key alice: DIR/state/api-keys.json has none",
			hint: "promptmill key create makes one",
			code: 2,
		},
		{
			args:  "key revoke alicf --api-key-file keys.json",
			files: keys,
			err:   "there is no key alicf in DIR/keys.json",
			hint:  "did you mean alice? promptmill key list shows the keys",
			code:  2,
		},
		{
			args:  "key list --api-key-file keys.json",
			files: broken,
			err:   "the API keys in DIR/keys.json cannot be used: it is not what promptmill key create writes",
			hint:  "repair the file, or move it away and make new keys",
			code:  1,
		},
		{
			args: "key list --api-key-file .",
			err:  "read the API keys in DIR: is a directory",
			hint: "name another file with --api-key-file",
			code: 1,
		},
	})
}
