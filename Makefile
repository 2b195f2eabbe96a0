# `make demo` and `make test` are all a new user needs; both set up .venv first.
SHELL := /bin/bash
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: setup demo test lint soak lock clean

$(STAMP): pyproject.toml constraints.txt
	python3.11 -m venv .venv
	.venv/bin/pip install -q -c constraints.txt torch==2.13.0 setuptools wheel
	.venv/bin/pip install -q -c constraints.txt -e '.[serve,train,monitor,dev]'
	.venv/bin/pip check
	touch $(STAMP)

setup: $(STAMP)

demo: $(STAMP)
	.venv/bin/streamrec quickstart

lint: $(STAMP)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# OpenMP threads that spin while they wait cost more than they give where two workers share two cores.
test: export OMP_WAIT_POLICY := PASSIVE
test: lint
	.venv/bin/pytest -q -n 2 --dist loadfile -m "not slow and not gpu"

soak: $(STAMP)
	.venv/bin/pytest -q -m "slow and not gpu"

# After `.venv/bin/pip install -U …`: what is installed becomes the lock.
lock: $(STAMP)
	(grep '^#' constraints.txt; .venv/bin/pip list --format=freeze | grep -vE '^(streamrec|pip|torch)=='; echo torch==2.13.0) > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv .streamrec
