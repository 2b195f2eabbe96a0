# `make demo` and `make test` are all a new user needs; both set up .venv first.
SHELL := /bin/bash
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: setup demo test lint soak bench gpu-bench lock clean

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

RESULTS := benchmarks/results
BENCH := .venv/bin/streamrec bench

# Side by side with the peers that are installed (benchmarks/peers/setup); about 40 minutes on a quiet machine.
bench: $(STAMP)
	$(BENCH) serve --peers fastapi,bentoml_graph,ray_serve --pairs 10 --save $(RESULTS)/serve.json
	$(BENCH) rank --save $(RESULTS)/rank.json
	$(BENCH) retrieve --save $(RESULTS)/retrieve.json
	$(BENCH) serve --growth candidates --pairs 10 --save $(RESULTS)/growth-candidates.json
	$(BENCH) serve --growth clients --pairs 3 --save $(RESULTS)/growth-clients.json
	$(BENCH) serve --growth items --pairs 3 --save $(RESULTS)/growth-items.json
	$(BENCH) batch --save $(RESULTS)/batch.json
	$(PY) -m benchmarks.report

# The distributed topology's batched ranking against plain PyTorch; says so where there is no CUDA.
gpu-bench: $(STAMP)
	$(PY) -m benchmarks.gpu --save $(RESULTS)/gpu.json
	$(PY) -m benchmarks.report

# After `.venv/bin/pip install -U …`: what is installed becomes the lock.
lock: $(STAMP)
	(grep '^#' constraints.txt; .venv/bin/pip list --format=freeze | grep -vE '^(streamrec|pip|torch)=='; echo torch==2.13.0) > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv .streamrec
