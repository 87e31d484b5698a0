# Completion of PROGRAM for fish. It needs no package. Type this line once:
#
#   PROGRAM completion fish > ~/.config/fish/completions/PROGRAM.fish

function __PROGRAM_complete
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -l lines ($program __complete $words[2..-1] "$cur" 2>/dev/null)

    set -l flag (string match -r -- '^-[^=]*=' "$cur")
    set -l path (string replace -r -- '^-[^=]*=' '' "$cur")
    switch "$lines[1]"
        case files
            printf '%s\n' "$flag"(__fish_complete_path "$path")
        case folders
            printf '%s\n' "$flag"(__fish_complete_directories "$path")
    end

    for line in $lines[2..-1]
        echo $line
    end
end

complete -c PROGRAM -f -a '(__PROGRAM_complete)'
