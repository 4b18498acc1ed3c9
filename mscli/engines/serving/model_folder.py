"""`python model_folder.py FOLDER NAME PROGRAM ...`: runs PROGRAM with the model in FOLDER as ./NAME, readable for it.

mistral.rs calls a model by the path it was given, so that a model gets its name by being ./NAME; and three things in
the folder of a Hub repository put it off. NAME is a folder of links without them, in $TMPDIR, which goes with the
instance.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

# It takes a folder with params.json for one of Mistral's own format, and then misses half of it.
MISREAD = ("params.json", "consolidated*.safetensors")
PREPROCESSOR = "preprocessor_config.json"


def linked(folder: Path, name: Path) -> None:
    """Make `name` anew: links to the files of `folder` that are read as they are, and what is not, corrected."""
    if name.is_dir():
        shutil.rmtree(name)
    name.mkdir()
    for file in folder.iterdir():
        if not any(file.match(pattern) for pattern in MISREAD):
            (name / file.name).symlink_to(file.resolve())
    given = folder / PREPROCESSOR
    if given.is_file():
        (name / PREPROCESSOR).unlink()
        (name / PREPROCESSOR).write_text(json.dumps(corrected(json.loads(given.read_text())), indent=2))


def corrected(preprocessor: dict[str, Any]) -> dict[str, Any]:
    """`patch_size` as a number, where newer transformers write a height and a width, and `default_to_square`, without
    which the first image ends the server."""
    patch = preprocessor.get("patch_size")
    number = patch.get("height") if isinstance(patch, dict) else patch
    return {**preprocessor, "patch_size": number, "default_to_square": True}


def main() -> None:
    """Becomes PROGRAM."""
    folder, name, *program = sys.argv[1:]
    source = Path(folder).absolute()
    os.chdir(os.environ.get("TMPDIR", "."))
    if source.is_dir():
        linked(source, Path(name))
    os.execvp(program[0], program)


if __name__ == "__main__":
    main()
