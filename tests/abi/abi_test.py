#!/usr/bin/env python3
"""Edits a sample header and asks abi.py whether the ABI broke."""
from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SAMPLE = """
#include <stdint.h>
#define KVSIFT_LIMIT 8u
#define KVSIFT_VERSION_MINOR 1
typedef int32_t kvsift_status;
enum { KVSIFT_OK = 0, KVSIFT_BAD = 1 };
typedef struct kvsift_plain { uint32_t begin, end; } kvsift_plain;
typedef struct kvsift_sized { uint32_t struct_size; uint32_t mode; float share; } kvsift_sized;
typedef struct kvsift_holder { uint32_t struct_size; kvsift_sized inner; uint32_t last; } kvsift_holder;
typedef struct kvsift_handle kvsift_handle;
kvsift_status kvsift_make(const kvsift_sized *config, kvsift_handle **handle);
uint32_t kvsift_count(const kvsift_handle *handle);
"""

COMPATIBLE = {
    "nothing": ("", ""),
    "a comment": ("enum {", "/* codes */ enum {"),
    "an appended enumerator": ("KVSIFT_BAD = 1", "KVSIFT_BAD = 1, KVSIFT_WORSE = 2"),
    "a new function": ("uint32_t kvsift_count", "void kvsift_more(void);\nuint32_t kvsift_count"),
    "a new struct": ("typedef struct kvsift_handle", "typedef struct kvsift_new { int a; } kvsift_new;\ntypedef struct kvsift_handle"),
    "a field at the end of a sized struct": ("uint32_t last;", "uint32_t last; uint32_t later;"),
    "another version": ("VERSION_MINOR 1", "VERSION_MINOR 2"),
    "a renamed parameter": ("const kvsift_sized *config", "const kvsift_sized *settings"),
}

INCOMPATIBLE = {
    "a removed function": ("uint32_t kvsift_count(const kvsift_handle *handle);", ""),
    "another return type": ("uint32_t kvsift_count", "uint64_t kvsift_count"),
    "another parameter": ("kvsift_handle **handle)", "kvsift_handle **handle, int flags)"),
    "a lost const": ("const kvsift_sized *config", "kvsift_sized *config"),
    "another enumerator's value": ("KVSIFT_BAD = 1", "KVSIFT_BAD = 2"),
    "a removed enumerator": (", KVSIFT_BAD = 1", ""),
    "a macro's value": ("KVSIFT_LIMIT 8u", "KVSIFT_LIMIT 9u"),
    "a removed macro": ("#define KVSIFT_LIMIT 8u", ""),
    "another type behind a typedef": ("typedef int32_t kvsift_status", "typedef int64_t kvsift_status"),
    "a field at the end of a plain struct": ("begin, end;", "begin, end, more;"),
    "a field in the middle": ("uint32_t mode;", "uint32_t mode; uint32_t between;"),
    "swapped fields": ("uint32_t mode; float share;", "float share; uint32_t mode;"),
    "a renamed field": ("uint32_t mode;", "uint32_t kind;"),
    "a field's type": ("float share;", "uint32_t share;"),
    "a removed field": ("float share;", ""),
    "growth of a struct that another holds": ("float share;", "float share; float rest;"),
    "another alignment": ("uint32_t last;", "uint32_t last; _Alignas(16) uint32_t later;"),
    "a removed struct": ("typedef struct kvsift_plain { uint32_t begin, end; } kvsift_plain;", ""),
}


class Edits(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.header = Path(self.folder.name) / "sample.h"
        self.header.write_text(SAMPLE)
        self.assertEqual(self.abi("extract").returncode, 0)

    def abi(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        script = Path(__file__).with_name("abi.py")
        arguments = [command, str(self.header.with_suffix(".json")), "sample.h", "-I", self.folder.name, *options]
        return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)

    def edit(self, old: str, new: str) -> subprocess.CompletedProcess[str]:
        self.assertIn(old, SAMPLE)
        self.header.write_text(SAMPLE.replace(old, new, 1))
        return self.abi("check")

    def test_compatible(self) -> None:
        for name, (old, new) in COMPATIBLE.items():
            with self.subTest(name):
                done = self.edit(old, new)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_an_addition_is_not_current(self) -> None:
        self.assertEqual(self.abi("check", "--current").returncode, 0)
        self.assertEqual(self.edit("uint32_t last;", "uint32_t last; uint32_t later;").returncode, 0)
        done = self.abi("check", "--current")
        self.assertEqual(done.returncode, 1)
        self.assertIn("generate.sh", done.stdout)

    def test_incompatible(self) -> None:
        for name, (old, new) in INCOMPATIBLE.items():
            with self.subTest(name):
                done = self.edit(old, new)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("incompatible: ", done.stdout)

    def test_a_header_that_does_not_compile_is_no_pass(self) -> None:
        self.assertNotIn(self.edit("enum {", "enum").returncode, (0, 77))


if __name__ == "__main__":
    if shutil.which("clang") is None:
        print("skipped: clang is not installed")
        sys.exit(77)
    unittest.main()
