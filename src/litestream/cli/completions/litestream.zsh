#compdef litestream
# Completion of litestream(1), made by `python -m litestream.cli.completion_scripts`.

_litestream() {
    local -a verbs
    verbs=(
        'check:prove that a replica can be written and read, before it is needed'
        'completion:print a script with which bash, zsh or fish completes commands and flags'
        'config:check a configuration and show what it means; turn one of another version into one for here'
        'databases:list databases of the configuration'
        'demo:see it work: a small database, replicated, killed, restored and compared'
        'generations:list available generations of a database'
        'info:show version, process and age of a running replicator'
        'list:list the databases of a running replicator'
        'prune:delete what is older than the retention, for a replicator that must not'
        'register:have a running replicator replicate one more database'
        'reload:have a running replicator read its configuration again'
        'replicate:replicate databases continuously'
        'reset:forget the local state of a database, so that it begins anew'
        'restore:restore a database from a replica'
        'snapshots:list available snapshots of a database'
        'start:go on replicating a database that was stopped'
        'status:show how safe every database is, with exit code 0 if all are'
        'stop:stop replicating a database of a running replicator'
        'sync:copy, and upload, what is committed now'
        'unregister:have a running replicator replicate a database no more'
        'verify:prove that a replica is sound, and that it restores the database'
        'version:print the version'
        'wait:return when what is committed now is durable in a replica'
        'wal:list available WAL segments of a database'
    )
    if ((CURRENT == 2)); then
        _describe -t commands command verbs
        return
    fi
    case $words[2] in
        check) _arguments \
            '-config[Path of the configuration file.]:PATH:_files' \
            '-no-expand-env[Do not replace $NAME in the configuration file by environment variables.]' \
            '-log-level[How much is told; with debug and trace an unexpected error shows where it happened.]:LEVEL:(trace debug info warn error)' \
            '-replica[Only the replica of this name.]:NAME: ' \
            '-timeout[Longest time without an answer.]:DURATION: ' \
            '-json[Print JSON instead of a table.]' \
            '1: :' \
            '*:file:_files' ;;
        completion) _arguments \
            '1: :' \
            '2: :(bash zsh fish)' ;;
        config) _arguments \
            '-config[Path of the configuration file.]:PATH:_files' \
            '-no-expand-env[Do not replace $NAME in the configuration file by environment variables.]' \
            '-log-level[How much is told; with debug and trace an unexpected error shows where it happened.]:LEVEL:(trace debug info warn error)' \
            '-json[check\: print JSON.]' \
            '-to[migrate\: for which program.]:VERSION:(here 0.5 0.3)' \
            '-o[migrate\: write this file, and not stdout.]:PATH:_files' \
            '-force[migrate\: replace the file of -o if there is one.]' \
            '1: :' \
            '2: :(check migrate)' ;;
        databases) _arguments \
            '-config[Path of the configuration file.]:PATH:_files' \
            '-no-expand-env[Do not replace $NAME in the configuration file by environment variables.]' \
            '-log-level[How much is told; with debug and trace an unexpected error shows where it happened.]:LEVEL:(trace debug info warn error)' \
            '-json[Print JSON instead of a table.]' \
            '1: :' \
            '*:file:_files' ;;
        demo) _arguments \
            '-dir[The folder to make; it must be new or empty.]:PATH:_files' \
            '-duration[How long the shop is open, 2s to 1h.]:DURATION: ' \
            '-json[Show nothing meanwhile, and print the result as JSON.]' \
            '-log-level[As for every command.]:LEVEL: ' \
            '1: :' \
            '*:file:_files' ;;
        generations) _arguments \
            '-config[Path of the configuration file.]:PATH:_files' \
            '-no-expand-env[Do not replace $NAME in the configuration file by environment variables.]' \
            '-log-level[How much is told; with debug and trace an unexpected error shows where it happened.]:LEVEL:(trace debug info warn error)' \
            '-replica[Only the replica of this name.]:NAME: ' \
            '-json[Print JSON instead of a table.]' \
            '1: :' \
            '*:file:_files' ;;
        info) _arguments \
            '-timeout[Longest time to wait, in seconds or as a duration (90, 5m).]:SECONDS: ' \
            '-socket[Path of the control socket.]:PATH:_files' \
            '-json[Print JSON.]' \
            '1: :' \
            '*:file:_files' ;;
        list) _arguments \
            '-timeout[Longest time to wait, in seconds or as a duration (90, 5m).]:SECONDS: ' \
            '-socket[Path of the control socket.]:PATH:_files' \
            '-json[Print JSON.]' \
            '1: :' \
            '*:file:_files' ;;
        prune) _arguments \
            '-config[Path of the configuration file.]:PATH:_files' \
            '-no-expand-env[Do not replace $NAME in the configuration file by environment variables.]' \
            '-log-level[How much is told; with debug and trace an unexpected error shows where it happened.]:LEVEL:(trace debug info warn error)' \
            '-replica[Only the replica of this name.]:NAME: ' \
            '-retention[How long snapshots, and what follows them, are kept.]:DURATION: ' \
            '-execute[Delete, instead of showing what would be deleted.]' \
            '-json[Print JSON instead of a table.]' \
            '1: :' \
            '*:file:_files' ;;
        register) _arguments \
            '-replica[Where to replicate it to. Needed.]:URL: ' \
            '-timeout[Longest time to wait, in seconds or as a duration (90, 5m).]:SECONDS: ' \
            '-socket[Path of the control socket.]:PATH:_files' \
            '-json[Print JSON.]' \
            '1: :' \
            '*:file:_files' ;;
        reload) _arguments \
            '-timeout[Longest time to wait, in seconds or as a duration (90, 5m).]:SECONDS: ' \
            '-socket[Path of the control socket.]:PATH:_files' \
            '-json[Print JSON.]' \
            '1: :' \
            '*:file:_files' ;;
        replicate) _arguments \
            '-config[Path of the configuration file.]:PATH:_files' \
            '-no-expand-env[Do not replace $NAME in the configuration file by environment variables.]' \
            '-log-level[How much is told; with debug and trace an unexpected error shows where it happened.]:LEVEL:(trace debug info warn error)' \
            '-exec[Run an application beside the replication\: the end of either ends both.]:COMMAND: ' \
            '-addr[Serve /metrics and a status page there; beats addr of the file, also when empty (nothing is served).]:HOST\:PORT: ' \
            '-once[Bring everything that is committed now into the replicas, and exit.]' \
            '-force-snapshot[With -once\: take a snapshot of every database.]' \
            '-enforce-retention[With -once\: then delete what is older than the retention.]' \
            '-restore-if-db-not-exists[First restore databases that are missing; where there is no backup, go on without.]' \
            '-takeover[While another process replicates one of the databases, wait for its end, then go on.]' \
            '-json[Write the log as JSON, one object a line; beats logging.type of the configuration.]' \
            '1: :' \
            '*:file:_files' ;;
        reset) _arguments \
            '-config[Path of the configuration file.]:PATH:_files' \
            '-no-expand-env[Do not replace $NAME in the configuration file by environment variables.]' \
            '-log-level[How much is told; with debug and trace an unexpected error shows where it happened.]:LEVEL:(trace debug info warn error)' \
            '-dry-run[Show what would be deleted.]' \
            '1: :' \
            '*:file:_files' ;;
        restore) _arguments \
            '-config[Path of the configuration file.]:PATH:_files' \
            '-no-expand-env[Do not replace $NAME in the configuration file by environment variables.]' \
            '-log-level[How much is told; with debug and trace an unexpected error shows where it happened.]:LEVEL:(trace debug info warn error)' \
            '-o[Where to write the database.]:PATH:_files' \
            '-replica[Only the replica of this name.]:NAME: ' \
            '-generation[Restore from this generation.]:NAME: ' \
            '-index[Restore up to the end of the WAL of this index (hex, as `litestream wal` shows it).]:HEX: ' \
            '-timestamp[Restore the latest state at or before this time.]:2006-01-02T15\:04\:05Z: ' \
            '-if-db-not-exists[Do nothing, with exit code 0, if the database exists already.]' \
            '-if-replica-exists[Do nothing, with exit code 0, if there is no backup. A replica that cannot be read is an error anyway.]' \
            '-parallelism[How many objects are fetched at a time.]:N: ' \
            '-force[Replace an existing database, once its copy has been restored and checked.]' \
            '-resume[Keep what is fetched until the restore has succeeded, and use what an interrupted one kept.]' \
            '-update[Bring a copy that was made with -update to the newest state, by the WAL since then if that is possible. A file that was made otherwise, or changed, is refused; -force replaces it.]' \
            '-dry-run[Show what would be restored from which objects, and stop.]' \
            '-integrity-check[SQLite'"'"'s check of the restored database; a failure leaves no output.]:KIND:(none quick full)' \
            '-f[Go on applying what comes to the replica, until stopped; what was followed before is continued.]' \
            '-follow-interval[With -f\: how often to look.]:DURATION: ' \
            '-json[Print the result (or, with -dry-run, the plan) as JSON.]' \
            '1: :' \
            '*:file:_files' ;;
        snapshots) _arguments \
            '-config[Path of the configuration file.]:PATH:_files' \
            '-no-expand-env[Do not replace $NAME in the configuration file by environment variables.]' \
            '-log-level[How much is told; with debug and trace an unexpected error shows where it happened.]:LEVEL:(trace debug info warn error)' \
            '-replica[Only the replica of this name.]:NAME: ' \
            '-json[Print JSON instead of a table.]' \
            '1: :' \
            '*:file:_files' ;;
        start) _arguments \
            '-timeout[Longest time to wait, in seconds or as a duration (90, 5m).]:SECONDS: ' \
            '-socket[Path of the control socket.]:PATH:_files' \
            '-json[Print JSON.]' \
            '1: :' \
            '*:file:_files' ;;
        status) _arguments \
            '-config[Path of the configuration file.]:PATH:_files' \
            '-no-expand-env[Do not replace $NAME in the configuration file by environment variables.]' \
            '-log-level[How much is told; with debug and trace an unexpected error shows where it happened.]:LEVEL:(trace debug info warn error)' \
            '-within[How old the oldest commit may be that a replica lacks.]:DURATION: ' \
            '-socket[Ask the replicator at this control socket, and nobody else.]:PATH:_files' \
            '-json[Print JSON instead of a table.]' \
            '1: :' \
            '*:file:_files' ;;
        stop) _arguments \
            '-timeout[Longest time to wait, in seconds or as a duration (90, 5m).]:SECONDS: ' \
            '-socket[Path of the control socket.]:PATH:_files' \
            '-json[Print JSON.]' \
            '1: :' \
            '*:file:_files' ;;
        sync) _arguments \
            '-wait[Return when it is in every replica.]' \
            '-timeout[Longest time to wait, in seconds or as a duration (90, 5m).]:SECONDS: ' \
            '-socket[Path of the control socket.]:PATH:_files' \
            '-json[Print JSON.]' \
            '1: :' \
            '*:file:_files' ;;
        unregister) _arguments \
            '-timeout[Longest time to wait, in seconds or as a duration (90, 5m).]:SECONDS: ' \
            '-socket[Path of the control socket.]:PATH:_files' \
            '-dry-run[Show what would be asked for, and ask nobody.]' \
            '-json[Print JSON.]' \
            '1: :' \
            '*:file:_files' ;;
        verify) _arguments \
            '-config[Path of the configuration file.]:PATH:_files' \
            '-no-expand-env[Do not replace $NAME in the configuration file by environment variables.]' \
            '-log-level[How much is told; with debug and trace an unexpected error shows where it happened.]:LEVEL:(trace debug info warn error)' \
            '-replica[Only the replica of this name.]:NAME: ' \
            '-generation[Only this generation.]:NAME: ' \
            '-sample[Read only a random share of the objects; what the newest state needs is always read.]:PERCENT: ' \
            '-timeout[How long to wait until the replica has what is in the live database now.]:DURATION: ' \
            '-json[Print JSON instead of a table.]' \
            '1: :' \
            '*:file:_files' ;;
        version) _arguments \
            '-verbose[Also print the versions of Python, SQLite and the platform.]' \
            '-json[Print JSON.]' \
            '1: :' \
            '*:file:_files' ;;
        wait) _arguments \
            '-pos[Only up to this position (GENERATION/INDEX\:OFFSET).]:POS: ' \
            '-all[In every replica, not just in one.]' \
            '-timeout[Longest time to wait, in seconds or as a duration (90, 5m).]:SECONDS: ' \
            '-socket[Path of the control socket.]:PATH:_files' \
            '-json[Print JSON.]' \
            '1: :' \
            '*:file:_files' ;;
        wal) _arguments \
            '-config[Path of the configuration file.]:PATH:_files' \
            '-no-expand-env[Do not replace $NAME in the configuration file by environment variables.]' \
            '-log-level[How much is told; with debug and trace an unexpected error shows where it happened.]:LEVEL:(trace debug info warn error)' \
            '-replica[Only the replica of this name.]:NAME: ' \
            '-generation[Only the segments of this generation.]:NAME: ' \
            '-json[Print JSON instead of a table.]' \
            '1: :' \
            '*:file:_files' ;;
        help) _describe -t commands command verbs ;;
    esac
}
if [[ ${funcstack[1]} == _litestream ]]; then
    _litestream "$@"
else
    compdef _litestream litestream
fi
