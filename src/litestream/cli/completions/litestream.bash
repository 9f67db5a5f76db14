# Completion of litestream(1), made by `python -m litestream.cli.completion_scripts`.

_litestream() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} flags= words=
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "check completion config databases demo generations info list prune register reload replicate reset restore snapshots start status stop sync unregister verify version wait wal help" -- "$cur"))
        return
    fi
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case $verb:${prev/#--/-} in
        check:-config) return ;;
        check:-log-level) COMPREPLY=($(compgen -W "trace debug info warn error" -- "$cur")); return ;;
        check:-replica) compopt +o default 2>/dev/null; return ;;
        check:-timeout) compopt +o default 2>/dev/null; return ;;
        config:-config) return ;;
        config:-log-level) COMPREPLY=($(compgen -W "trace debug info warn error" -- "$cur")); return ;;
        config:-to) COMPREPLY=($(compgen -W "here 0.5 0.3" -- "$cur")); return ;;
        config:-o) return ;;
        databases:-config) return ;;
        databases:-log-level) COMPREPLY=($(compgen -W "trace debug info warn error" -- "$cur")); return ;;
        demo:-dir) return ;;
        demo:-duration) compopt +o default 2>/dev/null; return ;;
        demo:-log-level) compopt +o default 2>/dev/null; return ;;
        generations:-config) return ;;
        generations:-log-level) COMPREPLY=($(compgen -W "trace debug info warn error" -- "$cur")); return ;;
        generations:-replica) compopt +o default 2>/dev/null; return ;;
        info:-timeout) compopt +o default 2>/dev/null; return ;;
        info:-socket) return ;;
        list:-timeout) compopt +o default 2>/dev/null; return ;;
        list:-socket) return ;;
        prune:-config) return ;;
        prune:-log-level) COMPREPLY=($(compgen -W "trace debug info warn error" -- "$cur")); return ;;
        prune:-replica) compopt +o default 2>/dev/null; return ;;
        prune:-retention) compopt +o default 2>/dev/null; return ;;
        register:-replica) compopt +o default 2>/dev/null; return ;;
        register:-timeout) compopt +o default 2>/dev/null; return ;;
        register:-socket) return ;;
        reload:-timeout) compopt +o default 2>/dev/null; return ;;
        reload:-socket) return ;;
        replicate:-config) return ;;
        replicate:-log-level) COMPREPLY=($(compgen -W "trace debug info warn error" -- "$cur")); return ;;
        replicate:-exec) compopt +o default 2>/dev/null; return ;;
        replicate:-addr) compopt +o default 2>/dev/null; return ;;
        reset:-config) return ;;
        reset:-log-level) COMPREPLY=($(compgen -W "trace debug info warn error" -- "$cur")); return ;;
        restore:-config) return ;;
        restore:-log-level) COMPREPLY=($(compgen -W "trace debug info warn error" -- "$cur")); return ;;
        restore:-o) return ;;
        restore:-replica) compopt +o default 2>/dev/null; return ;;
        restore:-generation) compopt +o default 2>/dev/null; return ;;
        restore:-index) compopt +o default 2>/dev/null; return ;;
        restore:-timestamp) compopt +o default 2>/dev/null; return ;;
        restore:-parallelism) compopt +o default 2>/dev/null; return ;;
        restore:-integrity-check) COMPREPLY=($(compgen -W "none quick full" -- "$cur")); return ;;
        restore:-follow-interval) compopt +o default 2>/dev/null; return ;;
        snapshots:-config) return ;;
        snapshots:-log-level) COMPREPLY=($(compgen -W "trace debug info warn error" -- "$cur")); return ;;
        snapshots:-replica) compopt +o default 2>/dev/null; return ;;
        start:-timeout) compopt +o default 2>/dev/null; return ;;
        start:-socket) return ;;
        status:-config) return ;;
        status:-log-level) COMPREPLY=($(compgen -W "trace debug info warn error" -- "$cur")); return ;;
        status:-within) compopt +o default 2>/dev/null; return ;;
        status:-socket) return ;;
        stop:-timeout) compopt +o default 2>/dev/null; return ;;
        stop:-socket) return ;;
        sync:-timeout) compopt +o default 2>/dev/null; return ;;
        sync:-socket) return ;;
        unregister:-timeout) compopt +o default 2>/dev/null; return ;;
        unregister:-socket) return ;;
        verify:-config) return ;;
        verify:-log-level) COMPREPLY=($(compgen -W "trace debug info warn error" -- "$cur")); return ;;
        verify:-replica) compopt +o default 2>/dev/null; return ;;
        verify:-generation) compopt +o default 2>/dev/null; return ;;
        verify:-sample) compopt +o default 2>/dev/null; return ;;
        verify:-timeout) compopt +o default 2>/dev/null; return ;;
        wait:-pos) compopt +o default 2>/dev/null; return ;;
        wait:-timeout) compopt +o default 2>/dev/null; return ;;
        wait:-socket) return ;;
        wal:-config) return ;;
        wal:-log-level) COMPREPLY=($(compgen -W "trace debug info warn error" -- "$cur")); return ;;
        wal:-replica) compopt +o default 2>/dev/null; return ;;
        wal:-generation) compopt +o default 2>/dev/null; return ;;
    esac
    case $verb in
        check) flags="-config -no-expand-env -log-level -replica -timeout -json -h" ;;
        completion) flags=" -h" words="bash zsh fish" ;;
        config) flags="-config -no-expand-env -log-level -json -to -o -force -h" words="check migrate" ;;
        databases) flags="-config -no-expand-env -log-level -json -h" ;;
        demo) flags="-dir -duration -json -log-level -h" ;;
        generations) flags="-config -no-expand-env -log-level -replica -json -h" ;;
        info) flags="-timeout -socket -json -h" ;;
        list) flags="-timeout -socket -json -h" ;;
        prune) flags="-config -no-expand-env -log-level -replica -retention -execute -json -h" ;;
        register) flags="-replica -timeout -socket -json -h" ;;
        reload) flags="-timeout -socket -json -h" ;;
        replicate) flags="-config -no-expand-env -log-level -exec -addr -once -force-snapshot -enforce-retention -restore-if-db-not-exists -takeover -json -h" ;;
        reset) flags="-config -no-expand-env -log-level -dry-run -h" ;;
        restore) flags="-config -no-expand-env -log-level -o -replica -generation -index -timestamp -if-db-not-exists -if-replica-exists -parallelism -force -resume -update -dry-run -integrity-check -f -follow-interval -json -h" ;;
        snapshots) flags="-config -no-expand-env -log-level -replica -json -h" ;;
        start) flags="-timeout -socket -json -h" ;;
        status) flags="-config -no-expand-env -log-level -within -socket -json -h" ;;
        stop) flags="-timeout -socket -json -h" ;;
        sync) flags="-wait -timeout -socket -json -h" ;;
        unregister) flags="-timeout -socket -dry-run -json -h" ;;
        verify) flags="-config -no-expand-env -log-level -replica -generation -sample -timeout -json -h" ;;
        version) flags="-verbose -json -h" ;;
        wait) flags="-pos -all -timeout -socket -json -h" ;;
        wal) flags="-config -no-expand-env -log-level -replica -generation -json -h" ;;
        help) words="check completion config databases demo generations info list prune register reload replicate reset restore snapshots start status stop sync unregister verify version wait wal" ;;
    esac
    if [[ $cur == --* ]]; then
        COMPREPLY=($(compgen -P - -W "$flags" -- "${cur#-}"))
    elif [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$cur"))
    elif [[ $words ]] && ((COMP_CWORD == 2)); then
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
    fi
}
complete -o default -F _litestream litestream
