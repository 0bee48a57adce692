# Everything from a fresh clone: `make sweep` is the main job, `make test` the tests. Needs Python 3.11 and a package index.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

# Overrides for the sweep: make sweep ARGS="loss=logistic,squared beta=0.1,0.3"
ARGS ?=
# The sweep of `make report`, `make pictures` and `make sync`: runs/$(SWEEP).
SWEEP ?= frontier

.DEFAULT_GOAL := help
.PHONY: help setup sweep gao smoke report pictures world test test-gpu bench test-full faults mutants check format sync lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## create or update the virtual environment

# A stamp, written last: an installation that was interrupted is done again.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"error: Python 3.11 or newer is needed, this is {sys.version.split()[0]}; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --requirement requirements.lock
	$(PY) -m pip install --quiet --no-deps --editable .
	@touch $@

# bench.train says where its sweep is, whatever ARGS made of it; nothing is said where nothing is trained (--cfg job).
# Exit status 1 means that some cells failed: the report shows them, and make fails after it.
define TRAIN_AND_REPORT
@where=$$(mktemp) && trap 'rm -f "$$where"' EXIT && \
$(PY) -m bench.train -m --sweep-dir-to="$$where" experiment=$(1) $(ARGS); status=$$?; \
if [ $$status -gt 1 ] || [ ! -s "$$where" ]; then exit $$status; fi; \
$(PY) -m analysis.report --if-changed "$$(cat "$$where")" && exit $$status
endef

sweep: $(INSTALLED) ## train all cells that are missing, then write runs/<sweep>/report
	$(call TRAIN_AND_REPORT,frontier)

gao: $(INSTALLED) ## proxies between gold and the policies (Gao et al. 2023): experiment gao, then its report
	$(call TRAIN_AND_REPORT,gao)

smoke: $(INSTALLED) ## the same in less than a minute, on a tiny world
	$(call TRAIN_AND_REPORT,smoke)

report: $(INSTALLED) ## write the report of SWEEP=NAME again
	@[ -z "$(ARGS)" ] || { echo "make report takes SWEEP=NAME, not ARGS" >&2; exit 2; }
	@$(PY) -m analysis.report runs/$(SWEEP)

pictures: report ## copy the README's pictures from the report of the default sweep (needs chromium)
	@cp runs/$(SWEEP)/report/figures/frontier.png docs/frontier.png
	@cp runs/$(SWEEP)/report/figures/gold_and_kl_against_beta.png docs/beta.png
	@chromium --headless --no-sandbox --hide-scrollbars --window-size=1280,1400 --virtual-time-budget=5000 \
		--screenshot=docs/report.png "file://$(CURDIR)/runs/$(SWEEP)/report/index.html" 2>/dev/null

world: $(INSTALLED) ## build the world that comes with the code anew, from its word lists: a new version of it
	@$(PY) -m bench.freeze --replace

test: $(INSTALLED) ## the default tests: minutes, no network, no GPU
	@$(PY) -m pytest -m "not slow" --numprocesses 2 --dist worksteal

test-gpu: $(INSTALLED) ## tests on a CUDA device, then step times and memory of larger policies
	@$(PY) -m pytest -m gpu tests/gpu
	@$(PY) -m benchmarks.gpu

bench: $(INSTALLED) ## times of a cell, its parts, cells beside TRL's DPOTrainer, start-up, report
	@$(PY) -m benchmarks --sweep runs/$(SWEEP) $(ARGS)

test-full: $(INSTALLED) ## all tests, slow ones too
	@$(PY) -m pytest --numprocesses 2 --dist worksteal

faults: $(INSTALLED) ## kill, starve and damage a small sweep on purpose: nothing may be lost (minutes)
	@PYTHONPATH=tests $(PY) -m faults

mutants: $(INSTALLED) ## put wrong formulas into copies of the code: a test has to fail for each (minutes)
	@PYTHONPATH=tests $(PY) -m mutants $(ARGS)

check: $(INSTALLED) ## lint, formatting, types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(INSTALLED) ## format the code
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

sync: $(INSTALLED) ## upload offline W&B runs of SWEEP=NAME
	@$(PY) -m bench.mirror runs/$(SWEEP)
	@$(VENV)/bin/wandb sync runs/$(SWEEP)/*/wandb/offline-run-*

# torch's local version (+cpu) is what happens to be installed here; the lock names the release.
lock: ## resolve requirements.lock anew
	$(PY) -m piptools compile --quiet --upgrade --strip-extras --extra dev --no-header --annotation-style line \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file requirements.lock pyproject.toml
	@sed -i 's/^\(torch==[0-9.]*\)+[a-z0-9]*/\1/' requirements.lock

clean: ## remove the environment and caches; runs/ and artifacts/ are kept
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
