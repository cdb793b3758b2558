#!/bin/sh
# Set-up of the proxy's benchmark (make bench-tools): system packages by apt where it is there, the others into
# var/bench by pip (hashes checked) and npm (lock checked). Safe to repeat; nothing outside var/bench but the
# system packages is touched.
set -eu
cd "$(dirname "$0")/../.."
here=benchmarks/proxy/configuration
place=var/bench

missing=""
for pair in nginx:nginx-light haproxy:haproxy wrk:wrk valgrind:valgrind taskset:util-linux; do
    PATH="$PATH:/usr/sbin" command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || {
        echo "The benchmark needs$missing; install them with this machine's package manager" >&2
        exit 1
    }
    echo "The benchmark's peers are missing: installing$missing"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

if ! cmp -s "$here/peers.txt" "$place/peers.txt"; then
    echo "Installing Node, aiohttp and FastAPI into $place"
    mkdir -p "$place"
    test -x "$place/peers/bin/python" || .venv/bin/python -m venv "$place/peers"
    "$place/peers/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$here/peers.txt"
    cp "$here/peers.txt" "$place/peers.txt"
fi

if ! cmp -s "$here/package-lock.json" "$place/node/package-lock.json"; then
    mkdir -p "$place/node.new"
    cp "$here/package.json" "$here/package-lock.json" "$place/node.new"
    (cd "$place/node.new" && PATH="$PWD/../peers/bin:$PATH" npm ci --silent --no-audit --no-fund)
    rm -rf "$place/node"
    mv "$place/node.new" "$place/node"
fi
