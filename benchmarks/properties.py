"""Each property of what mscli reads from others (files, logs, answers, archives), run for minutes.

    python benchmarks/properties.py [--minutes 10] [--at-once 2] [--report benchmarks/properties.md] [WORD ...]

Runs a property again and again, each time with examples drawn anew. WORD: only those with the word in their name. The
exit status is 1 where one failed; what failed is printed, and Hypothesis keeps the example for the next test run.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROPERTIES = {
    "profiles": "tests/catalog/test_mutations.py::test_a_profile_with_one_change_loads_or_names_the_line",
    "profile files": "tests/catalog/test_mutations.py::test_a_file_of_anything_loads_or_names_the_line",
    "records": "tests/instances/test_records.py::test_a_record_with_one_change_is_read_or_named",
    "record files": "tests/instances/test_records.py::test_a_record_of_anything_is_named",
    "machine files": "tests/planning/test_machine.py::test_a_machine_file_of_anything_is_read_or_names_the_line",
    "specs": "tests/planning/test_machine.py::test_any_words_are_a_machine_or_wrong_use",
    "engine logs": "tests/diagnosis/test_diagnosis.py::test_any_log_has_causes_of_the_list",
    "HTTP answers": "tests/test_http.py::test_any_answer_is_read_or_is_a_fault_in_words",
    "stream chunks": "tests/chat/test_stream.py::test_bytes_of_any_kind_never_break_the_reader",
    "archives": "tests/engines/test_archive.py::test_no_archive_of_any_entries_reaches_outside",
}
_LOOP = """
import contextlib, io, sys, time, pytest
end, runs = time.monotonic() + float(sys.argv[1]), 0
while time.monotonic() < end:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = pytest.main(["-q", "-p", "no:cacheprovider", sys.argv[2]])
    if code:
        print(said.getvalue()[-4000:])
        sys.exit(1)
    runs += 1
print(runs)
"""


@dataclass(frozen=True)
class Ran:
    """One property: how often its examples were drawn, in how many seconds, and what failed."""

    name: str
    runs: int
    seconds: float
    failure: str


def ran(name: str, seconds: float) -> Ran:
    """Run a property for so long, or until it fails."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _LOOP, str(seconds), PROPERTIES[name]], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    took, said = time.monotonic() - begun, done.stdout.strip()
    ok = done.returncode == 0
    result = Ran(name, int(said.splitlines()[-1]) if ok else 0, took, "" if ok else said + done.stderr[-2000:])
    print(f"{name}: {result.runs} runs, {took:.0f} s, {'clean' if ok else 'FAILED'}\n{result.failure}", flush=True)
    return result


def report(path: Path, all_: list[Ran], minutes: float) -> None:
    """Write the report."""
    rows = (f"| {it.name} | {it.runs} | {it.seconds:.0f} s | {'failed' if it.failure else 'clean'} |" for it in all_)
    lines = [
        "# Properties, run for minutes", "",
        f"`python benchmarks/properties.py --minutes {minutes:g}` on {os.cpu_count()} cores, "
        f"Python {platform.python_version()}. A run draws 40 to 150 examples.", "",
        "| property of | runs | time | |", "| --- | ---: | ---: | --- |", *rows,
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")


def main() -> int:
    """Run them; 1 where one failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--report", type=Path)
    asked = parser.parse_args()
    names = [name for name in PROPERTIES if not asked.words or any(word in name for word in asked.words)]
    with ThreadPoolExecutor(asked.at_once) as pool:
        all_ = list(pool.map(lambda name: ran(name, asked.minutes * 60), names))
    if asked.report:
        report(asked.report, all_, asked.minutes)
    return int(any(it.failure for it in all_))


if __name__ == "__main__":
    sys.exit(main())
