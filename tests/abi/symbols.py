#!/usr/bin/env python3
"""Checks what a static library takes from outside and what it shows."""

import argparse
import re
import subprocess
import sys

# What the library may take from libc, libm, libpthread and the compiler's own support library: memory and string
# functions, fmaf for machines without the instruction; files, threads and clocks for the store; dlopen for a build with CUDA.
ALLOWED = """
_GLOBAL_OFFSET_TABLE_ __popcountdi2 bcmp fmaf getenv memcmp memcpy memmove memset strcmp strlen strrchr
__errno_location clock_gettime close dlclose dlopen dlsym fallocate fallocate64 fcntl fcntl64 fdatasync flock fstat fstat64 fsync ftruncate
ftruncate64 getpid mmap mmap64 munmap nanosleep open open64 preadv preadv64 pwritev pwritev64 syscall
pthread_attr_destroy pthread_attr_init pthread_attr_setstack pthread_cond_broadcast pthread_cond_destroy
pthread_cond_init pthread_cond_signal pthread_cond_timedwait pthread_cond_wait pthread_condattr_destroy
pthread_condattr_init pthread_condattr_setclock pthread_create pthread_join pthread_mutex_destroy pthread_mutex_init
pthread_mutex_lock pthread_mutex_unlock pthread_sigmask sigdelset sigfillset
""".split()

ROW = re.compile(r"^\s*\d+: \S+\s+\d+ (?P<type>\S+)\s+(?P<bind>\S+)\s+(?P<seen>\S+)\s+(?:\[.*\]\s+)?(?P<section>\S+) (?P<name>\S+)")


def read_symbols(archive: str) -> list[dict[str, str]]:
    """Symbols of all members."""
    text = subprocess.run(["readelf", "--symbols", "--wide", archive], capture_output=True, text=True, check=True).stdout
    return [m.groupdict() for m in map(ROW.match, text.splitlines()) if m]


def find_faults(symbols: list[dict[str, str]]) -> list[str]:
    """One line for each symbol that should not be there."""
    shared = [s for s in symbols if s["bind"] in ("GLOBAL", "WEAK", "UNIQUE") and s["type"] != "FILE"]
    defined = {s["name"] for s in shared if s["section"] != "UND"}
    faults = []
    for s in shared:
        name = s["name"]
        if s["section"] == "UND":
            if name not in defined and name not in ALLOWED:
                faults.append(f"takes {name} from outside")
        elif not name.startswith("kvsift_"):
            faults.append(f"shows {name}, which is not the ABI's")
        elif s["seen"] != "DEFAULT":
            faults.append(f"hides {name}: a shared library made from the archive would not have it")
    return sorted(set(faults))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", help="the static library")
    archive = parser.parse_args().archive
    symbols = read_symbols(archive)
    if not any(s["name"].startswith("kvsift_") for s in symbols):
        print(f"{archive}: no kvsift_ symbol found: not the library, or not readable")
        return 1
    faults = find_faults(symbols)
    for fault in faults:
        print(f"{archive}: {fault}")
    if not faults:
        print(f"{archive}: {len(symbols)} symbols, nothing foreign")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
