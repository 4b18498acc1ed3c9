#!/bin/sh
# bare_machine.sh GIVEN STORY SIZE SYSTEM PYTHON: run the shell script STORY as a user without root, on a machine that
# holds the /usr of the root file system SYSTEM (/: this one) without /usr/local, an empty home, and GIVEN at /given.
# Its network has a loopback and nothing else. SIZE: of the home ("16G"), in memory; empty: it lies on this system's
# disk. PYTHON: a folder with a Python that comes first there, as a user of pyenv has it; empty: the system's own.
# To be called as root, in mount, network and PID namespaces of its own (unshare), with PYTHONPATH to tests.
set -eu
given=$1 story=$2 size=$3 system=${4%/} python=$5 root=$1/root
mkdir -p "$root"
mount -t tmpfs -o mode=755 none "$root"
mkdir -p "$root/usr" "$root/proc" "$root/dev/shm" "$root/tmp" "$root/etc" "$root/home/user" "$root/given" "$root/run" "$root/sys"
mount --rbind "$system/usr" "$root/usr"
mount -t tmpfs none "$root/usr/local"
if [ -n "$python" ]; then
    mkdir -p "$root$python" "$root/usr/local/bin"
    mount --rbind "$python" "$root$python"
    ln -s "$python/bin/python3" "$root/usr/local/bin/python3"
fi
[ ! -d "$given/programs" ] || { mkdir -p "$root/usr/local/bin" && cp "$given"/programs/* "$root/usr/local/bin/"; }
for name in bin sbin lib lib32 lib64; do
    [ ! -L "$system/$name" ] || ln -s "$(readlink "$system/$name")" "$root/$name"
done
mount -t proc none "$root/proc"
mount -t sysfs -o ro none "$root/sys"
mount -t tmpfs -o mode=1777 none "$root/dev/shm"
for name in null zero random urandom; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
ln -s /proc/self/fd "$root/dev/fd"
for name in ld.so.cache ld.so.conf ld.so.conf.d alternatives ssl nsswitch.conf localtime; do
    [ ! -e "$system/etc/$name" ] || cp -a "$system/etc/$name" "$root/etc/"
done
echo 'user:x:12345:12345::/home/user:/bin/sh' >"$root/etc/passwd"
echo 'user:x:12345:' >"$root/etc/group"
echo '127.0.0.1 localhost download.pytorch.org' >"$root/etc/hosts"
mkdir -p "$given/home"
[ -z "$size" ] || mount -t tmpfs -o "size=$size" none "$given/home"
chown 12345:12345 "$given/home"
mount --bind "$given/home" "$root/home/user"
chmod 1777 "$root/tmp"
mount --bind "$given" "$root/given"
mount -o remount,ro,bind "$root/given"
ip link set lo up
mkfifo "$given/internet"
"$PYTHON" -m support.machines.internet "$given" >"$given/internet" 2>"$given/internet.log" &
read -r _ <"$given/internet"
status=0
chroot "$root" setpriv --reuid 12345 --regid 12345 --clear-groups env -i HOME=/home/user PATH=/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 sh "/given/$story" || status=$?
exit $status
