# The C++ extension, built in place for work in this checkout.

PYTHON ?= python3
EXT_BUILD := build/dev

.PHONY: ext
ext: ## build the C++ extension in place
	@command -v cmake >/dev/null || { echo "make ext: cmake is missing; install it (pip install cmake)" >&2; exit 1; }
	@mkdir -p $(EXT_BUILD)
	@cmake -S . -B $(EXT_BUILD) $(if $(shell command -v ninja),-G Ninja) -DCMAKE_BUILD_TYPE=Release \
	  -DPython_EXECUTABLE="$$($(PYTHON) -c 'import sys; print(sys.executable)')" >$(EXT_BUILD)/configure.log 2>&1 \
	  || { cat $(EXT_BUILD)/configure.log >&2; exit 1; }
	@cmake --build $(EXT_BUILD)
	@# Written aside and renamed: a process that has the old one mapped keeps it.
	@for built in $(EXT_BUILD)/_csrc*.so; do \
	  cp "$$built" src/layercast/kernels/cpu/.new && mv src/layercast/kernels/cpu/.new src/layercast/kernels/cpu/$$(basename "$$built"); done
