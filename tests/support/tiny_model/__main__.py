"""Command line: `python tests/support/tiny_model OUT [--variant small31] [--shape tiny] [--format q8_0 ...]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from support.tiny_model.model import SEED, tiny_model
from support.tiny_model.script import VARIANTS
from support.tiny_model.weights import SHAPES
from support.tiny_model.writing import FORMATS, write


def main() -> None:
    """Writes one model."""
    parser = argparse.ArgumentParser(prog="tiny_model", description="Write a tiny scripted model.")
    parser.add_argument("out", type=Path, help="the folder to write to")
    parser.add_argument("--variant", choices=VARIANTS, default="small31")
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--format", choices=FORMATS, nargs="+", default=FORMATS, help="what to write (default: all)")
    parser.add_argument("--name", help="stem of the GGUF files (default: the variant)")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    model = tiny_model(arguments.variant, arguments.shape, arguments.seed)
    for path in write(arguments.out, model, arguments.format, arguments.name):
        print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
