#!/usr/bin/env bash
# Sets everything up and runs every check: style, types, import rules, tests. Arguments go to pytest, for example -k sdk.

set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_environment platform node compiler cross dev
cd "$CHECKOUT"

# The tests of platform replicas start etcd processes of their own; where there is no etcd they are skipped and say so.
install_etcd() {
    if command -v etcd >/dev/null; then
        return
    fi
    if [[ "$(id -u)" -ne 0 ]] || ! command -v apt-get >/dev/null; then
        progress "there is no etcd, its tests are skipped: apt-get install etcd-server as root"
        return
    fi
    progress "installing etcd-server"
    if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends etcd-server; } >/dev/null 2>&1; then
        progress "etcd-server could not be installed, its tests are skipped"
        return
    fi
    # Nobody asked for the service that comes with it.
    if [[ -d /run/systemd/system ]]; then
        systemctl disable --quiet --now etcd || true
    fi
}

install_etcd

check() {
    printf '\n[test] %s\n' "$*"
    "$VENV/bin/$1" "${@:2}"
}

check ruff check .
check ruff format --check .
check mypy
check lint-imports
# Two workers, because much of the time is spent waiting for processes and deadlines; -n 0 runs all in one, as --pdb needs.
# A file's tests stay together, because they share its fixtures, and files keep their order: the soak begins first.
check pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
printf '\n[test] every check passed\n'
