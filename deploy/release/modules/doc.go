// Program modules makes the modules of the repository require each other by the version of a release, so that they are
// found without the workspace, as go install finds them:
//
//	go run ./deploy/release/modules v0.1.0
//
// Each go.mod gets the version of its siblings, and each go.sum their checksums; go.work replaces that version, which
// nobody has published yet, by the folders. The checksums are known before anything is tagged: each follows from the
// files of a module, which are listed as Go's module proxy does. So all tags of a release are on one commit.
//
// With --proxy FOLDER, the modules are also written as a module proxy has them, for GOPROXY=file://FOLDER. That is how
// the tests install a release that nobody has published.
package main
