package prompt_test

import (
	"context"
	"fmt"

	"github.com/promptmill/promptmill/producer/prompt"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

func Example() {
	columns := []table.Column{{Name: "text", Kind: table.KindText}}
	r, err := prompt.New(context.Background(), prompt.Config{
		Settings: proto.Settings{Rows: &proto.Rows{Prompt: "Classify: {{.text | truncate 5}}"}},
		Columns:  columns,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	line, err := r.AppendLine(nil, table.Row{
		Number:  1,
		Columns: columns,
		Values:  []table.Value{{Kind: table.KindText, Text: []byte("printer is broken")}},
	})

	fmt.Println(string(line), err)
	// Output: {"messages":[{"role":"user","content":"Classify: print"}]} <nil>
}
