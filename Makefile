# Every target needs only Debian, Python 3.11+ and make; .venv is made on the way.
# Debian's own Python where there is one: any user may run it, as pipe(8) needs; PYTHON=... for another.
PYTHON ?= $(if $(wildcard /usr/bin/python3),/usr/bin/python3,python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

.PHONY: help install demo test check bench fuzz soak clean
help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

install: $(VENV)/server  ## make .venv; .venv/bin/brandproxy works after it

# A bare Debian has Python without venv: as root or with sudo it is installed, otherwise said.
$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); ./packages.sh python3-venv; $(PYTHON) -m venv $(VENV); }

$(VENV)/server: $(VENV)/bin/python requirements-server.lock pyproject.toml
	@echo "installing what brandproxy needs (once) ..."
	@$(PIP) install --require-hashes -r requirements-server.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/test: $(VENV)/server requirements-test.lock
	@echo "installing what the tests need (once) ..."
	@$(PIP) install --require-hashes -r requirements-test.lock
	@touch $@

$(VENV)/bench: $(VENV)/test requirements-bench.lock
	@$(PIP) install --require-hashes -r requirements-bench.lock
	@touch $@

packages:  ## Debian packages the tests and benches use, when root or sudo is there
	@./packages.sh

demo: $(VENV)/server  ## the whole path on loopback; ARGS=--once checks it and stops
	@$(BIN)/brandproxy demo $(ARGS)

test: packages $(VENV)/test  ## everything, with real servers on loopback
	@$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

check: $(VENV)/test  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:  ## remove what was made
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The drills of the test suite at their full size, which takes long: Redis faults, kill -9, disk full,
# a million forged tokens, ten thousand idle connections, 1,000 mails through Postfix, 500 hosts by three nodes.
soak: packages $(VENV)/test  ## every drill at full size, one after the other
	@./packages.sh buildah debootstrap
	@BRANDPROXY_DRILL=full BRANDPROXY_DRILL_HOSTS=500 BRANDPROXY_DRILL_MAILS=300 BRANDPROXY_MAILS=1000 \
	BRANDPROXY_PIPE_MAILS=1000 BRANDPROXY_HOSTILE_MB=10 BRANDPROXY_AUDIT_EVERY=1 BRANDPROXY_SCHEMATHESIS_EXAMPLES=100 \
	EDGE_KILLS=10 EDGE_IDLE_CONNECTIONS=10000 EDGE_FORGERIES=1000000 \
	$(BIN)/python -m pytest --timeout 3600 tests/edge tests/filters tests/fleet tests/store tests/core/test_hostile.py \
	tests/test_hosts_come_alive.py tests/cli/test_rewrite.py tests/analytics/test_openapi.py $(ARGS)

# One image, every role. BASE=... for another base image (pin it by digest); a folder wheels/ with the lock's wheels,
# when there, is all that pip looks at. buildah and podman leave the healthcheck out of their own format.
IMAGE ?= brandproxy:0.1.0
ENGINE ?= $(notdir $(firstword $(shell command -v docker podman buildah)))
.PHONY: image
image:  ## the container image, with docker, podman or buildah
	@test -n "$(ENGINE)" || { echo "no docker, podman or buildah here" >&2; exit 1; }
	$(ENGINE) build $(if $(filter docker,$(ENGINE)),,--format docker) $(if $(BASE),--build-arg BASE=$(BASE)) -t $(IMAGE) $(ARGS) .

.PHONY: image-check
image-check: $(VENV)/test  ## build the image without any registry (as root: buildah, debootstrap), run it, hold it to its promises
	@./packages.sh buildah debootstrap
	@BRANDPROXY_DRILL=full $(BIN)/python -m pytest -s tests/fleet/test_image.py $(ARGS)

# Benches: ratios against a peer in the same run. ARGS=--json prints one JSON object as the last line.
bench: bench-rewrite bench-edge  ## the two that matter most: a message, a click

.PHONY: bench-rewrite
bench-rewrite: $(VENV)/bench  ## messages a second beside BeautifulSoup, lxml, pytracking and lol-html
	@$(BIN)/python -m bench.rewrite $(ARGS)

.PHONY: bench-edge
bench-edge: packages $(VENV)/bench  ## CPU of a click beside nginx and Caddy; ARGS=--profile: per stage
	@$(BIN)/python -m bench.edge $(ARGS)

.PHONY: bench-edge-hosts
bench-edge-hosts: $(VENV)/bench  ## start-up, memory and p99 with 100,000 hosts
	@$(BIN)/python -m bench.edge_hosts $(ARGS)

.PHONY: bench-assets
bench-assets: packages $(VENV)/bench  ## a cached image, and a cold storm, beside nginx and Caddy
	@$(BIN)/python -m bench.assets $(ARGS)

.PHONY: bench-analytics
bench-analytics: packages $(VENV)/bench  ## a dashboard's questions beside SQLite and PostgreSQL; ARGS="--events 50000000 --no-peers"
	@$(BIN)/python -m bench.analytics $(ARGS)

.PHONY: sim-renewal
sim-renewal: $(VENV)/server  ## 400 days of renewals of 100,000 hosts: does anything expire, is a limit tripped?
	@$(BIN)/python -m bench.sim_renewal $(ARGS)

.PHONY: bench-pipeline
bench-pipeline: packages $(VENV)/bench  ## mails a second through milter and SMTP proxy beside ones that do nothing
	@$(BIN)/python -m bench.pipeline $(ARGS)

fuzz: $(VENV)/bench  ## coverage-guided fuzzing of the HTML reader against html5lib; FUZZ_SECONDS=600
	@$(BIN)/python -m bench.fuzz_html $(or $(FUZZ_SECONDS),600)
	@$(BIN)/python -m bench.fuzz_message $(or $(FUZZ_SECONDS),600)

.PHONY: bench-scale
bench-scale: packages $(VENV)/bench  ## what a fleet costs part by part, how fast a node joins; docs/scale.md
	@$(BIN)/python -m bench.scale $(ARGS)
