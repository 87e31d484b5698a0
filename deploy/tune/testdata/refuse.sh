# What the stand-ins of model servers share.

# refuse TEXT ends the program as one that was called wrongly.
refuse() {
	echo "error: $1" >&2
	exit 2
}

# fail TEXT ends the program as one that could not start.
fail() {
	echo "RuntimeError: $1" >&2
	exit 1
}

# number FLAG VALUE refuses a value that is no number.
number() {
	case $2 in '' | *[!0-9]*) refuse "argument $1: invalid int value: '$2'" ;; esac
}

# choice FLAG VALUE CHOICE ... refuses a value that none of the choices is.
choice() {
	flag=$1 given=$2
	shift 2
	for allowed in "$@"; do
		[ "$allowed" != "$given" ] || return 0
	done

	refuse "argument $flag: invalid choice: '$given' (choose from $*)"
}
