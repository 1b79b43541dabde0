#!/usr/bin/env bash
# tools/check-machine.sh PYTHON ENGINE: whether `make` will get through on this machine. ENGINE is `cpu`,
# `cuda` or `none` (routestats alone). One line on stderr for each thing that is missing, with what to
# do; then it fails.
set -uo pipefail
python=$1 engine=$2
missing=0

need() {
  echo "routestats: $1" >&2
  missing=1
}

# How this system's packages are installed: PACKAGES of Debian, then of Fedora.
packages() {
  if command -v apt-get >/dev/null; then
    echo "apt-get install $1"
  elif command -v dnf >/dev/null; then
    echo "dnf install $2"
  else
    echo "install $1 (Debian's name)"
  fi
}

newer() {  # a Python that does, of those on the PATH
  for name in python3.13 python3.12 python3.11; do
    if "$name" -c '' 2>/dev/null; then
      echo "make PYTHON=$name"
      return
    fi
  done
  echo "install Python 3.13, then make PYTHON=python3.13"
}

if ! command -v "$python" >/dev/null; then
  need "no $python is found; $(packages 'python3 python3-venv python3-dev' python3-devel)"
elif ! version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1); then
  need "$python does not run: ${version##*$'\n'}"
elif [[ ! $version =~ ^3\.[0-9]+$ ]] || ((${version#3.} < 11)); then
  need "$python is Python $version, and 3.11 to 3.13 is needed: $(newer)"
elif [[ $engine != none ]] && ((${version#3.} > 13)); then
  need "$python is Python $version, for which the engine's packages are not pinned: $(newer)"
else
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    need "Python's venv is missing: $(packages "python$version-venv" python3-pip)"
  fi
  if ! "$python" -c 'import pathlib, sysconfig
(pathlib.Path(sysconfig.get_path("include")) / "Python.h").read_bytes()' 2>/dev/null; then
    need "Python.h is missing: $(packages "python$version-dev" python3-devel)"
  fi
fi

compiler=${CXX:-}
if [[ -z $compiler ]]; then
  for name in c++ g++ clang++; do  # as CMake looks for it
    if command -v "$name" >/dev/null; then compiler=$name && break; fi
  done
fi
if [[ -z $compiler ]]; then
  need "no C++ compiler is found: $(packages g++ gcc-c++)"
else
  scratch=$(mktemp -d)
  cat >"$scratch/try.cpp" <<'END'
#include <algorithm>
#include <bit>
#include <barrier>
#include <concepts>
#include <span>
template <std::integral T> int ones(std::span<const T> all) {
  return std::ranges::count_if(all, [](T each) { return std::popcount(each) == 1; });
}
int main() {
  const unsigned all[]{1, 2, 3};
  std::barrier(1).arrive_and_wait();
  return ones<unsigned>(all) - 2;
}
END
  # CXX may hold flags, too.
  if ! $compiler -std=c++20 -pthread "$scratch/try.cpp" -o "$scratch/try" >"$scratch/said" 2>&1; then
    said=$($compiler --version 2>&1)
    need "$compiler (${said%%$'\n'*}) does not build C++20: install g++ 12 or newer, or name one: make CXX=g++-12"
  fi
  rm -rf "$scratch"
fi

disk=2
case $engine in
  cpu)
    disk=5
    if [[ $(uname -s) != Linux ]]; then
      need "vLLM's CPU engine has wheels for Linux only; here 'make quick' tests routestats without an engine, and docs/install.md says how to use it with transformers"
    elif command -v ldconfig >/dev/null && ! ldconfig -p | grep -q 'libnuma\.so\.1 '; then
      need "libnuma.so.1, which vLLM's CPU engine loads, is missing: $(packages libnuma1 numactl-libs)"
    fi
    ;;
  cuda) disk=20 ;;  # an estimate: it has been installed nowhere yet
esac
free=$(df -Pk . 2>/dev/null | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
if [[ -n $free ]] && ((free < disk)); then
  need "$PWD has $free GB free, and about $disk GB are needed: make room, or clone elsewhere"
fi
exit "$missing"
