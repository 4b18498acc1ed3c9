"""A Python environment made for one test: this interpreter, and packages of a few lines which it really imports."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import packaging

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class MadeEnvironment:
    """`folder`: its root, as MSCLI_VLLM and MSCLI_TRANSFORMERS name it."""

    folder: Path

    @property
    def packages(self) -> Path:
        return self.folder / "lib" / VERSION / "site-packages"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def make(self) -> None:
        """The environment itself, with the one library that reads requirements."""
        self.packages.mkdir(parents=True)
        self.python.parent.mkdir()
        self.python.symlink_to(Path(sys.executable).resolve())
        (self.folder / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix, 'bin')}\n")
        (self.packages / "packaging").symlink_to(Path(packaging.__file__).parent)

    def script(self, name: str) -> None:
        """A command of the environment."""
        path = self.python.with_name(name)
        path.write_text(f"#!{self.python}\n")
        path.chmod(0o755)

    def package(self, name: str, version: str, *requires: str, python: str = "", **modules: str) -> None:
        """A distribution with its metadata. `modules`: the text of each, by dotted name with __ for the dot."""
        for module, text in {name: "", **modules}.items():
            self.module(module.replace("__", "."), text)
        metadata = self.packages / f"{name}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {each}" for each in requires)]
        lines += [f"Requires-Python: {python}"] if python else []
        metadata.write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")

    def module(self, dotted: str, text: str) -> None:
        """One module as a package of its own, those above it likewise."""
        folder = self.packages
        for part in dotted.split("."):
            folder = folder / part
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()
        (folder / "__init__.py").write_text(text)

    def drop(self, name: str) -> None:
        """As if it had never been installed."""
        for path in [self.packages / name, *self.packages.glob(f"{name}-*.dist-info")]:
            shutil.rmtree(path)

    def torch(
        self, version: str = "2.9.0", cuda: str | None = "12.8", codes: str = "sm_80 sm_90 sm_100 sm_120"
    ) -> None:
        """PyTorch, as far as anybody asks it."""
        if (self.packages / "torch").exists():
            self.drop("torch")
        told = f"class _C:\n    _cuda_getArchFlags = staticmethod(lambda: {codes!r})\n"
        self.package("torch", version, torch=told)
        file = self.packages / "torch" / "version.py"
        file.write_text(f"__version__ = {version!r}\ncuda = {cuda!r}\nhip = None\n")

    def transformers(self, version: str = "5.17.0", types: str = "mistral3") -> None:
        """Transformers, as far as anybody asks it."""
        if (self.packages / "transformers").exists():
            self.drop("transformers")
        names = f"CONFIG_MAPPING_NAMES = {{{types!r}: 'Config'}}"
        self.package("transformers", version, transformers__models__auto__configuration_auto=names)

    def mistral_common(self, version: str = "1.12.0", text: str = "") -> None:
        """mistral_common, as far as anybody asks it."""
        if (self.packages / "mistral_common").exists():
            self.drop("mistral_common")
        self.package("mistral_common", version, mistral_common__tokens__tokenizers__mistral=text)

    def vllm(
        self, *requires: str, version: str = "0.32.0", python: str = "", server: str = "", native: str = ""
    ) -> None:
        """vLLM, its compiled part among it."""
        if (self.packages / "vllm").exists():
            self.drop("vllm")
        asked = ("torch==2.9.0", "transformers<5.20,>=5.16", "mistral_common>=1.11")
        modules = {"vllm__entrypoints__openai__api_server": server, "vllm___C": native}
        self.package("vllm", "0.32.0", *asked, python=python, **modules)
        self.script("vllm")
