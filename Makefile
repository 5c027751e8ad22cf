# make train: from a fresh clone to a generated sample.   make test: every test.   make lint: ruff, mypy and bandit.
# make lock: newest versions and their hashes for all platforms, from the package index, into requirements-lock.txt.
PYTHON ?= python3
PY := .venv/bin/python
DATA := data/sample
RUN := runs/tiny-mlx
PACKAGES := gpt_core data_prep mlx_gpt torch_gpt weights compare benchmarks

# pip compiles one file after another; two cores take half of that. A few files of libraries are templates and cannot be.
define install
	$(PY) -m pip install -q --no-compile -r $(1)
	$(PY) -m compileall -qq -j 0 .venv/lib || true
endef

.PHONY: train test lint lock clean

train: $(DATA)/manifest.json
	$(PY) -m mlx_gpt.train --preset tiny --data $(DATA) --run $(RUN) --vocab-size 4096 --steps 600
	@echo "--- the model goes on from \"واش راك\" (three seeds)"
	@for seed in 1 2 3; do $(PY) -m mlx_gpt.generate --checkpoint $(RUN) --prompt "واش راك" --max-tokens 30 --seed $$seed; done
	@echo "plots: $(RUN)/plots/loss.png $(RUN)/plots/grad_norm.png"

$(DATA)/manifest.json: | .venv/installed
	$(PY) -m data_prep --source sample --out $(DATA) --vocab-size 4000

test: .venv/installed-dev
	OMP_WAIT_POLICY=PASSIVE $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: .venv/installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy $(PACKAGES) tests
	$(PY) -m bandit -q -ll -r $(PACKAGES)

lock: .venv/installed-dev
	$(PY) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" --output-file requirements-lock.txt requirements.txt

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11 to 3.13 is needed: make PYTHON=python3.12")'
	$(PYTHON) -c 'import platform, sys; sys.exit("an arm64 Python is needed on Apple silicon, this one is for Intel: make PYTHON=/opt/homebrew/bin/python3" if (sys.platform, platform.machine()) == ("darwin", "x86_64") else None)'
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt | .venv/bin/python
	$(call install,requirements.txt)
	touch $@

.venv/installed-dev: requirements.txt requirements-tools.txt requirements-dev.txt | .venv/bin/python
	$(call install,requirements-dev.txt)
	touch .venv/installed $@

clean:
	rm -rf .venv data runs
