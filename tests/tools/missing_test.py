"""Programs in tools/ name a package that is missing in a sentence; those that need none run without any."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run_bare(program: Path) -> subprocess.CompletedProcess:
    """With the standard library alone."""
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([sys.executable, "-S", program, "--help"], capture_output=True, text=True, env=bare)


class Missing(unittest.TestCase):
    def test_every_program(self) -> None:
        programs = [path for path in sorted(TOOLS.glob("*.py")) if "__main__" in path.read_text()]
        self.assertGreaterEqual(len(programs), 8)
        for program in programs:
            done = run_bare(program)
            if program.name in ("convert_predictor.py", "report.py"):
                self.assertEqual(done.returncode, 0, done.stderr)
                continue
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertRegex(done.stderr, r"^\S+: No module named '\w+'; pip install -r tools/requirements.txt\n$")


if __name__ == "__main__":
    unittest.main()
