package objectstore

import (
	"net/http"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// credentialChain finds the credentials of S3: those of the environment, of the files of the
// AWS CLI, or of the role of the container or machine. Without any, requests are not signed: a
// public bucket answers them.
type credentialChain struct {
	providers []credentials.Provider
	// found is the provider that had credentials. Nil: none had.
	found credentials.Provider
}

// newCredentialChain returns the chain of this process.
func newCredentialChain(getenv func(string) string) *credentialChain {
	providers := []credentials.Provider{
		&credentials.EnvAWS{},
		&credentials.FileAWSCredentials{},
	}

	role := getenv("AWS_WEB_IDENTITY_TOKEN_FILE") + getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") +
		getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	switch {
	case role != "":
		providers = append(providers, &credentials.IAM{Client: &http.Client{Timeout: 20 * time.Second}})
	case getenv("AWS_EC2_METADATA_DISABLED") != "true":
		// Outside of EC2 nothing has this address, and a firewall may drop the request.
		providers = append(providers, &credentials.IAM{Client: &http.Client{Timeout: 2 * time.Second}})
	}

	return &credentialChain{providers: providers}
}

// RetrieveWithCredContext implements credentials.Provider.
func (c *credentialChain) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	c.found = nil
	for _, p := range c.providers {
		value, err := p.RetrieveWithCredContext(cc)
		if err == nil && value.AccessKeyID != "" && value.SecretAccessKey != "" {
			c.found = p
			return value, nil
		}
	}

	return credentials.Value{SignerType: credentials.SignatureAnonymous}, nil
}

// Retrieve implements credentials.Provider.
func (c *credentialChain) Retrieve() (credentials.Value, error) {
	return c.RetrieveWithCredContext(nil)
}

// IsExpired implements credentials.Provider. That there are no credentials is found out once.
func (c *credentialChain) IsExpired() bool { return c.found != nil && c.found.IsExpired() }
