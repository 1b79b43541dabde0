# Thin: every target makes .venv first, with everything pinned in requirements/.
#
#   make demo [GSM8K=gsm8k_test.jsonl]   profile the built-in model, verify, report
#   make test                            C++ and Python tests
#   make notebook [GSM8K=gsm8k_test.jsonl]   run the notebook, and keep its outputs in it
#   make lint | wheel | bench | clean
#   make cuda                            compile the CUDA kernels and report what they take (nvcc)
#   make test-gpu | sanitize-gpu | bench-gpu   on a machine with a GPU, with its own python3
#   make tiny GSM8K_TRAIN=gsm8k_train.jsonl GSM8K=gsm8k_test.jsonl   train the built-in model anew

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ENGINE := $(if $(shell nvidia-smi -L 2>/dev/null),cuda,cpu)
SOURCES := $(shell find csrc python -name '*.[ch]pp' -o -name '*.cu*' -o -name '*.py' -o -name '*.pyi') \
           CMakeLists.txt pyproject.toml
RUN ?= runs/demo

.PHONY: demo test test-cpp test-emulated test-python lint wheel tiny bench study picture notebook clean
.PHONY: cuda install-gpu test-gpu sanitize-gpu bench-gpu

demo: $(VENV)/.installed
	rm -rf $(RUN)
	$(BIN)/routestats profile tiny --data humaneval --data gsm8k --limit gsm8k=500 \
	  $(if $(GSM8K),--gsm8k-file '$(GSM8K)',--or-mathwords) --max-tokens 64 -o $(RUN)
	$(BIN)/routestats verify $(RUN)
	$(BIN)/routestats report $(RUN)

test: test-cpp test-emulated test-python

test-cpp: $(VENV)/.tools
	$(BIN)/cmake -S . -B build/test -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DCMAKE_BUILD_TYPE=Release -DROUTESTATS_PYTHON=OFF -DROUTESTATS_TESTS=ON \
	  -DROUTESTATS_WERROR=ON -DROUTESTATS_EMULATED_MODULE=ON \
	  -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build build/test --parallel 2
	$(BIN)/ctest --test-dir build/test --output-on-failure

# The tests of counting on a GPU, on an emulated one: the CUDA sources, compiled for the host.
test-emulated: test-cpp $(VENV)/.installed
	ROUTESTATS_EMULATED_CUDA=$(abspath build/test/csrc/tests) \
	  $(BIN)/python -m pytest tests/gpu/test_gpu_counts.py

test-python: test-cpp $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.hpp' 'csrc/*.cu' 'csrc/*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror

# Needs nvcc and no GPU: everything is compiled with warnings as errors, imported, and no kernel may
# spill registers.
cuda: $(VENV)/.tools
	$(BIN)/cmake -S . -B build/cuda -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DCMAKE_BUILD_TYPE=Release -DROUTESTATS_CUDA=ON -DROUTESTATS_WERROR=ON \
	  -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build build/cuda --parallel 2
	$(BIN)/python bench/cuda_resources.py --output build/cuda/resources.json

# The machine's own packages and no network: torch, NumPy, pyarrow, SciPy, hypothesis, pytest, CMake,
# ninja, pybind11, scikit-build-core.
GPU_PYTHON ?= python3

install-gpu:
	$(GPU_PYTHON) -m pip install --quiet --no-build-isolation --no-deps \
	  --config-settings=cmake.define.ROUTESTATS_CUDA=ON .

test-gpu: install-gpu
	$(GPU_PYTHON) -m routestats.cli info
	$(GPU_PYTHON) -m pytest -W default tests/gpu

# Slow, so on a few tests; hypothesis would take hours.
SANITIZED := strided or holds or blocks or thousand or overrun or counts_on_the_device or live_counts or abandoned or grows or sizes
sanitize-gpu: install-gpu
	for tool in memcheck racecheck; do \
	  ROUTESTATS_SANITIZE=1 compute-sanitizer --tool $$tool --error-exitcode 1 \
	    --target-processes all $(GPU_PYTHON) -m pytest -W default -x tests/gpu \
	    -k "$(SANITIZED)" || exit 1; \
	done

# bench/gpu_vllm.py needs vLLM beside it, and says so where it is not.
GPU_RESULTS ?= bench/results
bench-gpu: install-gpu
	$(GPU_PYTHON) bench/gpu_counts.py --output '$(GPU_RESULTS)'
	$(GPU_PYTHON) bench/gpu_capture.py --output '$(GPU_RESULTS)'
	$(GPU_PYTHON) bench/gpu_vllm.py --output '$(GPU_RESULTS)'

# The built-in model is most of it; the index takes no file of any size.
wheel: $(VENV)/.tools
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .
	ls -l dist/*.whl
	find dist -name '*.whl' -size -32M | grep -q . || { echo 'the wheel is over 32 MB'; exit 1; }

# An hour on two cores. Goes on from runs/tiny when interrupted.
tiny: $(VENV)/.installed
	$(BIN)/python tools/train_tiny_mixtral.py train --text gsm8k=$(GSM8K_TRAIN) \
	  --held-out $(GSM8K) --share python=0.5 --share prose=0.1 --share gsm8k=0.4 \
	  --work runs/tiny --out python/routestats/models/tiny

bench: $(VENV)/.installed
	$(BIN)/python bench/all.py
	$(BIN)/python bench/capture_fidelity.py
	$(BIN)/python bench/capture_overhead.py tiny
	$(BIN)/python bench/capture_overhead.py hidden-1024
	$(BIN)/python bench/timing.py
	$(BIN)/python bench/lookahead_fidelity.py --prompts 4 --max-tokens 8
	$(BIN)/python bench/live_overhead.py hidden-1024 \
	  --json bench/results/live_overhead_hidden_1024.json

# The published trace anew, and the pictures of README.
study: $(VENV)/.installed
	rm -rf study/tiny-humaneval-gsm8k
	$(BIN)/routestats profile tiny --data humaneval --data gsm8k --limit gsm8k=500 \
	  --gsm8k-file '$(GSM8K)' --max-tokens 64 --no-weights -o study/tiny-humaneval-gsm8k

picture: $(VENV)/.installed
	$(BIN)/routestats report study/tiny-humaneval-gsm8k -o runs/study
	cp runs/study/prediction.png docs/images/
	$(BIN)/python tools/live_screenshot.py $(if $(GSM8K),--gsm8k-file '$(GSM8K)')

# A new capture and timing pass of the built-in model, and every figure from it and from the published
# trace. PATH, as the kernel calls this Python by name.
notebook: $(VENV)/.installed
	rm -rf runs/notebook
	PATH='$(abspath $(BIN))':"$$PATH" \
	  $(if $(GSM8K),ROUTESTATS_TEST_DATA='$(dir $(abspath $(GSM8K)))') \
	  $(BIN)/python tools/run_notebook.py

clean:
	rm -rf build $(VENV) runs/demo

$(VENV)/.tools: requirements/dev.txt requirements/bench.txt requirements/notebook.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements/dev.txt -r requirements/bench.txt -r requirements/notebook.txt
	touch $@

# torch first: on the CPU it must not be chosen by what the engine would like.
$(VENV)/.engine: $(VENV)/.tools requirements/engine-$(ENGINE).txt
	$(PIP) --no-deps -r requirements/engine-$(ENGINE).txt
	touch $@

$(VENV)/.installed: $(VENV)/.engine $(SOURCES)
	$(PIP) --no-build-isolation --no-deps .
	touch $@
