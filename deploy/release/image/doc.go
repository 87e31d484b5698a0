// Command image builds the container image of promptmill without a container engine: a program, the certificates of
// the public authorities, and nothing else.
//
//	go run ./deploy/release/image -o image
//	go run ./deploy/release/image --push registry.example/promptmill:v0.1.0
//
// The same source and Go give the same image, bit for bit, on any machine. For skopeo and registries it is an OCI
// layout with an image for each platform, and for docker load and podman load an archive for each platform.
package main
