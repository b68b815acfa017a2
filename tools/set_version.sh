#!/usr/bin/env bash
# Set the version that a tag vX.Y.Z names; CHANGELOG.md must have a section of that version.
set -euo pipefail
cd "$(dirname "$0")/.."
tag=${1:?usage: tools/set_version.sh vX.Y.Z}
version=${tag#v}
[[ "$tag" == v* ]] || { echo "$tag: a release tag begins with v, as in v0.1.0" >&2; exit 1; }
grep -qF "## [$version]" CHANGELOG.md \
  || { echo "CHANGELOG.md has no section '## [$version]'; rename 'Unreleased' first" >&2; exit 1; }
sed -i.bak -E "s/^__version__ = .*/__version__ = \"$version\"/" leukokit/__init__.py
rm leukokit/__init__.py.bak
python -c "
from pathlib import Path
assert '__version__ = \"$version\"\n' in Path('leukokit/__init__.py').read_text(), 'leukokit/__init__.py holds no __version__'
"
