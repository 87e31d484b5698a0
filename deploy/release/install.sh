#!/bin/sh
# Installs promptmill for this user:
#
#   sh install.sh [VERSION]
#
# It downloads the archive of this system and its checksum, installs nothing if they differ, and needs no root.
# Without VERSION, such as v0.1.0, it takes the latest release. The environment names other places:
#
#   PROMPTMILL_INSTALL_DIR   the folder of the program; default: ~/.local/bin
#   PROMPTMILL_RELEASES      the address of the releases, such as that of a mirror; with it, name VERSION
set -eu
umask 022

fail() {
	echo "install.sh: error: $1" >&2
	exit 1
}

# download URL FILE
download() {
	if command -v curl >/dev/null 2>&1; then
		curl -fsSL --retry 3 -o "$2" "$1" || fail "cannot download $1"
	elif command -v wget >/dev/null 2>&1; then
		wget -q -O "$2" "$1" || fail "cannot download $1"
	else
		fail "curl or wget is needed: install one of them"
	fi
}

# checksum FILE
checksum() {
	if command -v sha256sum >/dev/null 2>&1; then
		sha256sum <"$1"
	elif command -v shasum >/dev/null 2>&1; then
		shasum -a 256 <"$1"
	else
		echo none
	fi | cut -d ' ' -f 1
}

# All is in functions, so that a download of this script that breaks off does nothing.
main() {
	[ $# -le 1 ] || fail "name one version, such as v0.1.0"

	case $(uname -s) in
	Linux) system=linux ;;
	Darwin) system=darwin ;;
	*) fail "there is no release for $(uname -s) here: see the archives at https://github.com/promptmill/promptmill/releases" ;;
	esac

	case $(uname -m) in
	x86_64 | amd64) machine=amd64 ;;
	aarch64 | arm64) machine=arm64 ;;
	*) fail "there is no release for the processor $(uname -m): build promptmill with Go" ;;
	esac

	releases=${PROMPTMILL_RELEASES:-https://github.com/promptmill/promptmill/releases/download}
	folder=${PROMPTMILL_INSTALL_DIR:-${HOME:?}/.local/bin}
	new=$folder/.promptmill.new
	temp=$(mktemp -d)
	trap 'rm -rf "$temp" "$new"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP

	version=${1:-}
	if [ -z "$version" ]; then
		[ -z "${PROMPTMILL_RELEASES:-}" ] || fail "name a version: only GitHub knows which is the latest"
		download https://api.github.com/repos/promptmill/promptmill/releases/latest "$temp/latest"
		version=$(sed -n 's/.*"tag_name": *"\([^"]*\)".*/\1/p' "$temp/latest")
	fi
	case $version in
	v[0-9]*) ;;
	*) fail "'$version' is no version: write it as v0.1.0" ;;
	esac

	archive=promptmill-$version-$system-$machine.tar.gz
	download "$releases/$version/SHA256SUMS" "$temp/SHA256SUMS"
	want=$(awk -v name="$archive" '$2 == name { print $1 }' "$temp/SHA256SUMS")
	[ -n "$want" ] || fail "$releases/$version/SHA256SUMS has no checksum of $archive"

	download "$releases/$version/$archive" "$temp/$archive"
	got=$(checksum "$temp/$archive")
	[ "$got" != none ] || fail "sha256sum or shasum is needed to check the download: install one of them"
	[ "$got" = "$want" ] ||
		fail "$archive has the checksum $got, and SHA256SUMS says $want: nothing was installed; download it again"

	tar -xzf "$temp/$archive" -C "$temp" promptmill || fail "$archive has no promptmill"

	# It is tried in its own folder, since programs may not run in that of temporary files, and gets its name by a rename,
	# since a promptmill that runs is not written over.
	elsewhere="name another folder with PROMPTMILL_INSTALL_DIR"
	mkdir -p "$folder" || fail "cannot make $folder: $elsewhere"
	cp "$temp/promptmill" "$new" || fail "cannot write into $folder: $elsewhere"
	"$new" version >/dev/null || fail "the downloaded promptmill does not run in $folder"
	mv -f "$new" "$folder/promptmill" || fail "cannot write $folder/promptmill: $elsewhere"

	echo "installed $("$folder/promptmill" version)"
	echo "in $folder/promptmill"
	case :$PATH: in
	*:"$folder":*) ;;
	*) echo "put $folder into your PATH: export PATH=\"$folder:\$PATH\"" ;;
	esac
}

main "$@"
