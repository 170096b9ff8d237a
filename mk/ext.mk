# The C++ extension, built in place for work in this checkout: `make ext`.

PYTHON ?= /usr/bin/env python3
EXT_BUILD := build/dev

.PHONY: ext
ext:
	@command -v cmake >/dev/null || { echo "make ext: cmake is missing; install it (pip install cmake)" >&2; exit 1; }
	@mkdir -p $(EXT_BUILD)
	@cmake -S . -B $(EXT_BUILD) $(if $(shell command -v ninja),-G Ninja) -DCMAKE_BUILD_TYPE=Release \
	  -DPython_EXECUTABLE="$$($(PYTHON) -c 'import sys; print(sys.executable)')" >$(EXT_BUILD)/configure.log 2>&1 \
	  || { cat $(EXT_BUILD)/configure.log >&2; exit 1; }
	@cmake --build $(EXT_BUILD)
	@cp $(EXT_BUILD)/_csrc*.so src/layercast/kernels/cpu/
