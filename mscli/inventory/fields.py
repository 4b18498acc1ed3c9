"""Fields of NVML read one by one: a call that fails costs its field and leaves a Problem, never the GPU."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

from mscli.inventory.inventory import Problem

T = TypeVar("T")


class Fields:
    """Reads through `nvml` (the pynvml module) what it tells of `subject`: nothing (the system), a handle, or two.

    What cannot be read becomes None and one of `problems`, whose field is `prefix` and the field's name. Nothing is
    asked of a handle that is None: that the driver would not open the GPU is one problem, not twelve.
    """

    def __init__(self, nvml: ModuleType, *subject: Any, prefix: str = "") -> None:
        self.nvml = nvml
        self.problems: list[Problem] = []
        self._subject = subject
        self._prefix = prefix

    def part(self, prefix: str, *subject: Any) -> Fields:
        """Fields of something inside this subject; their problems are added to this one's."""
        part = Fields(self.nvml, *subject, prefix=self._prefix + prefix)
        part.problems = self.problems
        return part

    def read(self, field: str, *calls: Callable[..., T], instead: Mapping[int, T] | None = None) -> T | None:
        """The answer, for the subject, of the first of `calls` (newest version first) that this driver knows.

        `instead`: what an NVML error code means where it is an answer rather than a failure.
        """
        if None in self._subject:
            return None
        for position, call in enumerate(calls, 1):
            try:
                return call(*self._subject)
            except self.nvml.NVMLError as error:
                if instead and error.value in instead:
                    return instead[error.value]
                if position == len(calls) or error.value not in self._unknown_version():
                    self._note(field, error)
                    return None
        return None

    def _unknown_version(self) -> tuple[int, ...]:
        """How drivers say that they do not know this version of a call."""
        nvml = self.nvml
        return (
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
            nvml.NVML_ERROR_INVALID_ARGUMENT,
            nvml.NVML_ERROR_NOT_SUPPORTED,
        )

    def _note(self, field: str, error: Exception) -> None:
        name = self._prefix + field
        problem = Problem(name, error_name(error), f"{name} could not be read: {error}")
        if problem not in self.problems:
            self.problems.append(problem)


def error_name(error: Exception) -> str:
    """NVML's name of an NVMLError: NVMLError_GpuIsLost gives GPU_IS_LOST, a number unknown to pynvml ERROR_<n>."""
    _, _, words = type(error).__name__.partition("_")
    if not words:
        return f"ERROR_{getattr(error, 'value', 'UNKNOWN')}"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", words).upper()
