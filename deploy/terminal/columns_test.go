package terminal_test

import (
	"fmt"
	"os"

	"github.com/promptmill/promptmill/deploy/terminal"
)

func ExampleColumns_Print() {
	table := func() terminal.Columns {
		return terminal.Columns{
			{Head: "RUN", Cells: []string{"a-1", "b-2"}},
			{Head: "INPUT", Cells: []string{"a-long-name-of-a-file.jsonl", "größe.jsonl"}, CutAt: 1, Least: 8},
			{Head: "DONE", Cells: []string{"4/10 40%", "0/3 0%"}, BriefAt: 2, Brief: []string{"40%", "0%"}},
			{Head: "TIME", Cells: []string{"3m", "1h02m"}, DropAt: 3},
		}
	}

	for _, width := range []int{0, 40, 28, 20} {
		fmt.Println(width, "cells:")
		table().Print(os.Stdout, width)
	}
	// Output:
	// 0 cells:
	// RUN  INPUT                        DONE      TIME
	// a-1  a-long-name-of-a-file.jsonl  4/10 40%  3m
	// b-2  größe.jsonl                  0/3 0%    1h02m
	// 40 cells:
	// RUN  INPUT               DONE      TIME
	// a-1  a-long-name-of-...  4/10 40%  3m
	// b-2  größe.jsonl         0/3 0%    1h02m
	// 28 cells:
	// RUN  INPUT       DONE  TIME
	// a-1  a-long-...  40%   3m
	// b-2  größe.j...  0%    1h02m
	// 20 cells:
	// RUN  INPUT      DONE
	// a-1  a-long...  40%
	// b-2  größe....  0%
}
