#!/usr/bin/env python3
"""Runs the CUDA tests of a build folder on the machine's device (or on what KVSIFT_CUDA_DRIVER and KVSIFT_CUBLASLT name), the same programs
that `meson test` runs on the emulator; also under a tool such as compute-sanitizer. Writes what became of each as JSON."""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SKIPPED = 77


def cuda_tests(build: Path) -> list[dict[str, Any]]:
    """The suite's programs, but for those that only make sense on the emulator or without a device, and for the same program
    on other emulated devices."""
    listed = json.loads((build / "meson-info" / "intro-tests.json").read_text())
    tests = [t for t in listed if any(s.endswith("cuda") for s in t["suite"])]
    return [t for t in tests if Path(t["cmd"][0]).is_relative_to(build) and not re.search("_shuffled|_apart|cuda/races", t["name"])]


def emulated() -> bool:
    """Whether the tests are about to run on the emulator: as run_on_device.sh is told."""
    return os.environ.get("KVSIFT_CUDA_MOCK", "0") != "0"


def targets(tests: list[dict[str, Any]], build: Path) -> list[str]:
    """What ninja must build for them."""
    programs = {os.path.relpath(t["cmd"][0], build) for t in tests}
    mocks = {f"tests/cuda/libkvsift_mock_{name}.so" for name in ("cuda", "cublas")} if emulated() else set()
    return sorted({*programs, *mocks, "libkvsift.a"})


def run(test: dict[str, Any], wrapper: list[str], seconds: float) -> dict[str, Any]:
    """One test; its output is kept where it failed."""
    command = wrapper + test["cmd"]
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, errors="replace")
        status, output = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as slow:
        status, output = 124, str(slow)
    result: dict[str, Any] = {"test": test["name"], "status": status, "seconds": round(time.monotonic() - began, 2)}
    if status not in (0, SKIPPED):
        result["output"] = output[-3000:]
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True, help="the build folder")
    parser.add_argument("--targets", action="store_true", help="print what ninja must build, and stop")
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--only", default="", help="a regular expression that a test's name must match")
    parser.add_argument("--wrapper", default="", help="a command before each test's own")
    parser.add_argument("--seconds", type=float, default=120, help="the most that one test may take")
    parser.add_argument("--jobs", type=int, default=4, help="tests at a time")
    options = parser.parse_args()
    build = options.build.resolve()
    tests = [t for t in cuda_tests(build) if re.search(options.only, t["name"])]
    if options.targets:
        print("\n".join(targets(tests, build)))
        return 0
    results = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(lambda t: run(t, shlex.split(options.wrapper), options.seconds), tests):
            word = {0: "ok", SKIPPED: "skipped"}.get(result["status"], f"FAILED ({result['status']})")
            print(f"{word:12} {result['seconds']:7.2f} s  {result['test']}", flush=True)
            results.append(result)
            if options.json is not None:
                options.json.write_text(json.dumps(results, indent=1) + "\n")
    bad = sum(r["status"] not in (0, SKIPPED) for r in results)
    print(f"{len(results)} tests, {bad} failed")
    return 1 if bad or not results else 0


if __name__ == "__main__":
    sys.exit(main())
