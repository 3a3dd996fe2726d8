#!/usr/bin/env python3
"""The README's C example compiles as shown, links with cc alone and runs."""
import os
import re
import subprocess
import sys
import tempfile


def main(root: str, archive: str) -> int:
    with open(os.path.join(root, "README.md"), encoding="utf-8") as file:
        shown = re.search(r"```c\n(.*?)```", file.read(), re.S)
    if shown is None:
        print("README.md shows no C example")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        source, program = os.path.join(folder, "example.c"), os.path.join(folder, "example")
        with open(source, "w", encoding="utf-8") as file:
            file.write(shown.group(1))
        flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I" + os.path.join(root, "include")]
        subprocess.run(["cc", *flags, source, archive, "-lm", "-lpthread", "-o", program], check=True)
        printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    # The query looks for token 1000: some list must read its page.
    if not re.search(r"reads.* 992-1007|reads.* (99\d|9[0-8]\d)-1\d\d\d", printed):
        print("the example does not read the page it looks for:\n" + printed)
        return 1
    with open(os.path.join(root, "examples", "minimal.c"), encoding="utf-8") as file:
        if file.read().strip() != shown.group(1).strip():
            print("README.md and examples/minimal.c differ")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
