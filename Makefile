# make demo   a real search in a few minutes, from python3, a C++ compiler and what pip fetches
# make test   the test suite
#
# Both work in .venv beside this file. `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
DEMO   := runs/demo
STAMP  := $(VENV)/.installed

.PHONY: help site demo test test-all test-fast test-tensorflow gate lint format build gpu-module docs frameworks wheel fuzz faults tsan peers ulp bench bench-quick clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

demo: $(STAMP) ## a real search, its leaderboard and a report, and its best rules against tuned Adam
	rm -rf $(DEMO)
	$(BIN)/nos-search run --strategy controller --trials 100000 --seconds 150 --seed 3 --workers 2 --out $(DEMO)
	$(BIN)/nos-search show $(DEMO)
	$(BIN)/nos-search report $(DEMO)
	$(BIN)/nos-search evaluate $(DEMO) --top 3 --baseline adam --tasks charmlp --seeds 6 --train-steps 3000 --decay linear_cosine

test: $(STAMP) ## the tests, but for those that try at length what another tries in short
	$(BIN)/python -m pytest tests bench -n 2 --dist worksteal -m "not exhaustive"

test-all: $(STAMP) ## every test
	$(BIN)/python -m pytest tests bench -n 2 --dist worksteal

test-fast: $(STAMP) ## tests that take a moment each
	$(BIN)/python -m pytest tests -m "not slow and not exhaustive"

test-tensorflow: $(STAMP) ## PowerSign and AddSign beside TensorFlow's own ops (installs tensorflow-cpu, 1.5 GB, into build/tf-venv)
	test -d build/tf-venv || $(BIN)/python -m venv build/tf-venv
	build/tf-venv/bin/python -m pip --disable-pip-version-check install -q tensorflow-cpu pytest
	build/tf-venv/bin/python -m pytest -rs tests/golden/test_tensorflow_ops.py

lint: $(STAMP) ## ruff, mypy, clang-format, stub and docs freshness
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cc' '*.h' '*.cpp' '*.cu')
	$(BIN)/python -m nos_ext.docgen --check
	$(BIN)/python -m nos_search.cli.docgen --check

gate: $(STAMP) ## registers, spills, branches of the CUDA kernels (needs nvcc, no GPU)
	$(BIN)/python -m tests.backend.cuda.gate

format: $(STAMP) ## rewrites sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cc' '*.h' '*.cpp' '*.cu')

docs: $(STAMP) ## docs/reference from tables, docstrings and parsers
	$(BIN)/python -m nos_ext.docgen
	$(BIN)/python -m nos_search.cli.docgen

site: $(STAMP) ## the documentation as a site, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

build: $(STAMP) ## rebuilds the compiled module incrementally into nos_ext/
	$(BIN)/cmake --preset dev -DPython_EXECUTABLE=$(abspath $(BIN)/python) \
	    -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build --preset dev
	$(BIN)/cmake --install build/dev --prefix .

# As cibuildwheel does it, for the Python of .venv. Its tag says which Linux is new enough: that of this machine, or newer.
WHEEL_ARGS ?= -DNOS_CUDA=OFF
TORCH      ?=
wheel: $(STAMP) ## a wheel for other Linux machines, tried in new environments without a compiler, into dist/ (TORCH="2.10.0 2.15.0" tries these)
	rm -rf build/wheel
	CMAKE_ARGS="$(WHEEL_ARGS)" $(PIP) wheel -q . --no-deps -w build/wheel
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python .ci/repair_wheel.py build/wheel/*.whl build/wheel/repaired
	mkdir -p dist
	cp build/wheel/repaired/*.whl dist/
	$(BIN)/python -m tests.packaging.try_wheel build/wheel/repaired/*.whl $(if $(TORCH),--torch $(TORCH))

# For a GPU machine without a network, such as FOR=python3.12 and ARCH=90. Only the headers of that Python are used; pybind11
# and dlpack.h are those of .venv. bench/gpu/run.sh takes the module where it lies, and refuses it once csrc/ has changed.
FOR  ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.12*/bin/python3.12) python3.12)
ARCH ?= 90
gpu-module: $(STAMP) ## the module for another Python (FOR=) and one kind of GPU (ARCH=), into nos_ext/ (needs nvcc)
	$(BIN)/cmake -S . -B build/gpu-module -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DCMAKE_BUILD_TYPE=Release \
	    -DNOS_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=$(ARCH)-real -DPython_EXECUTABLE=$$($(FOR) -c "import sys; print(sys.executable)") \
	    -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir) \
	    -DNOS_DLPACK_DIR=$$($(BIN)/python -c "import pathlib, tvm_ffi; print(pathlib.Path(tvm_ffi.__file__).parent / 'include/dlpack')")
	$(BIN)/cmake --build build/gpu-module
	$(BIN)/cmake --install build/gpu-module --prefix .
	$(FOR) cmake/sources.py --check

fuzz: $(STAMP) ## a million mutated programs under ASan and UBSan (needs clang with libFuzzer)
	$(BIN)/python tests/fuzz/make_corpus.py build/fuzz/corpus
	$(BIN)/cmake -S . -B build/fuzz -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DNOS_FUZZ=ON -DNOS_SANITIZE=ON \
	    -DNOS_CUDA=OFF -DCMAKE_CXX_COMPILER=clang++
	$(BIN)/cmake --build build/fuzz
	build/fuzz/fuzz_program -runs=1000000 -max_len=2048 -seed=1 -verbosity=0 build/fuzz/corpus

faults: $(STAMP) ## kills, full disks and a thousand flipped bits against the store of a run, a quarter of an hour
	$(BIN)/python -m tests.faults

# Twice, as ThreadSanitizer sees into the interpreter's kernels and not into the native tier's machine code. setarch: it
# does not know how to map its memory where addresses are more random than GCC 12 had expected.
TSAN = setarch -R env TSAN_OPTIONS="halt_on_error=1 exitcode=66"
TSAN_PYTHON = LD_PRELOAD=$$($(CXX) -print-file-name=libtsan.so) NOS_TSAN_MODULE=$$(echo build/tsan/_C.*.so) \
    $(TSAN) $(BIN)/python tests/tsan/python_threads.py

tsan: $(STAMP) ## the engine and the module under ThreadSanitizer, several threads (needs GCC)
	$(BIN)/python tests/fuzz/make_corpus.py build/tsan/corpus
	$(BIN)/cmake -S . -B build/tsan -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DNOS_TSAN=ON -DNOS_UNITY=ON -DNOS_CUDA=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	    -DPython_EXECUTABLE=$(abspath $(BIN)/python) -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build build/tsan
	NOS_ISA=baseline $(TSAN) build/tsan/tsan_engine build/tsan/corpus --plant 2>/dev/null; test $$? = 66 # it does look
	NOS_ISA=baseline $(TSAN) build/tsan/tsan_engine build/tsan/corpus
	$(TSAN) build/tsan/tsan_engine build/tsan/corpus
	NOS_ISA=baseline $(TSAN_PYTHON) --plant 2>/dev/null; test $$? = 66
	NOS_ISA=baseline $(TSAN_PYTHON)
	$(TSAN_PYTHON)

peers: $(STAMP) ## PyTorch's optimizer tests over ours, and pytorch_optimizer's numbers (installs both's needs)
	$(PIP) install -q -c constraints.txt -e ".[peers]"
	$(BIN)/python -m pytest tests/peers -n 2 --dist worksteal

# In an environment of its own, which sees .venv: a torchvision there would be imported by all that can do without.
frameworks: $(STAMP) ## the optimizers in the real transformers, Lightning, timm, fastai, ... (installs them, 500 MB, into build/frameworks-venv)
	test -d build/frameworks-venv || $(BIN)/python -m venv build/frameworks-venv
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
	    > $$(build/frameworks-venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beneath.pth
	build/frameworks-venv/bin/python -m pip --disable-pip-version-check install -q "pip>=26"
	build/frameworks-venv/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt --only-deps ".[frameworks]"
	build/frameworks-venv/bin/python -m pytest tests/frameworks

ulp: $(STAMP) ## every one of the 2^32 inputs of each unary op, into docs/numerics.md
	$(BIN)/python bench/ulp.py --write docs/numerics.md

bench: $(STAMP) ## every bench against every peer, about 15 minutes; writes docs/performance.md
	$(PIP) install -q -e ".[bench]"
	$(BIN)/python -m bench.run --json bench/results/cpu.json
	$(BIN)/python -m bench.render bench/results/cpu.json

bench-quick: $(STAMP) ## the same in three minutes, without the page
	$(PIP) install -q -e ".[bench]"
	$(BIN)/python -m bench.run --quick

clean: ## removes what the build made
	rm -rf build dist *.egg-info nos_ext/_C*.so $(STAMP)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The stamp is older than any source of the compiled module: pip rebuilds it.
$(STAMP): $(VENV)/bin/python pyproject.toml setup.py CMakeLists.txt constraints.txt \
          $(shell find csrc cmake -type f)
	$(PIP) install -q "pip>=24"
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e ".[dev]"
	$(PIP) install -q cmake ninja pybind11 apache-tvm-ffi
	touch $@
