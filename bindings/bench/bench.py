#!/usr/bin/env python3
"""Times the same call from C, Rust and Go against one build of the library, and holds the overheads to their bars.

Runs take turns, and the least time of each language counts, so that a busy machine disturbs all alike."""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RUST_BAR = 0.03  # of C's time
GO_BAR_NS = 300.0


def build(root: Path, library: Path, work: Path) -> list[Path]:
    """The three programs."""
    environment = dict(os.environ, KVSIFT_DIR=str(library), CARGO_TARGET_DIR=str(work / "cargo"), GOFLAGS="-mod=mod",
                       GOPROXY="off", PKG_CONFIG_PATH=str(library / "meson-uninstalled"))
    c, go = work / "select_c", work / "select_go"
    subprocess.run(["cc", "-O2", "-std=c11", "-D_POSIX_C_SOURCE=200809L", f"-I{root / 'include'}",
                    str(root / "bindings/bench/select.c"), str(library / "libkvsift.a"), "-lm", "-lpthread", "-o", str(c)],
                   check=True)
    subprocess.run(["cargo", "build", "--quiet", "--release", "--offline", "--example", "bench_select"], check=True,
                   cwd=root / "bindings/rust/kvsift", env=environment)
    subprocess.run(["go", "build", "-o", str(go), "./benchselect"], check=True, cwd=root / "bindings/go", env=environment)
    return [c, work / "cargo/release/examples/bench_select", go]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path, help="a build folder of the library, with libkvsift.a")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        programs = build(root, options.build.resolve(), Path(folder))
        best: dict[str, dict[str, float]] = {}
        for turn in range(options.turns):
            print(f"turn {turn + 1} of {options.turns}", file=sys.stderr)
            for program in programs:
                figures = json.loads(subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout)
                known = best.setdefault(figures.pop("language"), figures)
                known["select_ns"] = min(known["select_ns"], figures["select_ns"])
    c, rust, go = (best[language]["select_ns"] for language in ("C", "Rust", "Go"))
    result = {"c_ns": c, "rust_ns": rust, "go_ns": go, "rust_overhead": round(rust / c - 1, 4),
              "go_overhead_ns": round(go - c, 1), "go_allocations_per_call": best["Go"]["allocations_per_call"]}
    print(json.dumps(result))
    return 0 if result["rust_overhead"] <= RUST_BAR and result["go_overhead_ns"] <= GO_BAR_NS else 1


if __name__ == "__main__":
    sys.exit(main())
