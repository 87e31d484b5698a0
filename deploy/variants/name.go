package variants

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/modelservers"
)

// shorten returns the last parts of names that are paths, such as those of models. A name whose last part another one
// has too stays whole.
func shorten(names []string) []string {
	bases := make([]string, len(names))
	for i, name := range names {
		bases[i] = name
		if base := path.Base(name); strings.Contains(name, "/") && base != "/" && base != "." {
			bases[i] = base
		}
	}

	short := slices.Clone(bases)
	for i, base := range bases {
		for j := range bases {
			if i != j && bases[j] == base {
				short[i] = names[i]
			}
		}
	}

	return short
}

// nameCommand returns the name of one of several commands: its program, with its number where several have the same;
// it is empty for the only one.
func nameCommand(templates []*modelservers.Template, i int) string {
	name, same, before := templates[i].Program(), 0, 0
	for j, t := range templates {
		if t.Program() == name {
			same++
			if j < i {
				before++
			}
		}
	}

	switch {
	case len(templates) == 1:
		return ""
	case same > 1:
		return fmt.Sprintf("%s-%d", name, before+1)
	}

	return name
}

// nameSettings returns the words of a variant's name for its values: those that differ.
func (g Grid) nameSettings(settings []trial.Setting) (words []string) {
	for _, s := range settings {
		i := slices.IndexFunc(g.Axes, func(a Axis) bool { return a.Name == s.Name })
		values := g.Axes[i].Values
		switch {
		case len(values) == 1:
		case s.Value == "":
			words = append(words, "no "+s.Name)
		default:
			words = append(words, s.Name+"="+shorten(values)[slices.Index(values, s.Value)])
		}
	}

	return words
}

// joinName joins the words of a name that are not empty. Without any, it returns the first of the others.
func joinName(words []string, others ...string) string {
	isEmpty := func(word string) bool { return word == "" }
	if words = slices.DeleteFunc(words, isEmpty); len(words) > 0 {
		return strings.Join(words, " ")
	}
	return slices.DeleteFunc(others, isEmpty)[0]
}

// nameServers returns servers with names: the host and port of those that have none, or the whole URL where another
// one has the same.
func nameServers(servers []Server) []Server {
	hosts := map[string]int{}
	hostOf := func(s Server) string {
		if u, err := url.Parse(s.URL); err == nil {
			return u.Host
		}
		return s.URL
	}
	for _, s := range servers {
		hosts[hostOf(s)]++
	}

	named := slices.Clone(servers)
	for i, s := range named {
		switch host := hostOf(s); {
		case s.Name != "":
		case hosts[host] > 1:
			named[i].Name = s.URL
		default:
			named[i].Name = host
		}
	}

	return named
}
