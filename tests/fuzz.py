"""Runs all property tests again and again with other examples, within a budget of seconds: fuzz.py SECONDS [SEED]."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parent


def property_tests() -> list[str]:
    return [str(path) for path in sorted(TESTS.rglob("test_*.py")) if "hypothesis" in path.read_text(encoding="utf-8")]


def main(seconds: float, seed: int) -> int:
    ends = time.monotonic() + seconds
    while True:
        print(f"fuzz: seed {seed}", flush=True)
        # -m: pytest-xdist's workers get the seed too; the slow ones have the largest examples.
        run = [sys.executable, "-m", "pytest", "-n", "2", "--hypothesis-profile=fuzz", f"--hypothesis-seed={seed}"]
        code = subprocess.run([*run, "-m", "", *property_tests()], check=False).returncode
        if code or time.monotonic() > ends:
            return code
        seed += 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else secrets.randbelow(1 << 32)))
