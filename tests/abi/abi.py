#!/usr/bin/env python3
"""Compares the public headers with a stored description of the ABI.

extract writes the description; check fails on an incompatible difference. Appending fields to a struct that begins with
struct_size is compatible, and so are new functions, enumerators, types and macros. Nothing else is.
Needs clang (for its syntax tree) and a C compiler whose programs run here (for sizes and offsets).
"""
from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

Abi = dict[str, dict[str, Any]]


def run(command: list[str], text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def syntax_tree(clang: str, flags: list[str], source: str) -> list[dict[str, Any]]:
    """Top-level declarations of a source."""
    tree = run([clang, "-x", "c", "-std=c11", "-fsyntax-only", "-Xclang", "-ast-dump=json", *flags, "-"], source)
    return json.loads(tree)["inner"]


def ours(name: str) -> bool:
    return name.startswith("kvsift_") or name.startswith("KVSIFT_")


def type_of(node: dict[str, Any]) -> str:
    return node["type"]["qualType"]


def functions(tree: list[dict[str, Any]]) -> dict[str, str]:
    found = {}
    for node in tree:
        if node["kind"] == "FunctionDecl" and ours(node["name"]):
            found[node["name"]] = type_of(node)
    return found


def records(tree: list[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """Complete structs: name, and type and name of each field."""
    found = {}
    for node in tree:
        if node["kind"] == "RecordDecl" and node.get("completeDefinition") and ours(node.get("name", "")):
            fields = [n for n in node.get("inner", []) if n["kind"] == "FieldDecl"]
            found[node["name"]] = [(f["name"], type_of(f)) for f in fields]
    return found


def typedefs(tree: list[dict[str, Any]]) -> dict[str, str]:
    return {n["name"]: type_of(n) for n in tree if n["kind"] == "TypedefDecl" and ours(n["name"])}


def enumerators(tree: list[dict[str, Any]]) -> list[str]:
    found = []
    for node in tree:
        if node["kind"] == "EnumDecl":
            found += [n["name"] for n in node["inner"] if n["kind"] == "EnumConstantDecl" and ours(n["name"])]
    return found


def macros(clang: str, flags: list[str], source: str) -> list[str]:
    """Macros with a value; not the include guards, nor the version, which changes with each release."""
    text = run([clang, "-x", "c", "-E", "-dM", *flags, "-"], source)
    names = re.findall(r"^#define (KVSIFT_\w+) \S", text, re.MULTILINE)
    return sorted(n for n in names if not n.startswith("KVSIFT_VERSION_"))


def measure(compiler: str, flags: list[str], source: str, expressions: list[str]) -> list[int]:
    """The values of integer expressions, from a program."""
    lines = "".join(f'  printf("%lld\\n", (long long)({e}));\n' for e in expressions)
    program = f"{source}\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{\n{lines}  return 0;\n}}\n"
    with tempfile.TemporaryDirectory() as folder:
        binary = str(Path(folder) / "probe")
        run([compiler, "-x", "c", "-std=c11", *flags, "-o", binary, "-"], program)
        return [int(line) for line in run([binary]).split()]


def extract(headers: list[str], flags: list[str], clang: str, compiler: str) -> Abi:
    source = "".join(f"#include <{h}>\n" for h in headers)
    tree = syntax_tree(clang, flags, source)
    structs = records(tree)
    constants = enumerators(tree) + macros(clang, flags, source)
    expressions = list(constants)
    for name, fields in structs.items():
        expressions += [f"sizeof({name})", f"_Alignof({name})"]
        for field, _ in fields:
            expressions += [f"offsetof({name}, {field})", f"sizeof((({name} *)0)->{field})"]
    values = iter(measure(compiler, flags, source, expressions))
    abi: Abi = {"functions": functions(tree), "types": typedefs(tree), "constants": {}, "structs": {}}
    for name in constants:
        abi["constants"][name] = next(values)
    for name, fields in structs.items():
        layout: dict[str, Any] = {"size": next(values), "alignment": next(values), "fields": []}
        for field, kind in fields:
            layout["fields"].append({"name": field, "type": kind, "offset": next(values), "size": next(values)})
        abi["structs"][name] = layout
    return abi


def describe(field: dict[str, Any]) -> str:
    return f"{field['type']} {field['name']} at {field['offset']}, {field['size']} bytes"


def compare_struct(name: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    broken = []
    for i, field in enumerate(old["fields"]):
        if i >= len(new["fields"]):
            broken.append(f"struct {name}: field {field['name']} is gone")
        elif new["fields"][i] != field:
            broken.append(f"struct {name}: {describe(field)} became {describe(new['fields'][i])}")
    if old["alignment"] != new["alignment"]:
        broken.append(f"struct {name}: alignment {old['alignment']} became {new['alignment']}")
    grown = len(new["fields"]) > len(old["fields"])
    sized = bool(old["fields"]) and old["fields"][0]["name"] == "struct_size"
    if grown and not sized:
        broken.append(f"struct {name}: a field was added, but it does not begin with struct_size")
    if grown and sized and new["size"] == old["size"]:
        broken.append(f"struct {name}: a field was added in padding, so its size does not tell")
    if not grown and new["size"] != old["size"]:
        broken.append(f"struct {name}: size {old['size']} became {new['size']}")
    return broken


def compare(old: Abi, new: Abi) -> list[str]:
    """What would break a program that was built with the old headers."""
    broken = []
    for section in ("functions", "types", "constants"):
        for name, value in old[section].items():
            if name not in new[section]:
                broken.append(f"{name} is gone")
            elif new[section][name] != value and name != "KVSIFT_METHOD_COUNT":
                broken.append(f"{name}: {value} became {new[section][name]}")
    for name, layout in old["structs"].items():
        if name not in new["structs"]:
            broken.append(f"struct {name} is gone")
        else:
            broken += compare_struct(name, layout, new["structs"][name])
    return broken


def additions(old: Abi, new: Abi) -> list[str]:
    added = [name for section in new for name in new[section] if name not in old[section]]
    for name, layout in old["structs"].items():
        fields = new["structs"].get(name, layout)["fields"][len(layout["fields"]):]
        added += [f"{name}.{f['name']}" for f in fields]
    return added


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["extract", "check"])
    parser.add_argument("baseline", type=Path, help="the stored description")
    parser.add_argument("headers", nargs="+", help="as in #include <...>")
    parser.add_argument("-I", dest="include", action="append", default=[], help="where headers are")
    parser.add_argument("--clang", default="clang")
    parser.add_argument("--compiler", default="cc")
    parser.add_argument("--current", action="store_true", help="fail too where the baseline lacks what is new")
    options = parser.parse_args()
    if shutil.which(options.clang) is None:
        print(f"skipped: {options.clang} is not installed")
        return 77
    flags = [f"-I{folder}" for folder in options.include]
    abi = extract(options.headers, flags, options.clang, options.compiler)
    if options.command == "extract":
        options.baseline.write_text(json.dumps(abi, indent=1, sort_keys=True) + "\n")
        return 0
    old = json.loads(options.baseline.read_text())
    broken = compare(old, abi)
    for line in broken:
        print(f"incompatible: {line}")
    added = additions(old, abi)
    if added:
        print(f"added since the baseline: {', '.join(added)}")
    if broken or (added and options.current):
        print("a change that is meant goes into the baseline by bindings/generate.sh (--break where it is incompatible)")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
