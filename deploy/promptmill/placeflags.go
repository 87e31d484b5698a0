package main

import (
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/objectstore"
)

// placeFlags returns the flags of the object stores of inputs and outputs.
func placeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:        "s3-endpoint",
			Category:    groupInput,
			Usage:       "`URL`: server of s3:// URLs that is not Amazon's, such as http://minio:9000",
			DefaultText: "$AWS_ENDPOINT_URL_S3 or $AWS_ENDPOINT_URL",
		},
		&cli.BoolFlag{
			Name:        "s3-path-style",
			Category:    groupInput,
			Usage:       "name the bucket in the path of the server's URLs, not in their host name",
			DefaultText: "true with a server that is not Amazon's",
		},
	}
}

// openPlaces returns the client that opens inputs wherever they are.
func openPlaces(c *cli.Command) *objectstore.Client {
	cfg := objectstore.Config{S3Endpoint: c.String("s3-endpoint")}
	if c.IsSet("s3-path-style") {
		pathStyle := c.Bool("s3-path-style")
		cfg.S3PathStyle = &pathStyle
	}

	return objectstore.New(cfg)
}
