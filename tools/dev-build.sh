#!/usr/bin/env bash
# Builds routestats._core in build/dev and places it in python/routestats/, so that
# PYTHONPATH=python runs the working tree. PYTHON names the interpreter (default: .venv's).
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
cmake -S . -B build/dev -DCMAKE_BUILD_TYPE=Release -DROUTESTATS_WERROR=ON \
  -DPython_EXECUTABLE="$(realpath -s "$python")" \
  -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >/dev/null
cmake --build build/dev --parallel "${JOBS:-2}" --target _core
rm -f python/routestats/_core*.so  # one of another Python version would linger
cp build/dev/_core*.so python/routestats/
