#!/usr/bin/env bash
# Sets everything up and runs the demonstration; arguments go to `mec demo`, for example --serve or --json PATH.

set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prepare_environment platform node compiler
exec "$VENV/bin/mec" demo "$@"
