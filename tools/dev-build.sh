#!/usr/bin/env bash
# Builds routestats._core, and _cuda where nvcc is, in build/dev and places them in
# python/routestats/, so that PYTHONPATH=python runs the working tree; and _emulated, which tests of
# capture need, in build/dev/csrc/tests. PYTHON names the interpreter (default: .venv's), CUDA is
# AUTO, ON or OFF.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
PATH=$(dirname "$(realpath -s "$python")"):$PATH  # its CMake, which may be newer
cmake -S . -B build/dev -DCMAKE_BUILD_TYPE=Release -DROUTESTATS_WERROR=ON \
  -DROUTESTATS_CUDA="${CUDA:-AUTO}" -DROUTESTATS_TESTS=ON -DROUTESTATS_EMULATED_MODULE=ON \
  -DPython_EXECUTABLE="$(realpath -s "$python")" \
  -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >/dev/null
cmake --build build/dev --parallel "${JOBS:-2}" --target modules
rm -f python/routestats/_core*.so python/routestats/_cuda*.so  # old ones would linger
find build/dev/csrc/bindings -maxdepth 1 -name '_c*.so' -exec cp {} python/routestats/ \;
