# Waits for the end of the process that started it, then empties the run directory $1 of processes
# and removes it. The pipe on standard input closes when its only writer is gone, for whatever
# reason, and no signal to us can be forgotten by somebody who was killed.
dir=$1
# Ctrl-C and a closed terminal are for the one we watch; our turn comes after its end.
trap '' INT QUIT HUP TERM
cd / || exit 1
while read -r _; do :; done

# True for what we started. Somebody's shell may have gone into $dir to look at a log: it leads a
# session with a terminal, or belongs to another one; a server has no terminal or shares ours.
is_ours() {
    read -r line 2>/dev/null <"/proc/$1/stat" || return 1
    pid_of=$1
    # Behind the name, which may hold anything: state, parent, group, session, terminal.
    # shellcheck disable=SC2086
    set -- ${line##*) }
    [ "$5" = 0 ] || { [ "$4" = "$session" ] && [ "$4" != "$pid_of" ]; }
}
read -r line <"/proc/$$/stat"
# shellcheck disable=SC2086
set -- ${line##*) }
session=$4

# Kills every process of ours whose working directory lies in $dir; true if there was one.
# `cd` into /proc/PID/cwd and $PWD cost no process of their own, unlike readlink.
sweep() {
    found=1
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        [ "$pid" = "$$" ] && continue
        cd -P "$entry/cwd" 2>/dev/null || continue
        case $PWD/ in
        "$dir"/*) is_ours "$pid" && kill -9 "$pid" 2>/dev/null && found=0 ;;
        esac
    done
    cd /
    return $found
}

# A killed Postgres leaves its System V segment (the lock on its data directory) behind. Line 1 of
# postmaster.pid is the segment's creator, line 7 holds its key and id.
free_segments() {
    for file in "$dir"/*/postmaster.pid "$dir"/*/*/postmaster.pid; do
        [ -f "$file" ] || continue
        creator=$(sed -n 1p "$file")
        segment=$(sed -n '7s/.* //p' "$file")
        while read -r _ id _ _ cpid _ attached _; do
            [ "$id $cpid $attached" = "$segment $creator 0" ] && ipcrm -m "$id" 2>/dev/null
        done </proc/sysvipc/shm
    done
}

# Two clean sweeps in a row, as a process may fork while the first one looks elsewhere. A process
# in uninterruptible sleep dies late: hence many rounds, and an end to them.
clean=0
round=0
while [ $clean -lt 2 ] && [ $round -lt 400 ]; do
    if sweep; then
        clean=0
        sleep 0.05
    else
        clean=$((clean + 1))
    fi
    round=$((round + 1))
done
free_segments
rm -rf "$dir"
