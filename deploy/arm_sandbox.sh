#!/usr/bin/env bash
# Prepares a folder in which this machine runs an edge node as an ARM machine would: qemu's user mode, an aarch64 Debian
# with Python, and the aarch64 wheels of a node. The tests of `pytest -m arm` use it.
#
#   deploy/arm_sandbox.sh DIR        then: MEC_ARM_SANDBOX=DIR pytest -m arm
#
# Needs root and a Debian with apt; takes about half a minute and 400 MB, the second time nothing. DIR/python-arm64 is the
# interpreter; QEMU_CPU_MODEL names the core that it shows (qemu-aarch64-static -cpu help), "max" by default.

set -euo pipefail

[[ $# -eq 1 ]] || { printf 'usage: %s DIR\n' "$0" >&2; exit 2; }
mkdir -p "$1"
SANDBOX="$(cd "$1" && pwd)"
CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
SUITE=bookworm
PYTHON=3.11 # what that suite has

progress() { printf '[arm sandbox] %s\n' "$*" >&2; }

fail() {
    printf '[arm sandbox] %s\n' "$*" >&2
    exit 1
}

install_tools() {
    if command -v qemu-aarch64-static >/dev/null && command -v mmdebstrap >/dev/null; then
        return
    fi
    [[ "$(id -u)" -eq 0 ]] || fail "installing qemu-user-static and mmdebstrap needs root: run this as root once"
    progress "installing qemu-user-static and mmdebstrap"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends qemu-user-static mmdebstrap >/dev/null
}

# The mirror that this machine's apt takes Debian from, so that a local one is used where there is one; nothing where
# apt names none, for mmdebstrap's own default.
mirror() {
    apt-get indextargets --format '$(ORIGIN)|$(REPO_URI)' 2>/dev/null |
        sed -n 's/^Debian|//p' | { grep -v security || true; } | sort | uniq -c | sort -rn | awk 'NR == 1 { print $2 }'
}

install_system() {
    if [[ -e "$SANDBOX/rootfs/.complete" ]]; then
        return
    fi
    [[ "$(id -u)" -eq 0 ]] || fail "unpacking the aarch64 system needs root: run this as root once"
    progress "unpacking an aarch64 $SUITE with Python $PYTHON"
    rm -rf "$SANDBOX/rootfs"
    local found
    found="$(mirror)"
    # Packages are unpacked, not configured: nothing in them runs.
    mmdebstrap --quiet --mode=root --architectures=arm64 --variant=extract \
        --include="python$PYTHON-minimal,libpython$PYTHON-stdlib,libstdc++6,libgcc-s1,zlib1g" \
        "$SUITE" "$SANDBOX/rootfs" ${found:+"$found"}
    touch "$SANDBOX/rootfs/.complete"
}

# Exactly the versions of constraints.txt, for another machine: binary wheels only.
install_wheels() {
    local wanted
    wanted="$(cat "$CHECKOUT/constraints.txt" "$CHECKOUT/deploy/arm_sandbox.sh" | sha256sum)"
    if [[ -e "$SANDBOX/site.complete" && "$(<"$SANDBOX/site.complete")" == "$wanted" ]]; then
        return
    fi
    progress "fetching the aarch64 wheels of a node"
    rm -rf "$SANDBOX/site" "$SANDBOX/site.complete"
    local python="${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/}python3"
    "$python" -m pip install --quiet --disable-pip-version-check --target "$SANDBOX/site" \
        --platform manylinux_2_34_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_24_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
        --python-version "$PYTHON" --implementation cp --only-binary=:all: --constraint "$CHECKOUT/constraints.txt" \
        aiohttp apache-tvm apache-tvm-ffi click grpcio grpcio-health-checking grpcio-reflection jinja2 msgspec numpy \
        prometheus-client protobuf rich tokenizers uvloop ||
        fail "pip could not install the wheels. Its message stands above; check the network and run this again."
    # A node has the runtime alone.
    find "$SANDBOX/site/tvm" -name 'libtvm_compiler*' -delete
    printf '%s' "$wanted" >"$SANDBOX/site.complete"
}

write_interpreter() {
    cat >"$SANDBOX/python-arm64" <<END
#!/bin/sh
exec env PYTHONHOME="$SANDBOX/rootfs/usr" PYTHONPATH="$SANDBOX/site\${PYTHONPATH:+:\$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 \\
    OPENBLAS_NUM_THREADS=1 qemu-aarch64-static -cpu "\${QEMU_CPU_MODEL:-max}" -L "$SANDBOX/rootfs" \\
    "$SANDBOX/rootfs/usr/bin/python$PYTHON" "\$@"
END
    chmod +x "$SANDBOX/python-arm64"
}

install_tools
install_system
install_wheels
write_interpreter
"$SANDBOX/python-arm64" -c 'import platform; assert platform.machine() == "aarch64"' ||
    fail "the aarch64 Python does not run; remove $SANDBOX and run this again"
progress "ready: MEC_ARM_SANDBOX=$SANDBOX pytest -m arm"
