# Set-up is part of every target: each works alone, on a fresh clone, with Python 3.11, pip, venv and make.
PYTHON ?= python3.11
SHELL := bash
.SHELLFLAGS := -o pipefail -ec
BIN := .venv/bin
export RAY_USAGE_STATS_ENABLED := 0
export OMP_NUM_THREADS ?= 1

.PHONY: docs docs-serve demo test test-slow chaos fuzz check format lock lock-docs clean gpu gpu-ray gpu-pack peers bench

demo: .venv/ready
	$(BIN)/metaray train jobs/glyphs.py:demo --workers 2 --samplers 2
	rm -rf demo-task
	$(BIN)/metaray data export glyphs --part meta-test --ways 20 --shots 1 --queries 3 --seed 1 --out demo-task
	$(BIN)/metaray adapt models:/glyphs@champion --support demo-task/support --query demo-task/query --picture demo-task.png

# Two processes and more where there are cores for them; all that share a Ray cluster keep to one, and all of a file.
test: .venv/ready
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

test-slow: .venv/ready-slow .venv-docs/ready
	METARAY_NO_SKIPS=1 $(BIN)/python -m pytest -m "slow and not chaos"

# Random kills against one run for ten minutes: it must end in the parameters of a run that was left alone.
chaos: .venv/ready
	$(BIN)/python -m pytest -m chaos -s tests/chaos

# Damaged and hostile input of every kind that metaray reads, at most ten minutes: make fuzz SEED=7 CASES=500
SEED ?= 0
CASES ?= 500
fuzz: .venv/ready
	$(BIN)/python -m tests.fuzz --seed $(SEED) --cases $(CASES)

# What holds and what it costs on the GPU of this machine: into gpu-record/. OMNIGLOT names Omniglot's class store.
gpu: .venv/ready
	$(BIN)/python -m jobs.benchmarks.gpu $(if $(OMNIGLOT),--omniglot $(OMNIGLOT)) $(GPU_OPTIONS)

# The same with Ray: NCCL, sampler actors, what is killed on the way. Goes on with the record that is there.
gpu-ray: .venv/ready
	$(BIN)/python -m jobs.benchmarks.gpu --only ray --add --budget-s 200 $(GPU_OPTIONS)

# What a bare GPU machine lacks, to carry there: gpu-pack/. OMNIGLOT may also be the folder with the two zips.
gpu-pack: .venv/ready
	$(BIN)/python -m jobs.benchmarks.gpu.pack $(if $(OMNIGLOT),--omniglot $(OMNIGLOT))

# The libraries that metaray is compared with, in an environment of their own; what cannot be had is left out.
peers: .venv-peers/ready

# What metaray costs on a CPU beside them: 15 minutes on 2 quiet cores, into docs/performance/ and docs/performance.md.
# An interrupted run goes on; make bench BENCH_OPTIONS='--only meta-step --again'
bench: .venv/ready .venv-peers/ready
	$(BIN)/python -m jobs.benchmarks.cpu $(BENCH_OPTIONS)

# The site, into build/site: strict, and without a network once .venv-docs is there. build/site/index.html opens as a file;
# to search in it takes a server, `make docs-serve`.
docs: .venv-docs/ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --quiet

docs-serve: docs
	.venv-docs/bin/python -m http.server --bind 127.0.0.1 --directory build/site 8000

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Rewritten only on success, so that an interrupted install starts again.
.venv/ready: requirements.lock pyproject.toml
	@echo "installing $$(grep -c == requirements.lock) packages into .venv: about 2 GB, some minutes, the first time only"
	$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock \
	    | awk '/^Collecting/ { printf "\r%d packages found", ++n } \
	           /^Installing/ { printf "\r%d packages found; unpacking them", n } { fflush() } END { print "" }'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch .venv/ready

# What only the slow tests need, beside the locked packages: an S3 server, MLflow's login, a notebook's kernel, other
# libraries to compare with.
.venv/ready-slow: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock \
	    --editable '.[cluster,notebook,references]'
	touch .venv/ready-slow

# What builds the site needs neither torch nor metaray itself: docstrings are read, not imported.
.venv-docs/ready: requirements-docs.lock
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.lock
	touch .venv-docs/ready

.venv-peers/ready: jobs/benchmarks/peers/install.py requirements.lock
	$(PYTHON) jobs/benchmarks/peers/install.py .venv-peers
	touch .venv-peers/ready

# The lock is what pip chooses from pyproject.toml's ranges; local version labels (+cpu) are cut off, so that the same
# file gives a machine with a GPU the GPU build.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	printf 'torch==2.13.0\n' > .venv-lock/constraints.txt
	.venv-lock/bin/python -m pip install --quiet --constraint .venv-lock/constraints.txt '.[dev]'
	.venv-lock/bin/python -m pip uninstall --quiet --yes metaray
	(echo '# Made by `make lock` from the ranges in pyproject.toml.'; \
	 .venv-lock/bin/python -m pip freeze | sed 's/+[a-z0-9.]*$$//') > requirements.lock
	rm -rf .venv-lock

# The same for the site, from the extra `docs`.
lock-docs:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' \
	    > .venv-lock/docs.txt
	.venv-lock/bin/python -m pip install --quiet -r .venv-lock/docs.txt
	(echo '# Made by `make lock-docs` from the extra `docs` in pyproject.toml.'; \
	 .venv-lock/bin/python -m pip freeze) > requirements-docs.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock .venv-peers .venv-docs runs mlruns mlartifacts mlflow.db demo-task demo-task.png build gpu-pack gpu-record .mypy_cache .ruff_cache .pytest_cache
