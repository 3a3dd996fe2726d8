#!/bin/sh
# The release number, read from the public header so that it stands in one place.
header="$(dirname "$0")/../include/kvsift/kvsift.h"
sed -n 's/^#define KVSIFT_VERSION_\(MAJOR\|MINOR\|PATCH\) \([0-9]*\)$/\2/p' "$header" | paste -sd.
