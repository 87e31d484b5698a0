package objectstore

import (
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/promptmill/promptmill/deploy/exit"
)

// credentialChain finds the credentials of S3: those of the environment, of the files of the
// AWS CLI, or of the role of the container or machine. Without any, requests are not signed: a
// public bucket answers them. Credentials that are set up and cannot be had are an error.
type credentialChain struct {
	profile s3Profile
	// keys are the keys of the environment, and files those of the profile.
	keys  credentials.EnvAWS
	files credentials.FileAWSCredentials
	// role is the role of the container or machine. Nil: it is not asked for.
	role *credentials.IAM
	// hasRole reports that the environment names the role of the container.
	hasRole bool
	// found is the provider that had credentials. Nil: none had.
	found credentials.Provider
}

// newCredentialChain returns the chain of this process.
func newCredentialChain(getenv func(string) string, profile s3Profile) *credentialChain {
	c := &credentialChain{
		profile: profile,
		files:   credentials.FileAWSCredentials{Profile: profile.name},
		hasRole: getenv("AWS_WEB_IDENTITY_TOKEN_FILE")+getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")+
			getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") != "",
	}

	switch {
	case c.hasRole:
		c.role = &credentials.IAM{Client: &http.Client{Timeout: 20 * time.Second}}
	case getenv("AWS_EC2_METADATA_DISABLED") != "true":
		// Outside of EC2 nothing has this address, and a firewall may drop the request.
		c.role = &credentials.IAM{Client: &http.Client{Timeout: 2 * time.Second}}
	}

	return c
}

// RetrieveWithCredContext implements credentials.Provider.
func (c *credentialChain) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	c.found = nil
	switch value, err := c.keys.RetrieveWithCredContext(cc); {
	case isComplete(value, err):
		c.found = &c.keys
		return value, nil
	case value.AccessKeyID != "" || value.SecretAccessKey != "":
		return value, exit.Usage("set both, or none of them",
			"only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set")
	}

	if c.profile.isFound {
		value, err := c.files.RetrieveWithCredContext(cc)
		switch {
		case isComplete(value, err):
			c.found = &c.files
			return value, nil
		case err != nil:
			return value, c.describeProfileError(err)
		case c.profile.needsCLI != "":
			return value, exit.Usage(c.profile.exportHint(),
				"the profile %s %s, which only the AWS CLI can do", c.profile.name, c.profile.needsCLI)
		}
	}

	if c.role != nil {
		value, err := c.role.RetrieveWithCredContext(cc)
		switch {
		case isComplete(value, err):
			c.found = c.role
			return value, nil
		case c.hasRole:
			return value, describeRoleError(err)
		}
	}

	return credentials.Value{SignerType: credentials.SignatureAnonymous}, nil
}

// isComplete reports whether a provider had credentials.
func isComplete(value credentials.Value, err error) bool {
	return err == nil && value.AccessKeyID != "" && value.SecretAccessKey != ""
}

// describeProfileError returns the error of a profile that gives no credentials.
func (c *credentialChain) describeProfileError(err error) error {
	name := c.profile.name
	failed, _ := errors.AsType[*exec.ExitError](err)
	network, _ := errors.AsType[*url.Error](err)
	text := err.Error()
	switch {
	case network != nil:
		return connectionFailure(err)
	case failed != nil, strings.Contains(text, "exec"), strings.Contains(text, "process args"):
		return exit.Usage(c.profile.exportHint(),
			"the credential_process of the profile %s fails", name)
	case strings.Contains(text, "partial static"):
		return exit.Usage("set both, or none of them",
			"the profile %s has only one of aws_access_key_id and aws_secret_access_key", name)
	case strings.Contains(text, "SSO") && (errors.Is(err, fs.ErrNotExist) || strings.Contains(text, "expired") ||
		strings.Contains(text, "401")):
		return exit.Usage("run aws sso login --profile "+name,
			"the profile %s is not logged in, or its login has expired", name)
	}

	return exit.Usage(c.profile.exportHint(), "the profile %s gives no credentials", name)
}

// describeRoleError returns the error of a role that the environment names and that gives no
// credentials.
func describeRoleError(err error) error {
	network, _ := errors.AsType[*url.Error](err)
	if network != nil {
		return connectionFailure(err)
	}

	said := ""
	if answer, ok := errors.AsType[credentials.ErrorResponse](err); ok && answer.STSError.Code != "" {
		said = ": the token service answers " + answer.STSError.Code
	}

	return exit.Usage("look at AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE and AWS_CONTAINER_CREDENTIALS_..., and at the "+
		"policy of the role", "the role of this container gives no credentials%s", said)
}

// Retrieve implements credentials.Provider.
func (c *credentialChain) Retrieve() (credentials.Value, error) {
	return c.RetrieveWithCredContext(nil)
}

// IsExpired implements credentials.Provider. That there are no credentials is found out once.
func (c *credentialChain) IsExpired() bool { return c.found != nil && c.found.IsExpired() }
