#!/usr/bin/env bash
# Pack the files that a GPU machine without a network needs to run scripts/gpu.sh, and print the command to run there.
#
# bash scripts/gpu_pack.sh DIR --data PATH [--peer FILE] [--note TEXT] [--packages "NAME ..."] [--limit MIB]
#
# DIR              new or empty directory for the pack; git must ignore it if it is in the checkout
# --data PATH      CIFAR-10's archive, or a directory with a Python script that writes it to the directory it is given
# --peer FILE      airbench94_muon.py of https://github.com/KellerJordan/cifar10-airbench
# --note TEXT      description of the data in the tables
# --packages LIST  packages that the machine lacks, by default filelock, jsonargparse with its dependencies, and
#                  lightning; their versions are those of requirements.lock
# --python X.Y     Python of the machine, 3.12 by default
# --limit MIB      maximum size of pack and checkout, 64 by default
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}

dir=${1:-}
case $dir in "" | -*) fail "Expected a directory for the pack: bash scripts/gpu_pack.sh DIR --data PATH" ;; esac
shift
data='' peer='' note='' limit=64 python_version=3.12
packages="filelock jsonargparse typeshed-client docstring-parser lightning pytorch-lightning lightning-utilities"
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || fail "Expected a value after $1."
  case $1 in
    --data) data=$2 ;;
    --peer) peer=$2 ;;
    --note) note=$2 ;;
    --packages) packages=$2 ;;
    --python) python_version=$2 ;;
    --limit) limit=$2 ;;
    *) fail "Expected --data, --peer, --note, --packages, --python or --limit, but got $1." ;;
  esac
  shift 2
done
[ -e "${data:-/nonexistent}" ] || fail "Expected CIFAR-10 at --data, but ${data:-nothing} does not exist."
[ -z "$peer" ] || [ -f "$peer" ] || fail "Expected airbench94_muon.py at --peer, but $peer does not exist."
[ ! -e "$dir" ] || [ -z "$(ls -A "$dir")" ] || fail "Expected a new directory for the pack, but $dir is not empty."

root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$dir/wheels"
cp -rL "$data" "$dir/data"
chmod -R u+w "$dir/data"
[ -z "$peer" ] || cp "$peer" "$dir/"
required=()
for package in $packages; do
  pinned=$(grep -oE "^$package==[^ ]+" "$root/requirements.lock") || fail "Expected $package in requirements.lock."
  required+=("$pinned")
done
platforms=()
for glibc in 39 35 34 31 28 27 24 17; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
wheels=''
[ ${#required[@]} -eq 0 ] || wheels=" --wheels $dir/wheels"
[ -z "$wheels" ] || "${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: --dest "$dir/wheels" \
  --python-version "$python_version" --implementation cp "${platforms[@]}" --platform manylinux2014_x86_64 \
  --platform manylinux1_x86_64 --platform any "${required[@]}"

archive=$dir/data build=''
if [ -d "$dir/data" ]; then
  script=$(find "$dir/data" -maxdepth 1 -name '*.py' | head -1)
  [ -z "$script" ] || { archive=$dir/archive build="python3 $script $dir/archive && "; }
fi
checkout=$(git -C "$root" ls-files -z --cached --others --exclude-standard | (cd "$root" && du -c --files0-from=- 2>/dev/null) | tail -1)
mebibytes=$(((${checkout%%[!0-9]*} + $(du -s "$dir" | cut -f1)) / 1024 + 1))
[ "$mebibytes" -le "$limit" ] || fail "Expected at most $limit MiB of pack and checkout, but got $mebibytes MiB."
git -C "$root" check-ignore -q "$dir" 2>/dev/null || echo "note: git does not ignore $dir. Add it to .git/info/exclude"
echo "$mebibytes MiB of $limit with the checkout. Copy $dir to the machine, and run in the checkout:"
echo "${build}bash scripts/gpu.sh \$OUT --archive $archive$wheels${peer:+ --peer $dir/$(basename "$peer")}${note:+ --note '$note'}"
