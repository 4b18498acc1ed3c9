"""`python model_folder.py FOLDER NAME CONTEXT PROGRAM ...`: runs PROGRAM with the model in FOLDER as ./NAME.

mistral.rs calls a model by the path it was given, so that a model gets its name by being ./NAME; and three things in
the folder of a Hub repository put it off. NAME is a folder of links without them, in $TMPDIR, which goes with the
instance. Its config allows CONTEXT tokens and no more: that is the one limit of a prompt that mistral.rs keeps to.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# It takes a folder with params.json for one of Mistral's own format, and then misses half of it.
MISREAD = ("params.json", "consolidated*.safetensors")
PREPROCESSOR, CONFIG = "preprocessor_config.json", "config.json"
LONGEST = "max_position_embeddings"


def linked(folder: Path, name: Path, context: int) -> None:
    """Make `name` anew: links to the files of `folder` that are read as they are, and what is not, corrected."""
    if name.is_dir():
        shutil.rmtree(name)
    name.mkdir()
    for file in folder.iterdir():
        if not any(file.match(pattern) for pattern in MISREAD):
            (name / file.name).symlink_to(file.resolve())
    _written(name / PREPROCESSOR, corrected)
    _written(name / CONFIG, lambda config: limited(config, context))


def _written(link: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """A changed copy in place of a link to a file of JSON; nothing where there is none."""
    if link.is_file():
        changed = change(json.loads(link.read_text()))
        link.unlink()
        link.write_text(json.dumps(changed, indent=2))


def limited(config: dict[str, Any], context: int) -> dict[str, Any]:
    """The model's config with at most `context` tokens, in the part for text where there is one."""
    text = {"text_config": limited(config["text_config"], context)} if "text_config" in config else {}
    longest = {LONGEST: min(config[LONGEST], context)} if LONGEST in config else {}
    return {**config, **text, **longest}


def corrected(preprocessor: dict[str, Any]) -> dict[str, Any]:
    """`patch_size` as a number, where newer transformers write a height and a width, and `default_to_square`, without
    which the first image ends the server."""
    patch = preprocessor.get("patch_size")
    number = patch.get("height") if isinstance(patch, dict) else patch
    return {**preprocessor, "patch_size": number, "default_to_square": True}


def main() -> None:
    """Becomes PROGRAM."""
    folder, name, context, *program = sys.argv[1:]
    source = Path(folder).absolute()
    os.chdir(os.environ.get("TMPDIR", "."))
    if source.is_dir():
        linked(source, Path(name), int(context))
    os.execvp(program[0], program)


if __name__ == "__main__":
    main()
