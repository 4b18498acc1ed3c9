# The life of a service under a systemd user manager, from install to remove. PYTHON: the one that has mscli.
# PORT: one that nobody else chooses while the instance is down for a moment. HANGS: not empty where the engine is to
# hang as well, which takes a minute to be noticed. ORDERS: the folder that an obedient engine reads, where it is one;
# MEMORY: a group of processes with a limit.
set -e
told() {
    mscli status --all --json |
        "$PYTHON" -c 'import json,sys; print(json.load(sys.stdin)["data"]["instances"][0][sys.argv[1]])' "$1"
}
until_told() {
    for _ in $(seq 1000); do
        [ "$(told "$1")" = "$2" ] && return
        sleep 0.1
    done
    echo "$1 is $(told "$1"), not $2"
    exit 1
}
mscli() { "$PYTHON" -m mscli "$@"; }
engine() { cat "/proc/$main/task/$main/children"; }
unit=mscli-rehearsal.service
mscli up rehearsal --port "$PORT"
mscli service install rehearsal
[ "$(systemctl --user is-active $unit)" = active ]
main=$(systemctl --user show -p MainPID --value $unit)
[ "$main" = "$(told pid)" ]
kill -KILL $(engine)                                        # the engine: its companion starts it again
until_told restarts 1; until_told state ready
mscli status | grep -q "restarts  *1$"; mscli status | grep -q "last exit  *it was killed"
[ "$(systemctl --user is-active $unit)" = active ]
if [ -n "$HANGS" ]; then
    kill -STOP $(engine)
    until_told restarts 2; until_told state ready
    mscli status | grep -q "last exit  *it stopped answering"
fi
if [ -n "$ORDERS" ]; then
    rm "$ORDERS/ready"                                      # it answers 503 without end
    until_told restarts 2
    touch "$ORDERS/ready"
    until_told state ready
    mscli status | grep -q "last exit  *it stopped answering"
    engine >"$MEMORY/cgroup.procs"
    echo -n $(engine) >"$ORDERS/eat"
    until_told restarts 3; until_told state ready
    mscli status | tr -s ' \n' ' ' | grep -q "which is what the kernel does when RAM runs out"
    rm "$ORDERS/eat"
fi
kill -KILL $main                                            # the companion: systemd starts the service again
systemctl --user restart $unit                              # and we do not wait for RestartSec
until_told state ready
systemctl --user stop $unit
until_told state stopped
systemctl --user start $unit
until_told state ready
mscli down rehearsal
for _ in $(seq 100); do [ "$(systemctl --user is-active $unit)" = inactive ] && break; sleep 0.1; done
[ "$(systemctl --user is-active $unit)" = inactive ]
mscli service remove rehearsal
[ ! -e "$HOME/.config/systemd/user/$unit" ]
echo all of it
