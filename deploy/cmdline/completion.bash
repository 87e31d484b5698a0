# Completion of PROGRAM for bash, 3.2 or later. It needs no package. Add this line to ~/.bashrc:
#
#   eval "$(PROGRAM completion bash)"

_PROGRAM() {
	local IFS=$' \t\n' LC_ALL=C # COMP_POINT counts bytes
	local line=${COMP_LINE:0:COMP_POINT} words cur breaks strip= kind= candidate
	read -r -a words <<<"$line"
	[[ -z $line || $line == *[[:space:]] ]] && words+=("")
	while [[ ${words[0]} == *=* ]]; do # VARIABLE=value PROGRAM ...
		words=("${words[@]:1}")
	done

	# Readline replaces the part of the word that is behind the last of COMP_WORDBREAKS.
	cur=${words[${#words[@]} - 1]}
	breaks=${COMP_WORDBREAKS//[!:=]/}
	if [[ -n $breaks && $cur == *[$breaks]* ]]; then
		strip=${cur%"${cur##*[$breaks]}"}
	fi

	COMPREPLY=()
	while IFS= read -r candidate; do
		if [[ -z $kind ]]; then
			kind=$candidate
			continue
		fi
		candidate=${candidate%%$'\t'*}
		COMPREPLY+=("${candidate#"$strip"}")
	done < <("${1/#\~/$HOME}" __complete "${words[@]:1}" 2>/dev/null)

	# bash 3.2 has no compopt; there, readline completes files wherever nothing else is found.
	if [[ ${#COMPREPLY[@]} -gt 0 && ${COMPREPLY[0]} == *= ]]; then
		type compopt >/dev/null 2>&1 && compopt -o nospace
	fi
	if [[ $kind == files || $kind == folders ]]; then
		if [[ ${#COMPREPLY[@]} -eq 0 ]]; then
			[[ $kind == files ]] && candidate=default || candidate=dirnames
			type compopt >/dev/null 2>&1 && compopt -o $candidate
			return
		fi
		type compopt >/dev/null 2>&1 && compopt -o filenames
		while IFS= read -r candidate; do
			COMPREPLY+=("$candidate")
		done < <(compgen -f -- "${cur#"$strip"}")
	fi
}

if type compopt >/dev/null 2>&1; then
	complete -F _PROGRAM PROGRAM
else
	complete -o default -F _PROGRAM PROGRAM
fi
