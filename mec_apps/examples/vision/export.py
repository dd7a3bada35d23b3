"""Writes a vision encoder with RANDOM weights as a .pt2 file: `python -m mec_apps.examples.vision.export vision-random.pt2`.

Needs torch. The same seed writes the same weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from compiler.torch_modules.program import TorchProgram, export_program, save_program
from mec_apps.examples.vision.encoder import VisionEncoder

NOTE = "its weights are random, so what a model says about a picture means nothing"
SIDE = 96
MEAN, DEVIATION = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def make_program(seed: int, output: int) -> TorchProgram:
    """The example's encoder for rows of `output` floats."""
    torch.manual_seed(seed)
    return export_program(
        VisionEncoder(side=SIDE, output=output),
        torch.zeros(1, 3, SIDE, SIDE),
        "vision-random",
        input={"kind": "image", "height": SIDE, "width": SIDE, "mean": list(MEAN), "std": list(DEVIATION)},
        note=NOTE,
    )


def main() -> int:
    """Exit code 0; says that the weights are random."""
    parser = argparse.ArgumentParser(description="Write a vision encoder with RANDOM weights as a .pt2 file.")
    parser.add_argument("path", type=Path, help="file to write, such as vision-random.pt2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=int, default=576, help="width of the language model's rows")
    arguments = parser.parse_args()
    save_program(make_program(arguments.seed, arguments.output), arguments.path)
    sys.stdout.write(f"{arguments.path}: {NOTE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
