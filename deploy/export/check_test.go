package export

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A row that is lost, doubled, swapped or changed is found as such, whatever comes behind it, in each format of
// text.
func TestCheckFindsRows(t *testing.T) {
	t.Parallel()

	const rows = 500
	var input strings.Builder
	input.WriteString("id,text\n")
	var lines []string
	for i := range rows {
		fmt.Fprintf(&input, "%d,text %d\n", i, i%7)
		lines = append(lines, answeredLine(i, fmt.Sprintf("request-%d", i+1), fmt.Sprintf(`"content":"a%d"`, i%5)))
	}

	r := newTestRun(t, "in.csv", input.String(), lines, nil)

	for _, ending := range []string{".csv", ".tsv", ".jsonl"} {
		r.cfg.Path = string(r.cfg.Output) + ending
		table := strings.SplitAfter(r.write(), "\n")
		table = table[:len(table)-1]
		if ending != ".jsonl" {
			table = table[1:]
		}
		place := func(id int) string { return fmt.Sprintf("in.csv, row %d (id \"%d\")", id+1, id) }
		at := func(row, id int) string { return fmt.Sprintf("out%s, row %d (id \"%d\")", ending, row, id) }

		for _, tt := range []struct {
			name   string
			change func([]string) []string
			want   Comparison
		}{
			{
				"nothing", func(t []string) []string { return t },
				Comparison{Found: rows, Complete: true, Examples: []string{}},
			},
			{
				"lost", func(t []string) []string { return slices.Delete(t, 100, 101) },
				Comparison{Found: rows - 1, Missing: 1, Examples: []string{
					place(100) + ": it is missing in the table, after out" + ending + ", row 100",
				}},
			},
			{
				"two lost in two places",
				func(t []string) []string { return slices.Delete(slices.Delete(t, 400, 401), 7, 8) },
				Comparison{Found: rows - 2, Missing: 2, Examples: []string{
					place(7) + ": it is missing in the table, after out" + ending + ", row 7",
					place(400) + ": it is missing in the table, after out" + ending + ", row 399",
				}},
			},
			{
				"many lost", func(t []string) []string { return slices.Delete(t, 100, 400) },
				Comparison{Found: rows - 300, Missing: 300, Examples: []string{
					place(100) + ": this row and the next 299 are missing in the table, after out" + ending + ", row 100",
				}},
			},
			{
				"many doubled", func(t []string) []string { return slices.Insert(t, 300, t[200:300]...) },
				Comparison{Found: rows + 100, Extra: 100, Examples: []string{
					at(301, 200) + ": this row and the next 99 are too many",
				}},
			},
			{
				"many moved", func(t []string) []string {
					rows := slices.Clone(t[10:40])
					return slices.Insert(slices.Delete(t, 10, 40), 300, rows...)
				},
				Comparison{Found: rows, Missing: 30, Extra: 30, Examples: []string{
					place(10) + ": this row and the next 29 are missing in the table, after out" + ending + ", row 10",
					at(301, 10) + ": this row and the next 29 are in the wrong place: the first belongs to in.csv, row 11",
				}},
			},
			{
				"doubled", func(t []string) []string { return slices.Insert(t, 42, t[41]) },
				Comparison{Found: rows + 1, Extra: 1, Examples: []string{
					at(43, 41) + ": it is one row too many, and repeats row 42",
				}},
			},
			{
				"swapped", func(t []string) []string {
					t[10], t[11] = t[11], t[10]
					return t
				},
				Comparison{Found: rows, Differing: 2, Examples: []string{
					fmt.Sprintf(`out%s, row 11: id is "11", must be "10"`, ending),
					fmt.Sprintf(`out%s, row 12: id is "10", must be "11"`, ending),
				}},
			},
			{
				"moved", func(t []string) []string {
					row := t[10]
					return slices.Insert(slices.Delete(t, 10, 11), 300, row)
				},
				Comparison{Found: rows, Missing: 1, Extra: 1, Examples: []string{
					place(10) + ": it is missing in the table, after out" + ending + ", row 10",
					at(301, 10) + ": it is in the wrong place: it belongs to in.csv, row 11",
				}},
			},
			{
				"in place of another", func(t []string) []string {
					t[20] = t[30]
					return t
				},
				Comparison{Found: rows, Differing: 1, Examples: []string{
					fmt.Sprintf(`out%s, row 21: id is "30", must be "20"`, ending),
				}},
			},
			{
				"the end lost", func(t []string) []string { return t[:rows-1] },
				Comparison{Found: rows - 1, Missing: 1, Examples: []string{
					place(rows-1) + ": it is missing in the table, after out" + ending + ", row 499",
				}},
			},
		} {
			changed := strings.Join(tt.change(slices.Clone(table)), "")
			if ending != ".jsonl" {
				changed = strings.ReplaceAll("id,text,answer,finish_reason,error,input_tokens,output_tokens,latency_ms\n",
					",", map[string]string{".csv": ",", ".tsv": "\t"}[ending]) + changed
			}
			must(t, os.WriteFile(r.cfg.Path, []byte(changed), 0o644))

			got, err := Check(t.Context(), r.cfg)
			must(t, err)

			tt.want.Rows = rows
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(Comparison{})); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", ending, tt.name, diff)
			}
		}
	}
}
