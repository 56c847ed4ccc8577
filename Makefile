# Every target first makes .venv; `make setup` does only that. PYTHON chooses the interpreter (3.11 is what CI runs).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
FLEET := $(VENV)/.fleet
RTDA_DATA ?=
export RTDA_DATA

.PHONY: setup demo loop test test-system test-oldest test-jetson gpu-check check bench docs wheel release-check clean help

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything that installs anywhere

# torch stands first and exact, so that no other package chooses one for us.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 10) else "error  Python 3.10 or newer is needed to train (this is %d.%d)\nfix    make PYTHON=python3.11 $(MAKECMDGOALS)" % v)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error  $(PYTHON) cannot make virtual environments"; echo "fix    sudo apt-get install python3-venv"; exit 1; }
	@$(PYTHON) tools/announce_download.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt -e ".[all,dev]"
	@touch $(STAMP)

demo: $(STAMP) ## train, adapt, export, run, report on ToyTown
	$(BIN)/rtda-deploy demo

loop: $(STAMP) ## a robot drives from noon into rain: alarm, collect, adapt, rank, promote, on ToyTown (LOOP="--fresh")
	$(BIN)/python tools/loop.py $(LOOP)

test: $(STAMP) ## the tests that need nothing but Python
	$(BIN)/python -m pytest -m "not system" -n 2 --dist worksteal

# Ray is large, and of use to few: where it cannot be installed (a Python that it has no wheel for, no network), its tests
# skip and say so, and the next call tries again.
$(FLEET): $(STAMP)
	@echo "setup  installs Ray for the tests of label --on ray: 500 MB of disk" >&2
	@if $(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 1 -c constraints.txt -e ".[fleet]"; \
	then touch $(FLEET); else echo "note   Ray was not installed: tests/system/test_fleet.py is skipped" >&2; fi

test-system: $(STAMP) $(FLEET) ## the tests that need Debian packages, servers, mounts, Ray or killed processes
	$(BIN)/python -m pytest -m system

test-oldest: $(STAMP) ## the robot's side under Python 3.8 with the oldest packages that are allowed
	$(BIN)/python tests/oldest/run.py

test-jetson: $(STAMP) ## the robot's side under Python 3.8 with the real TensorRT 8.5.2 (keeps 1 GB in the cache folder)
	$(BIN)/python tests/jetson/run.py

gpu-check: $(STAMP) ## everything that needs an NVIDIA GPU; goes on where it was stopped (CHECKPOINT=best.pth)
	@test -f runs/gpu-files/manifest.json || PYTHONPATH=tests $(BIN)/python -m gpu.prepare --out runs/gpu-files $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT))
	$(BIN)/python -m pytest -m gpu -s -rs

check: $(STAMP) ## ruff, format, mypy strict, and what the pages say: links, commands, no placeholders
	$(BIN)/ruff check . runtime/ros1/scripts/segmentation_node
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/check_docs.py

bench: $(STAMP) ## docs/results/speed.md, and the other measured claims of the README (SPEED="--checkpoint rtda=A.pth ...")
	$(BIN)/python benchmarks/speed.py $(SPEED) || test $$? = 1  # 1: goals were missed, which is on the page
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/toytown.py
	$(BIN)/python benchmarks/estimate_fit.py
	$(BIN)/python benchmarks/loop_overhead.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/view_clients.py
	$(BIN)/python benchmarks/camera_age.py --seconds 20
	$(BIN)/python benchmarks/camera_restarts.py --times 20
	$(BIN)/python benchmarks/soak.py --minutes 1

docs: $(STAMP) ## the documentation site into dist/site; a warning is an error
	$(BIN)/sphinx-build -q -W --keep-going -c docs . dist/site
	@echo "wrote   dist/site/docs/index.html"

wheel: $(STAMP) ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

release-check: $(STAMP) ## build sdist and wheel, install each outside the checkout, run the demo from both
	$(BIN)/python tools/release_check.py

clean: ## remove .venv and what was built
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
