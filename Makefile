# Every command sets up what it needs, in one virtual environment; `make help` lists them.

VENV ?= .venv
PYTHON ?= python3
PRESET ?= default
DATA ?= $(UNIHEAD_DATA)
WEIGHTS ?= $(UNIHEAD_BACKBONE_WEIGHTS)
PYTEST_ARGS ?=
BENCH_ARGS ?=
LOCK_ARGS ?=
LOCK_FOLDER ?= docker
# So long a release waits before it is taken: a hijacked one is mostly found out within days.
LOCK_WAIT ?= 3 days
CORPUS ?=
HOSTILE_ARGS ?=
IMAGE_ARGS ?=
TAG ?=

# The plugin of docker where there is one, else the command of its own.
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

# Whatever git knows that begins like one; as root in a container the checkout belongs to somebody else.
SHELL_SCRIPTS = $(shell git -c safe.directory='*' grep -lIE '^\#!.*[/ ](ba|da)?sh( |$$)')

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup serve test test-unit test-all check docs format lock sbom dist release version bench hostile image-test train export clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/.base ## serve the embedded model on http://127.0.0.1:8000 (settings: UNIHEAD_HOST, UNIHEAD_PORT, ...)
	$(BIN)/unihead-serve

setup: $(VENV)/.dev ## install everything: service, torch, training, tests, checks (the others do it when they need it)

test: $(VENV)/.dev ## quick suite, under 15 minutes after installation (PYTEST_ARGS="-k letterbox" narrows it)
	@$(say_inputs)
	$(BIN)/pytest -m "not full" $(PYTEST_ARGS)

test-unit: $(VENV)/.dev ## unit tests alone, one to three minutes
	@$(say_inputs)
	$(BIN)/pytest -m "not slow and not full" --ignore=tests/over_http --ignore=tests/page $(PYTEST_ARGS)

test-all: $(VENV)/.dev $(VENV)-clients/.done ## the quick suite, and what needs browsers, other servers or long runs
	@$(say_inputs)
	$(BIN)/pytest --numprocesses auto --dist worksteal $(PYTEST_ARGS)

check: $(VENV)/.dev ## formatting, lint, types, walls between the packages, wheels for Arm, Dockerfiles, compose, manifests, rules, workflow, shell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy service training export tests docs/tools
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/yamllint --strict .
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml docker/keys.compose.yml
	$(BIN)/compose-lint check --quiet --skip-suppressed --fail-on low --strict-config --no-env --no-merge-overrides --config docker/compose-lint.yml docker-compose.yml
	$(BIN)/kubernetes-validate --strict --no-warn docker/kubernetes/[!k]*.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(on_arm64) --python-version 3.12 --require-hashes --requirement docker/requirements-tracing.lock
	$(on_arm64) --python-version 3.12 --require-hashes --requirement docker/requirements-grpc.lock
	$(on_arm64) --python-version 3.11 --requirement pyproject.toml $(on_arm64_extras)
	$(on_arm64) --python-version 3.14 --requirement pyproject.toml $(on_arm64_extras)
	$(BIN)/zizmor --quiet --offline --strict-collection --pedantic .github
	$(BIN)/shellcheck $(SHELL_SCRIPTS)
	.ci/if-installed $(COMPOSE) --env-file tests/docker/no_variable.env --profile '*' config --quiet
	.ci/if-installed $(COMPOSE) --file docker-compose.yml --file docker/keys.compose.yml --env-file tests/docker/every_variable.env --profile '*' config --quiet
	.ci/if-installed promtool check config docker/prometheus/prometheus.yml
	.ci/if-installed promtool test rules docker/prometheus/rules_test.yml

# Whether there are wheels of all that Linux on 64-bit Arm installs. pip would ask for what this machine's markers say.
check: on_arm64 = $(BIN)/uv pip install --dry-run --quiet --no-build --python-platform aarch64-manylinux_2_28 --target build/arm64
check: on_arm64_extras = --extra client --extra tracing --extra grpc --extra parquet --extra completion

docs: $(VENV)/.dev ## the documents as a site in build/site, which needs no server and asks none
	$(BIN)/python -m docs.tools.write_reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site
	@echo "open build/site/index.html"

format: $(VENV)/.dev ## mend formatting and what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: compile = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-build \
	--exclude-newer "$(LOCK_WAIT)" --custom-compile-command "make lock" $(LOCK_ARGS)
lock: $(VENV)/.dev ## LOCK_ARGS=--upgrade: pin what the service's image installs, with hashes, for every Python that we run on
	$(compile) --output-file $(LOCK_FOLDER)/requirements.lock pyproject.toml
	$(compile) --output-file $(LOCK_FOLDER)/requirements-tracing.lock --extra tracing pyproject.toml
	$(compile) --output-file $(LOCK_FOLDER)/requirements-grpc.lock --extra grpc pyproject.toml
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(compile) --output-file $(LOCK_FOLDER)/requirements-build.lock -

sbom: $(VENV)/.dev ## build/sbom.json: what the service's image installs, down to native libraries, as CycloneDX
	$(BIN)/python -m tests.docker.sbom build/sbom.json

dist: $(VENV)/.dev ## wheel and source distribution in dist/, with what is in them checked
	$(BIN)/python -m tests.release dist

release: $(VENV)/.dev ## dist, the wheel tried in an empty environment, the image, bill of materials, provenance (docs/releasing.md)
	$(BIN)/python -m tests.release release --tag "$(TAG)"

version: usage = make version VERSION=1.2.3 [DATE=2026-12-31]
version: require-VERSION $(VENV)/.dev ## VERSION=1.2.3: write a new version wherever it stands, and date what CHANGELOG.md has as unreleased
	$(BIN)/python -m tests.release version "$(VERSION)" $(if $(DATE),--date "$(DATE)")

bench: $(VENV)/.dev $(VENV)-peers/.done $(VENV)-mlserver/.done ## unihead beside four other servers and three networks, with wrk (an hour); appends to docs/data/benchmarks.jsonl
	@command -v wrk >/dev/null || { echo "wrk is missing (Debian package wrk)" >&2; exit 2; }
	$(BIN)/python -m tests.benchmarks.serving --environments "$(VENV)" $(BENCH_ARGS)

image-test: $(VENV)/.base ## build the service's image, run it locked down, ask it (two minutes; docs/deploy.md says what it needs)
	$(BIN)/python -m tests.docker.image $(IMAGE_ARGS)

hostile: $(VENV)/.dev ## everything hostile in full size (an hour and a quarter; CORPUS=FOLDER adds files), and a table of goals in docs/reliability.md
	$(BIN)/python -m tests.attacks $(if $(CORPUS),--corpus "$(CORPUS)") --write $(HOSTILE_ARGS)

train: usage = make train DATA=FOLDER [PRESET=$(PRESET)] [WEIGHTS=FILE] [OUT=FOLDER]; DATA may come from UNIHEAD_DATA
train: OUT ?= runs/$(PRESET)
train: require-DATA $(VENV)/.dev ## DATA=FOLDER PRESET=default WEIGHTS=FILE: train a preset on your data
	$(BIN)/unihead-train run --preset "$(PRESET)" --data "$(DATA)" $(if $(WEIGHTS),--backbone-weights "$(WEIGHTS)") --out "$(OUT)"

export: usage = make export CHECKPOINT=FILE [OUT=unihead.onnx]
export: OUT ?= unihead.onnx
export: require-CHECKPOINT $(VENV)/.dev ## CHECKPOINT=FILE OUT=unihead.onnx: a checkpoint as one self-contained ONNX file
	$(BIN)/unihead-export onnx --checkpoint "$(CHECKPOINT)" --out "$(OUT)"
	@echo "next: $(BIN)/unihead-export parity --help   compares the file with the checkpoint, picture by picture"
	@echo "then: UNIHEAD_MODEL=$(OUT) make serve"

clean: ## remove caches and build leftovers; keeps runs/ and the virtual environment
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find service training export tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Before the installation, so that a forgotten argument is told at once and not after gigabytes.
require-%:
	@test -n "$($*)" || { echo "$* is missing: $(usage)" >&2; exit 2; }

define say_inputs
echo "Tests use $(if $(UNIHEAD_DATA),the data in $(UNIHEAD_DATA),the shipped public-domain pictures (UNIHEAD_DATA is not set))" \
	"and $(if $(UNIHEAD_BACKBONE_WEIGHTS),the weights in $(UNIHEAD_BACKBONE_WEIGHTS),random weights (UNIHEAD_BACKBONE_WEIGHTS is not set))."
endef

# What the service needs; no torch.
$(VENV)/.base: pyproject.toml hatch_build.py service/api/grpc/open_inference.proto
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
		"%s is Python %d.%d; unihead needs 3.11 or newer: make PYTHON=python3.12 ..." % (sys.executable, v[0], v[1]))'
	@echo "Installing the service into $(VENV) (about half a minute) ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable .
	@touch $@

# The servers that we compare with, beside the service; their requirements would not all fit into one environment with ours.
$(VENV)-peers/.done: pyproject.toml | $(VENV)/.dev
	@$(PYTHON) -m venv $(VENV)-peers
	@$(VENV)-peers/bin/pip --disable-pip-version-check --quiet install --editable . 'litserve>=0.2.19' 'bentoml>=1.4.40' 'ray[serve]>=2.60'
	$(BIN)/python -m tests.benchmarks.peers.three_networks export $(VENV)-peers/three_networks
	@touch $@

# It asks for older packages than the service does.
$(VENV)-mlserver/.done: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-mlserver
	@$(VENV)-mlserver/bin/pip --disable-pip-version-check --quiet install 'mlserver==1.7.*' onnxruntime pillow simplejpeg cykooz.resizer pydantic-settings python-multipart
	@$(VENV)-mlserver/bin/pip --disable-pip-version-check --quiet install --no-deps --editable .
	@touch $@

# Stock clients of other servers, and a generator of clients, which the suite asks in an environment of their own
# (tests/over_http/test_outside_clients.py says why).
$(VENV)-clients/.done: | $(VENV)/.base
	@$(PYTHON) -m venv $(VENV)-clients
	@$(VENV)-clients/bin/pip --disable-pip-version-check --quiet install 'deepstack-python>=0.9' 'deepstack-sdk>=0.2.1' 'codeproject-ai-api>=0.1' 'openapi-python-client>=0.29'
	@touch $@

# Training, export, tests and checks.
$(VENV)/.dev: $(VENV)/.base
	@echo "Installing torch, training and test tools into $(VENV) (about 6 GB, some minutes) ..."
	@$(PIP) install --editable '.[train,teachers,distributed,ray,tracing,grpc,dev]'
	@touch $@
