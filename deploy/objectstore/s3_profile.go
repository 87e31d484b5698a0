package objectstore

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/ini.v1"

	"github.com/promptmill/promptmill/deploy/exit"
)

// s3Profile is a profile of the AWS CLI: a section of its files config and credentials. The
// keys have the names that the AWS SDKs use.
type s3Profile struct {
	// name is the name of the profile.
	name string
	// region is the region of the buckets. Empty: not set.
	region string
	// endpoint is the URL of the server: that of S3 in the section "services" of the profile, or
	// that of all services. Empty: not set.
	endpoint string
	// addressing is the addressing style: path, virtual or auto. Empty: not set.
	addressing string
	// isFound reports that one of the files has the profile.
	isFound bool
	// needsCLI names the way to credentials that only the AWS CLI knows. Empty: none.
	needsCLI string
}

// readS3Profile reads the profile of AWS_PROFILE or AWS_DEFAULT_PROFILE, else the profile
// default. It is an error if a named profile is in neither file.
func readS3Profile(getenv func(string) string) (s3Profile, error) {
	named := cmp.Or(getenv("AWS_PROFILE"), getenv("AWS_DEFAULT_PROFILE"))
	p := s3Profile{name: cmp.Or(named, "default")}
	config, err := readS3File(getenv("AWS_CONFIG_FILE"), "config")
	if err != nil {
		return p, err
	}

	credentials, err := readS3File(getenv("AWS_SHARED_CREDENTIALS_FILE"), "credentials")
	if err != nil {
		return p, err
	}

	sections := []*ini.Section{
		credentials.section(p.name),
		cmp.Or(config.section("profile "+p.name), config.section(p.name)),
	}

	read := func(key string) string {
		for _, section := range sections {
			if section != nil && section.Key(key).String() != "" {
				return section.Key(key).String()
			}
		}
		return ""
	}

	p.isFound = sections[0] != nil || sections[1] != nil
	p.region, p.endpoint = read("region"), read("endpoint_url")

	if section := sections[1]; section != nil {
		p.addressing = nestedValue(section.Key("s3"), "addressing_style")
	}

	if services := config.section("services " + read("services")); services != nil {
		p.endpoint = cmp.Or(nestedValue(services.Key("s3"), "endpoint_url"), p.endpoint)
	}

	hasKeys := read("aws_access_key_id") != "" && read("aws_secret_access_key") != ""
	if role := read("role_arn"); role != "" && !hasKeys {
		p.needsCLI = "takes the role " + role
	}

	if named != "" && !p.isFound {
		return p, exit.Usage("look at aws configure list-profiles",
			"there is no profile %s in %s or %s, and AWS_PROFILE names it", named, config.path, credentials.path)
	}

	return p, nil
}

// endpointOf returns the URL of the server: of the environment, or of the profile. Empty: Amazon's.
func (p s3Profile) endpointOf(getenv func(string) string) string {
	if strings.EqualFold(getenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"), "true") {
		return ""
	}
	return cmp.Or(getenv("AWS_ENDPOINT_URL_S3"), getenv("AWS_ENDPOINT_URL"), p.endpoint)
}

// s3File is a file of the AWS CLI.
type s3File struct {
	path string
	file *ini.File
}

// readS3File reads a file of the AWS CLI, by default in ~/.aws. A file that is not there is empty.
func readS3File(path, name string) (s3File, error) {
	if path == "" {
		home, _ := os.UserHomeDir() // without a home, there is no such file
		path = filepath.Join(home, ".aws", name)
	}

	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s3File{path: path, file: ini.Empty()}, nil
	case err != nil:
		return s3File{}, exit.Usage("let this user read it", "%s cannot be read", path)
	}

	file, err := ini.LoadSources(ini.LoadOptions{AllowNestedValues: true}, text)
	if err != nil {
		return s3File{}, exit.Usage("look at aws configure list", "%s has a line that is not KEY = VALUE or [SECTION]",
			path)
	}

	return s3File{path: path, file: file}, nil
}

// section returns a section; nil if there is none.
func (f s3File) section(name string) *ini.Section {
	section, err := f.file.GetSection(name)
	if err != nil {
		return nil
	}
	return section
}

// nestedValue returns a value that is indented below a key.
func nestedValue(key *ini.Key, name string) string {
	for _, line := range key.NestedValues() {
		if found, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(found) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// exportHint is the hint of credentials that only the AWS CLI can fetch.
func (p s3Profile) exportHint() string {
	return fmt.Sprintf(`run eval "$(aws configure export-credentials --profile %s --format env)" in this shell first`,
		p.name)
}
