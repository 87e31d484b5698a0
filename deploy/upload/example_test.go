package upload_test

import (
	"context"
	"fmt"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/upload"
)

func ExampleNew() {
	client := objectstore.New(objectstore.Config{S3Endpoint: "http://127.0.0.1:9000"})
	defer client.Close()

	bucket, key, err := client.OpenBucket(context.Background(), "s3://answers/night/tickets")
	if err != nil {
		fmt.Println(err)
		return
	}

	target := upload.New(upload.Config{
		Store: bucket,
		URL:   bucket.URL + "/" + key,
		Key:   key,
		Local: output.Prefix("/var/lib/answers/tickets"),
	})

	fmt.Println(target.Output().Results())

	// Output:
	// s3://answers/night/tickets.jsonl.zst
}
