package table

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

func TestCSV(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, text string
		table      proto.Table
		want       []string
	}{
		{
			name: "plain rows",
			text: "id,text\n1,hello\n2,bye\n",
			want: []string{`1/2 id="1" text="hello"`, `2/3 id="2" text="bye"`},
		},
		{
			name: "quotes, line breaks and delimiters in fields",
			text: "id,text\r\n1,\"a \"\"b\"\"\r\nc, d\ne\"\r\n\"2\",\"\"\r\n,\"\"\"\"",
			want: []string{`1/2 id="1" text="a \"b\"\r\nc, d\ne"`, `2/5 id="2" text=null`, `3/6 id=null text="\""`},
		},
		{
			name: "blank lines",
			text: "\n\r\nid,text\n\n1,a\n\r\n\n2,b\n\n\r",
			want: []string{`1/5 id="1" text="a"`, `2/8 id="2" text="b"`},
		},
		{
			name: "wrong rows",
			text: "id,text\n1\n2,b,c\n3,5\" pipe\n4,\"a\"b\n5,\"a\nb\"c\n6,x\ry\n7,z\n",
			want: []string{
				"1/2: it has 1 field, and the header has 2",
				"2/3: it has 3 fields, and the header has 2",
				"3/4: " + errBareQuote.Error(),
				"4/5: " + errBehindQuote.Error(),
				"5/6: " + errBehindQuote.Error(),
				"6/8: " + errBareReturn.Error(),
				`7/9 id="7" text="z"`,
			},
		},
		{
			name: "a quote that never ends",
			text: "id,text\n1,a\n2,\"b\n3,c\n",
			want: []string{`1/2 id="1" text="a"`, "end: x.csv, row 2, line 3: " + errOpenQuote.Error()},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			cfg := configOf(t, "x.csv", tt.text)
			cfg.Table = tt.table
			rows, _ := readAll(t, cfg)
			if diff := cmp.Diff(tt.want, rows); diff != "" {
				t.Errorf("the rows differ (-want +got):\n%s", diff)
			}
		})
	}
}
