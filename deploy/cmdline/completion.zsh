#compdef PROGRAM
# Completion of PROGRAM for zsh. It needs no package. Add this line to ~/.zshrc:
#
#   eval "$(PROGRAM completion zsh)"

_PROGRAM() {
	local -a lines values rows open openrows
	local kind line
	lines=("${(@f)$("${words[1]/#\~/$HOME}" __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
	kind=$lines[1]
	shift lines

	for line in "${lines[@]}"; do
		if [[ ${line%%$'\t'*} == *= ]]; then
			open+=("${line%%$'\t'*}") openrows+=("${line/$'\t'/  -- }")
		else
			values+=("${line%%$'\t'*}") rows+=("${line/$'\t'/  -- }")
		fi
	done
	(( $#values )) && compadd -l -d rows -a values
	(( $#open )) && compadd -S '' -l -d openrows -a open

	[[ $PREFIX == -*=* ]] && compset -P '*='
	case $kind in
	files) _files ;;
	folders) _files -/ ;;
	esac
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
	_PROGRAM "$@"
else
	(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
	compdef _PROGRAM PROGRAM
fi
