# Two commands do everything, their own set-up included: make demo, make test.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PYTEST  = $(BIN)/pytest -n 2 --dist loadfile

.PHONY: demo test slow lint bench clean tools

demo: $(VENV)/ready
	$(BIN)/echolith demo

test: $(VENV)/ready
	$(PYTEST)

slow: $(VENV)/ready
	$(PYTEST) -m slow -x

# pyright looks through .ns, where every package has its import name.
lint: $(VENV)/ready
	$(BIN)/ruff check
	$(BIN)/pyright -p .ns --pythonpath $(BIN)/python

bench: $(VENV)/ready
	$(BIN)/echolith bench
	$(BIN)/echolith bench accuracy

# torch first and by its number: a plain newest torch pulls gigabytes of CUDA.
$(VENV)/ready: pyproject.toml | tools
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install torch==2.13.0
	$(BIN)/pip install -e '.[compiler,build,sim,demo,test]'
	touch $@

# Name what the system lacks, with the command that installs it.
tools:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
		{ echo "Python 3.10 or newer is needed: sudo apt install python3 (or make PYTHON=/path/to/python3)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "venv is missing: sudo apt install python3-venv"; exit 1; }
	@command -v $${CXX:-g++} >/dev/null || command -v clang++ >/dev/null || \
		{ echo "a C++ compiler is missing: sudo apt install g++"; exit 1; }
	@command -v perl >/dev/null || { echo "perl is missing: sudo apt install perl"; exit 1; }

clean:
	rm -rf build $(VENV)
