#!/usr/bin/env bash
# tools/announce.sh ENGINE VENV: what `make demo` is about to do, and how long that takes.
set -euo pipefail
engine=$1 venv=$2
cd "${0%/*}/.."

if [[ ! -e $venv/.engine-$engine ]]; then
  packages=$(cat requirements/{build,run,"engine-$engine"}.txt | grep -c ==)
  if [[ $engine = cpu ]]; then
    size='2.5 GB, of which 0.6 are downloaded the first time' took='4 minutes on two cores once pip has the packages'
  else
    size='several GB to download the first time' took='a quarter of an hour'
  fi
  echo "make demo: installs $packages packages into $venv ($size) and compiles routestats, at once;"
  echo "then runs the built-in model over 664 prompts, verifies the trace and writes a report."
  echo "About $took. Logs: build/log/"
else
  echo "make demo: runs the built-in model over 664 prompts, verifies the trace and writes a report."
  echo "About a minute and a half on two cores."
fi
