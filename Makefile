# Needs Python 3.10 to 3.13, pip and make; everything else comes into .venv.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := cpu,openvino,tensorrt-rtx,train,export,geo,milvus,mavlink,recordings,sign,serve,ray,search,docs,dev
DEMO_EXTRAS := cpu,train,export
ROOMS := runtime calibration training export cli
PACKAGES := -p geodtr $(foreach room,$(ROOMS),-p geodtr.$(room))
# New or removed modules change a folder: the strict editable install is a tree of links and is made again then.
FOLDERS := $(shell find geodtr $(ROOMS) -type d -not -name __pycache__)

# A process a core, up to four: each wants two gigabytes. One that has nothing left takes half of another's tests.
# Bytecode is kept, even where the environment forbids it: else each of some hundred processes compiles what it imports.
THREADS := 1
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=$(THREADS) OMP_WAIT_POLICY=passive \
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# Folders whose prose is free of the words in tools/words.txt.
PLAIN := runtime training calibration export benchmarks tools docs cli geodtr examples tests README.md

comma := ,
INSTALLED = $(shell $(BIN)/python -c "import geodtr, pathlib; print(pathlib.Path(geodtr.__path__[-1]).parent)")

.PHONY: demo test test-all test-nightly test-seeds fuzz check docs check-tensorrt gpu-bundle install pins clean

demo: .venv/demo-installed
	$(BIN)/geodtr-export demo --out demo

test: install
	$(PYTEST)

test-all: install
	$(PYTEST) -m "slow or not slow"

# Everything, and ten times as many examples of each property.
test-nightly: install
	HYPOTHESIS_PROFILE=nightly $(PYTEST) -m "slow or not slow"

# 10,000 damaged and hostile inputs; more or others: make fuzz FUZZ="--count 100000 --seed 7 --kind GeoTIFF".
fuzz: install
	PYTHONPATH=tests/support OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python tests/fuzz/campaign.py $(FUZZ)

# No test depends on the model that some seed gives on some machine, nor on the number of threads.
test-seeds: install
	$(PYTEST)
	GEODTR_TEST_SEED=1 $(MAKE) test THREADS=2
	GEODTR_TEST_SEED=2 $(MAKE) test

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff check --quiet --preview --select DOC201,DOC402,DOC501 geodtr # sections of the public names' docstrings
	$(BIN)/ruff format --check .
	$(BIN)/python tools/words.py $(PLAIN)
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/mypy tests benchmarks tools examples
	cd tests && ../$(BIN)/lint-imports ../pyproject.toml # elsewhere the folder geodtr/ would hide the package

# The documentation site, into site/, without a network; docs/cli.md is written from the command line's own help.
docs: install
	$(BIN)/python tools/cli_page.py docs/cli.md
	NO_MKDOCS_2_WARNING=1 GEODTR_INSTALLED=$(INSTALLED) $(BIN)/mkdocs build --quiet

# Every TensorRT and CUDA name in use against the vendors' packages, which it downloads; needs gcc and nm, no GPU.
check-tensorrt: install
	$(BIN)/python tools/check_tensorrt.py

# Into .gpu/: what a GPU machine with PyTorch and no network lacks, for tools/on_gpu.py there (docs/gpu.md).
gpu-bundle: install
	$(BIN)/python tools/gpu_bundle.py .gpu

install: .venv/installed

INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt \
	--config-settings editable_mode=strict --editable

.venv/installed: .venv/bin/uv pyproject.toml constraints.txt $(FOLDERS)
	$(INSTALL) ".[$(EXTRAS)]"
	touch $@ .venv/demo-installed

.venv/demo-installed: .venv/bin/uv pyproject.toml constraints.txt $(FOLDERS)
	$(INSTALL) ".[$(DEMO_EXTRAS)]"
	touch $@

.venv/bin/uv:
	$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13) and \
		'Python 3.10 to 3.13 is needed, this is ' + sys.version.split()[0] + ': make PYTHON=python3.12')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv

pins: .venv/bin/uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
		$(foreach extra,$(subst $(comma), ,$(EXTRAS),bench),--extra $(extra)) --upgrade pyproject.toml --output-file constraints.txt
	sed -i '1i # What the tests ran with, on Linux x86-64; rebuilt by: make pins' constraints.txt


clean:
	rm -rf .venv .cache build *.egg-info
