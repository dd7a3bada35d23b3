"""Regenerates the committed gRPC stubs from `proto/`: `python -m mec_platform.rpc.generate [--out DIR]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROTO_ROOT = REPOSITORY / "proto"


def generate_stubs(out: Path) -> None:
    """Writes `mec_platform/rpc/v1/*_pb2*.py(i)` below `out`. Raises RuntimeError where protoc refuses a file."""
    from grpc_tools import protoc

    files = sorted(str(path.relative_to(PROTO_ROOT)) for path in PROTO_ROOT.rglob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={PROTO_ROOT}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *files,
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc refused a file of proto/; its message stands above")


def main() -> int:
    parser = argparse.ArgumentParser(description="Regenerate the committed gRPC stubs from proto/.")
    parser.add_argument("--out", type=Path, default=REPOSITORY, help="root to write to (default: this repository)")
    generate_stubs(parser.parse_args().out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
