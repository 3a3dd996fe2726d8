#!/usr/bin/env python3
"""Makes a shared library of the whole archive, as a plug-in would, and looks that it shows what the headers declare: all
of it and nothing else. Needs clang (to read the headers)."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import abi


def exported(compiler: str, archive: str) -> set[str]:
    """Names that a shared library made of the archive shows."""
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder) / "libplugin.so")
        abi.run([compiler, "-shared", "-Wl,-z,defs", "-Wl,--whole-archive", archive, "-Wl,--no-whole-archive", "-lm",
                 "-lpthread", "-ldl", "-o", library])
        table = abi.run(["nm", "--dynamic", "--defined-only", "--format=posix", library])
    return {line.split()[0] for line in table.splitlines()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", help="the static library")
    parser.add_argument("headers", nargs="+", help="as in #include <...>")
    parser.add_argument("-I", dest="include", action="append", default=[], help="where headers are")
    parser.add_argument("--clang", default="clang")
    parser.add_argument("--compiler", default="cc")
    options = parser.parse_args()
    if shutil.which(options.clang) is None:
        print(f"skipped: {options.clang} is not installed")
        return 77
    source = "".join(f"#include <{h}>\n" for h in options.headers)
    declared = set(abi.functions(abi.syntax_tree(options.clang, [f"-I{f}" for f in options.include], source)))
    shown = exported(options.compiler, options.archive)
    for name in sorted(declared - shown):
        print(f"{name} is declared, but not exported")
    for name in sorted(shown - declared):
        print(f"{name} is exported, but no header declares it")
    print(f"{len(declared)} functions declared, {len(shown)} names exported")
    return 0 if declared == shown and declared else 1


if __name__ == "__main__":
    sys.exit(main())
