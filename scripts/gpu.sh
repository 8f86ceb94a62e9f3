#!/usr/bin/env bash
# Measure on a GPU what configs/README.md marks "not yet measured", in at most 9 minutes, most important part first.
#
# bash scripts/gpu.sh OUT [--archive PATH] [--wheels DIR] [--peer FILE] [--note TEXT] [--seeds N] [--seconds N]
#                         [--parts "NAME ..."] [--tiny]
#
# OUT             new or empty directory for a JSON file of each part, and log.txt
# --archive PATH  CIFAR-10: cifar-10-python.tar.gz, or a directory that holds it
# --wheels DIR    wheels of packages that this machine lacks
# --peer FILE     airbench94_muon.py of https://github.com/KellerJordan/cifar10-airbench, to compare airbench.yaml with
# --note TEXT     description of the data in the tables, such as "CIFAR-10, JPEG copy"
# --seeds N       seeds of each airbench recipe, 10 by default
# --seconds N     time limit of the whole script, 530 by default
# --parts LIST    parts to measure, by default "tests airbench resnet operations steps airbench_sgd airbench_compiled"
# --tiny          a trial of all parts on any machine, in under two minutes, with random images
#
# Every part runs in its own process and is stopped at its deadline; later parts get the time that earlier ones did not
# use. Results are written after each measurement, so that they remain if this script is stopped. Then, on any machine:
#
# python scripts/gpu_table.py OUT
set -uo pipefail

# part:seconds; the sum is 490, which leaves 40 to prepare. Compiling the published script takes minutes
budgets="tests:25 airbench:160 resnet:190 operations:35 steps:35 airbench_sgd:25 airbench_compiled:20"

fail() {
  echo "error: $1" >&2
  exit 2
}

out=${1:-}
case $out in "" | -*) fail "Expected a directory for the results: bash scripts/gpu.sh OUT" ;; esac
shift
archive='' wheels='' peer='' seconds=530 tiny='' options=() parts=''
while [ $# -gt 0 ]; do
  case $1 in
    --archive | --wheels | --peer | --note | --seeds | --seconds | --parts)
      [ $# -ge 2 ] || fail "Expected a value after $1."
      case $1 in
        --archive) archive=$2 ;;
        --wheels) wheels=$2 ;;
        --peer) peer=$2 ;;
        --seconds) seconds=$2 ;;
        --parts) parts=$2 ;;
        *) options+=("$1" "$2") ;;
      esac
      shift 2
      ;;
    --tiny)
      tiny=--tiny
      options+=(--tiny --seeds 1)
      shift
      ;;
    *) fail "Expected --archive, --wheels, --peer, --note, --seeds, --seconds, --parts or --tiny, but got $1." ;;
  esac
done
case $seconds in '' | *[!0-9]*) fail "Expected --seconds as a whole number, but got $seconds." ;; esac
for name in $parts; do [[ " $budgets" == *" $name:"* ]] || fail "Expected --parts of $(sed "s|:[0-9]*||g" <<<"$budgets"), but got $name."; done
[ -z "$archive" ] || [ -e "$archive" ] || fail "Expected CIFAR-10 at --archive, but $archive does not exist."
[ -n "$archive" ] || [ -n "$tiny" ] || fail "Expected --archive PATH (CIFAR-10's archive) or --tiny."
[ -z "$peer" ] || [ -f "$peer" ] || fail "Expected airbench94_muon.py at --peer, but $peer does not exist."
[ -z "$wheels" ] || compgen -G "$wheels/*.whl" >/dev/null || fail "Expected wheels at --wheels, but $wheels has none."
[ -n "$tiny" ] || nvidia-smi >/dev/null 2>&1 || fail "Expected a CUDA GPU, but nvidia-smi finds none. Try --tiny."
mkdir -p "$out" 2>/dev/null || fail "Expected a directory for the results, but $out cannot be created."
[ -z "$(ls -A "$out")" ] || fail "Expected an empty directory for the results, but $out holds $(ls -A "$out" | head -1)."

begin=$SECONDS
out=$(cd "$out" && pwd)
archive=${archive:+$(realpath "$archive")} peer=${peer:+$(realpath "$peer")} wheels=${wheels:+$(realpath "$wheels")}
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH=$work/site:$PWD PYTHONUNBUFFERED=1
if [ -n "$wheels" ]; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" "$wheels"/*.whl || exit 2
fi
lacking=$("$python" - <<'EOF'
from importlib.util import find_spec
from pathlib import Path
import re
import tomllib

names = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
needed = [re.split(r"[^\w-]", line)[0] for line in project["dependencies"]] + ["pytest", "docstring_parser", "typeshed_client"]
print(*(name for name in needed if find_spec(names.get(name, name)) is None))
EOF
) || exit 2
[ -z "$lacking" ] || fail "Expected all dependencies, but this machine lacks $lacking. Give their wheels as --wheels DIR."

part() {  # name, deadline in seconds since the start
  local left=$(($2 - (SECONDS - begin)))
  [ "$left" -gt 0 ] || left=1
  timeout -k 5 "$left" "$python" scripts/gpu_parts.py "$1" --work "$work" --output "$out/$1.json" \
    ${archive:+--archive "$archive"} ${peer:+--peer "$peer"} "${options[@]}" >>"$out/log.txt" 2>&1 &
  wait $!
}

echo "preparing the data"
part prepare "$seconds" || {
  grep '^error: ' "$out/log.txt" >&2 || tail -5 "$out/log.txt" >&2
  exit 2
}
deadline=$((seconds - 490))
[ "$deadline" -gt 0 ] || deadline=0
for budget in $budgets; do
  name=${budget%:*}
  deadline=$((deadline + ${budget#*:}))
  [ "$deadline" -lt "$seconds" ] || deadline=$seconds
  [[ -z "$parts" || " $parts " == *" $name "* ]] || continue
  started=$SECONDS
  part "$name" "$deadline"
  case $? in
    0) state=complete ;;
    124 | 137 | 143) state="stopped at its deadline" ;;
    *) state="failed: see log.txt" ;;
  esac
  echo "$name: $state, $((SECONDS - started)) s"
done
echo "results: $out"
