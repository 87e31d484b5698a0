package objectstore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/objectstore/storetest"
	"github.com/promptmill/promptmill/proto"
)

// writeProfiles writes the files of the AWS CLI, and has the environment name them.
func writeProfiles(t *testing.T, config, keys string) {
	t.Helper()

	storetest.HideCredentials(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"config": config, "credentials": keys} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	t.Setenv("HOME", dir)
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "credentials"))
}

const testConfig = `
[default]
region = eu-west-3
endpoint_url = http://all:1
s3 =
  addressing_style = path
  max_concurrent_requests = 20

[profile minio]
region = us-west-2
services = local
endpoint_url = http://all:2

[services local]
s3 =
  endpoint_url = http://s3:3
dynamodb =
  endpoint_url = http://dynamodb:4

[profile role]
role_arn = arn:aws:iam::1:role/reader
source_profile = default
`

func TestS3Profile(t *testing.T) {
	for name, tt := range map[string]struct {
		env      map[string]string
		want     s3Profile
		endpoint string
	}{
		"default": {nil, s3Profile{
			name:       "default",
			region:     "eu-west-3",
			endpoint:   "http://all:1",
			addressing: "path",
			isFound:    true,
		}, "http://all:1"},
		"a service of a profile": {map[string]string{"AWS_PROFILE": "minio"}, s3Profile{
			name:     "minio",
			region:   "us-west-2",
			endpoint: "http://s3:3",
			isFound:  true,
		}, "http://s3:3"},
		"the variable of all services": {map[string]string{
			"AWS_DEFAULT_PROFILE": "minio",
			"AWS_ENDPOINT_URL":    "http://env:5",
		}, s3Profile{
			name:     "minio",
			region:   "us-west-2",
			endpoint: "http://s3:3",
			isFound:  true,
		}, "http://env:5"},
		"the variable of S3": {map[string]string{
			"AWS_ENDPOINT_URL":    "http://env:5",
			"AWS_ENDPOINT_URL_S3": "http://env:6",
			"AWS_PROFILE":         "keys",
		}, s3Profile{
			name:    "keys",
			isFound: true,
		}, "http://env:6"},
		"endpoints ignored": {map[string]string{
			"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
			"AWS_PROFILE":                         "minio",
		}, s3Profile{
			name:     "minio",
			region:   "us-west-2",
			endpoint: "http://s3:3",
			isFound:  true,
		}, ""},
		"a role": {map[string]string{"AWS_PROFILE": "role"}, s3Profile{
			name:     "role",
			isFound:  true,
			needsCLI: "takes the role arn:aws:iam::1:role/reader",
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			writeProfiles(t, testConfig, "[keys]\naws_access_key_id = a\naws_secret_access_key = b\n")
			for name, value := range tt.env {
				t.Setenv(name, value)
			}

			got, err := readS3Profile(os.Getenv)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(s3Profile{})); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
			if endpoint := got.endpointOf(os.Getenv); endpoint != tt.endpoint {
				t.Errorf("endpoint %q, want %q", endpoint, tt.endpoint)
			}
		})
	}
}

// Credentials that are set up and cannot be had are refused with the way to them, and no request is sent.
func TestS3CredentialsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		config, profile string
		env             map[string]string
		want, hint      string
	}{
		"a profile that is not there": {"", "typo", nil, "there is no profile typo", "aws configure list-profiles"},
		"a role":                      {testConfig, "role", nil, "takes the role arn:aws:iam::1:role/reader", "export-credentials --profile role"},
		"no login": {
			"[profile sso]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n[sso-session s]\nsso_region = us-east-1\n" +
				"sso_start_url = https://x\n", "sso", nil, "the profile sso is not logged in", "aws sso login --profile sso",
		},
		"an SSO profile without a role": {
			"[profile sso]\nsso_session = s\n", "sso", nil, "the profile sso gives no credentials", "export-credentials --profile sso",
		},
		"a process that fails": {
			"[profile p]\ncredential_process = /bin/false x\n", "p", nil, "credential_process of the profile p fails",
			"export-credentials --profile p",
		},
		"a process that is not there": {
			"[profile p]\ncredential_process = /no/such x\n", "p", nil, "credential_process of the profile p fails",
			"export-credentials --profile p",
		},
		"half of the keys": {
			"[profile p]\naws_access_key_id = a\n", "p", nil, "only one of aws_access_key_id and aws_secret_access_key", "both",
		},
		"half of the variables": {
			"", "", map[string]string{"AWS_ACCESS_KEY_ID": "a"}, "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "both",
		},
		"a line without a key": {"[default]\nwhat is this\n", "", nil, "has a line that is not KEY = VALUE", ""},
		"a role without a token": {
			"", "", map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": "/no/such", "AWS_ROLE_ARN": "arn:x"},
			"the role of this container gives no credentials", "AWS_ROLE_ARN",
		},
	} {
		t.Run(name, func(t *testing.T) {
			writeProfiles(t, tt.config, "")
			t.Setenv("AWS_PROFILE", tt.profile)
			for name, value := range tt.env {
				t.Setenv(name, value)
			}

			s := serveText(t, []byte("text"))
			_, err := newTestClient(t, Config{S3Endpoint: s.URL}).Stat(t.Context(), "s3://bucket/key")
			if exit.Code(err) != exit.CodeUsage || !strings.Contains(err.Error(), tt.want) ||
				!strings.Contains(exit.Hint(err), tt.hint) {
				t.Errorf("code %d, %v, hint %q; want %q, %q", exit.Code(err), err, exit.Hint(err), tt.want, tt.hint)
			}
			if n := s.requests.Load(); n != 0 {
				t.Errorf("%d requests were sent", n)
			}
		})
	}
}

// The profile alone is enough: keys, endpoint and region.
func TestS3FromProfile(t *testing.T) {
	endpoint := storetest.StartMoto(t)
	storetest.CreateBucket(t, endpoint, "bucket", "eu-central-1", map[string][]byte{"a.jsonl": []byte("a\n")})
	config := "[profile moto]\nregion = eu-central-1\nservices = moto\n[services moto]\ns3 =\n  endpoint_url = " + endpoint + "\n"
	keys := "[moto]\naws_access_key_id = user\naws_secret_access_key = password\n"

	writeProfiles(t, config, keys)
	t.Setenv("AWS_PROFILE", "moto")

	got, err := readAll(t.Context(), newTestClient(t, Config{}), proto.File{Path: "s3://bucket/a.jsonl"})
	if err != nil || string(got) != "a\n" {
		t.Errorf("%q, %v", got, err)
	}

	// A process that prints credentials.
	script := filepath.Join(t.TempDir(), "process")
	text := "#!/bin/sh\necho '{\"Version\":1,\"AccessKeyId\":\"user\",\"SecretAccessKey\":\"password\"}'\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}

	writeProfiles(t, strings.Replace(config, "region", "credential_process = "+script+" x\nregion", 1), "")
	t.Setenv("AWS_PROFILE", "moto")

	got, err = readAll(t.Context(), newTestClient(t, Config{}), proto.File{Path: "s3://bucket/a.jsonl"})
	if err != nil || string(got) != "a\n" {
		t.Errorf("of a process: %q, %v", got, err)
	}
}
