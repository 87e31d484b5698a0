package notice

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// noEnvironment is an environment without variables.
func noEnvironment(string) string { return "" }

func TestParse(t *testing.T) {
	relative, err := filepath.Abs("leave")
	if err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct {
		words []string
		want  string // the sources, or the beginning of the error
	}{
		{[]string{"auto"}, "[auto]"},
		{[]string{"none"}, "[]"},
		{[]string{"aws,gcp, azure"}, "[aws gcp azure]"},
		{[]string{"AWS", "file:/run/leave"}, "[aws file:/run/leave]"},
		{[]string{"aws,file:/run/a,b"}, "[aws file:/run/a,b]"},
		{[]string{"file:///run/leave"}, "[file:/run/leave]"},
		{[]string{"file:leave"}, "[file:" + relative + "]"},
		{[]string{"https://box:secret@head/notice?a=1,2"}, "[https://box:xxxxx@head/notice?a=xxxxx]"},
		{[]string{"http://head/a?k=1", "http://head/a?k=2"}, "[http://head/a?k=xxxxx http://head/a?k=xxxxx]"},
		{[]string{"http://head/a?secret&k=1&b="}, "[http://head/a?xxxxx&k=xxxxx&b=xxxxx]"},
		{[]string{"http://head/a?k=1", "http://head/a?k=1"}, "http://head/a?k=xxxxx is given twice"},
		{nil, "no source is named: give auto"},
		{[]string{""}, "no source is named: give auto"},
		{[]string{"aws,none"}, "none excludes every other source"},
		{[]string{"none", "none"}, "none excludes every other source"},
		{[]string{"aws", "aws"}, "aws is given twice"},
		{[]string{"file:/a", "file:/b/../a"}, "file:/a is given twice"},
		{[]string{"file:"}, "file: has no path"},
		{[]string{"hetzner"}, `"hetzner" is no source: give auto, none, aws`},
		{[]string{"/run/leave"}, `"/run/leave" is no source`},
		{[]string{"SIGTERM"}, `"SIGTERM" is no source`},
		{[]string{"http://"}, "the URL has no host"},
		{[]string{"http://a b/"}, "this is no URL"},
		{[]string{strings.Repeat("aws,", 17)}, "17 sources, of 16 at most"},
	} {
		sources, err := Parse(tt.words, noEnvironment)
		if got := fmt.Sprint(sources); err == nil && got != tt.want {
			t.Errorf("%q: %s, want %s", tt.words, got, tt.want)
		}

		if err != nil && !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %s", tt.words, err, tt.want)
		}
	}
}

// TestParseEnvironment: the variables of the clouds' own tools name other addresses.
func TestParseEnvironment(t *testing.T) {
	service, _ := startAWS(t)
	service.set(awsAction, `{"action": "hibernate"}`)
	google, _ := startGCP(t)
	google.values["preempted"] = "TRUE"

	variables := map[string]string{
		"AWS_EC2_METADATA_SERVICE_ENDPOINT": service.URL + "/",
		"GCE_METADATA_HOST":                 strings.TrimPrefix(google.URL, "http://"),
	}
	getenv := func(name string) string { return variables[name] }

	sources, err := Parse([]string{"gcp"}, getenv)
	if err != nil {
		t.Fatal(err)
	}
	startWatching(t, 0, sources...).expect("gcp", "spot instance: preempted", gcpPreemption)

	if sources, err = Parse([]string{"aws"}, getenv); err != nil {
		t.Fatal(err)
	}
	startWatching(t, 0, sources...).expect("aws", "spot instance: hibernate", 0)
}

func FuzzParse(f *testing.F) {
	for _, word := range []string{"aws,gcp", "file:/run/leave", "http://[::1%25eth0]:9/a?b", "none", "file://,"} {
		f.Add(word)
	}

	f.Fuzz(func(t *testing.T, word string) {
		if strings.Contains(strings.ToUpper(word), "SIGUSR") {
			return // catches signals
		}

		sources, err := Parse([]string{word}, noEnvironment)
		if err == nil && len(sources) == 0 && word != None {
			t.Errorf("%q names no source, and there is no error", word)
		}

		for _, s := range sources {
			again, err := Parse([]string{s.String()}, noEnvironment)
			if _, isURL := s.(*webPage); !isURL && (err != nil || len(again) != 1 || again[0].String() != s.String()) {
				t.Errorf("%s is read as %v, %v", s, again, err)
			}
		}
	})
}
