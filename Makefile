# make demo   a real search in a few minutes, from nothing but python3 and a C++ compiler
# make test   the whole test suite
#
# Both work in .venv beside this file. `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
DEMO   := runs/demo
STAMP  := $(VENV)/.installed

.PHONY: help demo test test-fast test-tensorflow gate lint format build docs fuzz ulp bench bench-quick clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

demo: $(STAMP) ## a real search, its leaderboard and a report
	rm -rf $(DEMO)
	$(BIN)/nos-search run --task digits --strategy controller --trials 600 --seconds 300 --seed 3 --out $(DEMO)
	$(BIN)/nos-search show $(DEMO)
	$(BIN)/nos-search report $(DEMO)

test: $(STAMP) ## every test
	$(BIN)/python -m pytest tests bench -n 2 --dist worksteal

test-fast: $(STAMP) ## tests that take a moment each
	$(BIN)/python -m pytest tests -m "not slow"

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

gate: $(STAMP) ## registers, spills, branches of the CUDA kernels (needs nvcc, no GPU)
	$(BIN)/python -m tests.backend.cuda.gate

format: $(STAMP) ## rewrites sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cc' '*.h' '*.cpp' '*.cu')

docs: $(STAMP) ## docs/reference from the tables
	$(BIN)/python -m nos_ext.docgen

build: $(STAMP) ## rebuilds the compiled module incrementally into nos_ext/
	$(BIN)/cmake --preset dev -DPython_EXECUTABLE=$(abspath $(BIN)/python) \
	    -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build --preset dev
	$(BIN)/cmake --install build/dev --prefix .

fuzz: $(STAMP) ## a million mutated programs under ASan and UBSan (needs clang with libFuzzer)
	$(BIN)/python tests/fuzz/make_corpus.py build/fuzz/corpus
	$(BIN)/cmake -S . -B build/fuzz -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DNOS_FUZZ=ON -DNOS_SANITIZE=ON \
	    -DNOS_CUDA=OFF -DCMAKE_CXX_COMPILER=clang++
	$(BIN)/cmake --build build/fuzz
	build/fuzz/fuzz_program -runs=1000000 -max_len=2048 -seed=1 -verbosity=0 build/fuzz/corpus

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
