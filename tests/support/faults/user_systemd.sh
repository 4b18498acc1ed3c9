# A systemd user manager of the test's own, in namespaces of its own: run with `unshare -m -p -f --mount-proc`.
# $1: an empty folder that becomes HOME; the rest is run beside the manager.
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/user/0
chmod 700 /run/user/0
export HOME="$1" XDG_RUNTIME_DIR=/run/user/0
shift
env -i PATH="$PATH" HOME="$HOME" XDG_RUNTIME_DIR=/run/user/0 /lib/systemd/systemd --user >"$HOME/systemd.log" 2>&1 &
for _ in $(seq 100); do
    case "$(systemctl --user is-system-running 2>/dev/null)" in running | degraded) break ;; esac
    sleep 0.1
done
code=0
"$@" || code=$?
systemctl --user exit >/dev/null 2>&1 || true
exit $code
