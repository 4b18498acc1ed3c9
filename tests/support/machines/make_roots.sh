#!/bin/bash
# make_roots.sh CACHE: root file systems of other releases of Debian for tests/run_bare_machine faults, once for each:
#   CACHE/root-new   Debian's next release: its Python, its glibc, and llama.cpp for the CPU in /llama.cpp
#   CACHE/root-old   Debian 11 (glibc 2.31), whose own Python is too old for mscli, with Debian 12's built in it
# Takes root, debootstrap, the network, a GB of disk and five minutes.
set -euo pipefail
cache=$1
mkdir -p "$cache"

# begin NAME SUITE PACKAGES: a fresh root in $made, this machine's resolver and certificates in it. False where it is complete.
begin() {
    made=$cache/root-$1
    [ ! -e "$made/complete" ] || return 1
    echo "making $made: Debian $2"
    rm -rf "$made"
    debootstrap --variant=minbase --include="procps,ca-certificates,$3" "$2" "$made" >"$made.log" 2>&1 || {
        tail -n 5 "$made.log" "$made/debootstrap/debootstrap.log"
        exit 1
    }
    cp /etc/resolv.conf "$made/etc/resolv.conf"
    [ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt "$made/etc/ssl/certs/"
}

complete() {
    rm -rf "$made"/var/cache/apt/archives/*.deb "$made"/var/lib/apt/lists/* "$made/work"
    touch "$made/complete"
}

# Debian's package, with every library beside the program as in the project's archive, and that found there.
llama_cpp() {
    mkdir -p "$made/work"
    chroot "$made" sh -ec 'cd /work && apt-get -qq -o Acquire::Check-Valid-Until=false update && apt-get -qq -o APT::Sandbox::User=root download \
        llama.cpp-tools libllama0 libggml0 libgomp1 libstdc++6 libgcc-s1 libssl3t64 libzstd1 zlib1g
        for each in *.deb; do dpkg-deb -x "$each" unpacked; done
        mkdir -p /llama.cpp && cd unpacked/usr
        cp -a bin/llama-server lib/*/*.so* lib/*/llama/*.so lib/*/ggml/backends0/*.so /llama.cpp/
        cd /llama.cpp && find . -type f ! -name "*.py" -exec patchelf --set-rpath "\$ORIGIN" {} +'
}

# Debian 12's Python has the newest source there that this compiler takes as it is.
python_from_source() {
    mkdir -p "$made/work"
    sed -n 's/^deb \(.*\) bullseye main.*/deb-src \1 bookworm main/p' "$made/etc/apt/sources.list" \
        >"$made/etc/apt/sources.list.d/source.list"
    chroot "$made" sh -ec 'cd /work && apt-get -qq -o Acquire::Check-Valid-Until=false update && apt-get -qq -o APT::Sandbox::User=root source --download-only python3.11
        tar xf python3.11_*.orig.tar.* && cd Python-3.11*
        ./configure -q --prefix=/usr && make -s -j2 && make -s install' >>"$made.log" 2>&1 || { tail -n 20 "$made.log"; exit 1; }
}

if begin new testing python3,python3-venv,patchelf; then
    llama_cpp
    complete
fi
if begin old bullseye \
    dpkg-dev,gcc,make,libc6-dev,libssl-dev,zlib1g-dev,libffi-dev,libsqlite3-dev,libbz2-dev,liblzma-dev,xz-utils; then
    python_from_source
    complete
fi
