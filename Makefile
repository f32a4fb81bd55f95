# Every target sets up what it needs in .venv; a fresh machine needs Python 3.10 or later, make, and nothing else.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
CONTRIB := $(wildcard contrib/*/pyproject.toml)

.PHONY: demo scenes claims emoji test lint test-slow page-test mutants kit-seeds docs clean

demo: .venv/.demo
	$(BIN)/diffuse demo

# 45 minutes of training, then what it reached: scenes-out/index.html, scenes-out/metrics.json
scenes: .venv/.demo
	$(BIN)/diffuse scenes

# noisy against classifier-free guidance on the model of `make scenes`, then three comparisons of trainings: hours
claims: .venv/.demo
	$(BIN)/diffuse claims guidance --model scenes-out/model
	for claim in stages times objective; do $(BIN)/diffuse claims $$claim || exit 1; done

# 20 minutes of training on pictures that npm fetches (74 MB)
emoji: .venv/.dev emoji-data/package
	$(BIN)/diffuse emoji emoji-data/package

emoji-data/package:
	mkdir -p emoji-data
	cd emoji-data && npm pack --silent emoji-datasource-google@16.0.0 && tar xzf emoji-datasource-google-16.0.0.tgz

test: .venv/.dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: .venv/.dev
	$(BIN)/python -m pytest -m slow

# every page that a command writes, in a headless browser
page-test: .venv/.dev
	command -v chromium chromium-browser google-chrome >/dev/null || apt-get install -y chromium
	$(BIN)/python -m pytest tests/pages -m slow

# broken modalities and what rejects them; right ones under twenty seeds of the kit
mutants: .venv/.dev
	$(BIN)/python tests/plugins/mutants.py

kit-seeds: .venv/.dev
	$(BIN)/python tests/plugins/kit_seeds.py

# the site, into docs/_build; a warning is an error
docs: .venv/.dev
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e ".[demo]"
	touch $@

# the distributions under contrib/ are installed as a stranger's would be, and found through their entry points
.venv/.dev: pyproject.toml constraints.txt $(CONTRIB) | .venv/bin/python
	$(PIP) -e ".[dev]"
	$(PIP) --no-deps --no-build-isolation $(CONTRIB:%/pyproject.toml=-e ./%)
	touch $@ .venv/.demo

clean:
	rm -rf .venv build *.egg-info contrib/*/build contrib/*/*.egg-info demo-out scenes-out claims-out emoji-out emoji-data \
		docs/_build
