#!/usr/bin/env bash
# Prints the engine for this machine, `cuda` or `cpu`, as requirements/engine-*.txt name them. Where a
# GPU cannot be used, one line on stderr says what was found, what is needed and what is used instead.
set -uo pipefail

# What engine-cuda.txt installs: torch's wheels are for CUDA 13, whose first driver is 580. They hold
# kernels for 7.5 and newer, but bfloat16, which the built-in model runs in, begins with 8.0.
driver_needed=580
capability_needed=8.0

cpu() {
  echo "routestats: $1; the CPU engine is used instead (make ENGINE=cuda takes the other)" >&2
  echo cpu
  exit 0
}

if [[ -n ${CUDA_VISIBLE_DEVICES+set} && ! $CUDA_VISIBLE_DEVICES =~ ^[[:alnum:]] ]]; then
  cpu "CUDA_VISIBLE_DEVICES='$CUDA_VISIBLE_DEVICES' hides every GPU"
fi
command -v nvidia-smi >/dev/null || { echo cpu; exit 0; }  # nothing to say: no NVIDIA GPU

ask() {  # fields of each visible card, one card a line
  timeout 30 nvidia-smi ${CUDA_VISIBLE_DEVICES:+-i "$CUDA_VISIBLE_DEVICES"} \
    "--query-gpu=$1" --format=csv,noheader 2>&1
}

if ! cards=$(ask driver_version,compute_cap,name); then
  # Drivers before 510 do not know the capability.
  cards=$(ask driver_version) || cpu "nvidia-smi finds no GPU that can be used: ${cards%%$'\n'*}"
fi
[[ -n $cards ]] || cpu "nvidia-smi lists no GPU"

driver=${cards%%[,$'\n']*}
if [[ ! $driver =~ ^[0-9]+(\.[0-9]+)*$ ]]; then
  cpu "nvidia-smi gives no version of the driver: ${cards%%$'\n'*}"
fi
if ((${driver%%.*} < driver_needed)); then
  cpu "the NVIDIA driver is $driver, and $driver_needed or newer is needed"
fi

usable=() old=()
while IFS=, read -r _ capability name; do
  capability=${capability// /} name="${name# } ($capability)"
  if [[ $capability =~ ^[0-9]+\.[0-9]+$ ]] && ((${capability/./} >= ${capability_needed/./})); then
    usable+=("$name")
  else
    old+=("$name")
  fi
done <<<"$cards"

listed() { printf '%s' "$1"; (($# < 2)) || printf '; %s' "${@:2}"; }
if ((${#usable[@]} == 0)); then
  cpu "the GPU is a $(listed "${old[@]}"), and compute capability $capability_needed or newer is needed"
fi
if ((${#old[@]} > 0)); then
  echo "routestats: $(listed "${old[@]}") cannot be used, as compute capability $capability_needed or" \
    "newer is needed; let CUDA_VISIBLE_DEVICES name $(listed "${usable[@]}")" >&2
fi
echo cuda
