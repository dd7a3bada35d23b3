#!/usr/bin/env bash
# Sets everything up and runs every check: style, types, import rules, tests. Arguments go to pytest, for example -k sdk.

set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_environment platform node compiler cross dev
cd "$CHECKOUT"

check() {
    printf '\n[test] %s\n' "$*"
    "$VENV/bin/$1" "${@:2}"
}

check ruff check .
check ruff format --check .
check mypy
check lint-imports
check pytest "$@"
printf '\n[test] every check passed\n'
