# Verbs of the project. `make demo` and `make test` set everything up by themselves: Python >= 3.11 and make are enough.
SHELL := /bin/bash
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard protos/t2i_protos/v1/*.proto)
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo demo-models test e2e e2e-soak e2e-auto e2e-results e2e-up e2e-down kube-assets valkey-assets browser-assets s3-assets grpcurl-assets foreign-clients \
  screenshots lint format \
  protos crds chart verify lock train-scenes distil-scenes bench clean bench-crd bench-operator bench-simulator bench-engine \
  bench-gateway bench-scenes bench-starts bench-levels bench-policy bench-models bench-models-real bench-carried bench-batching bench-decide bench-predictor bench-probe bench-eviction bench-false-neighbours \
  bench-tenant-timing bench-quality bench-several-gateways bench-cache bench-pipelines bench-gpu

help:  ## List the verbs
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(STAMP)  ## Create .venv with the locked dependencies

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

demo: $(STAMP)  ## Serve 48+ captions through a local pool; build/demo/contact-sheet.png and summary.json
	$(BIN)/t2ictl demo --out build/demo

demo-models: $(STAMP)  ## The same through a pool of two models, which some captions demand; build/demo-models
	$(BIN)/t2ictl demo --pool examples/pool-two-models.yaml --out build/demo-models

test: lint kube-assets valkey-assets browser-assets s3-assets grpcurl-assets foreign-clients  ## Lint, then every test
	$(BIN)/python -m t2i_testing_kit.lanes

kube-assets: $(STAMP)  ## Get etcd, kube-apiserver, kubectl, helm for tests: KUBEBUILDER_ASSETS, or one build with Go
	@$(BIN)/python -m t2i_testing_kit.kube.assets

valkey-assets: $(STAMP)  ## Get a Valkey server for tests: VALKEY_SERVER, one on PATH, or Debian's package, unpacked
	@$(BIN)/python -m t2i_testing_kit.valkey.assets

browser-assets: $(STAMP)  ## Get a Chromium for tests: CHROMIUM, one on PATH, or Debian's package, unpacked
	@$(BIN)/python -m t2i_testing_kit.browser.assets

s3-assets: $(STAMP)  ## Get a server that speaks S3 for tests: moto, in a folder of its own
	@$(BIN)/python -m t2i_testing_kit.s3_server

grpcurl-assets: $(STAMP)  ## Get grpcurl for a test: GRPCURL, one on PATH, or one build with Go
	@$(BIN)/python -m t2i_testing_kit.grpcurl

foreign-clients: $(STAMP)  ## Get LiteLLM and LangChain for tests, in an environment of their own
	@$(BIN)/python -m t2i_testing_kit.foreign_clients.environment

screenshots: browser-assets  ## Pictures of the playground, of a real local pool -> docs/images
	$(BIN)/python -m t2i_testing_kit.browser.screenshots

# Root on Linux, or E2E_KUBECONFIG=FILE E2E_REGISTRY=... E2E_TAG=... for a cluster of yours.
E2E ?= tests/e2e
e2e: $(STAMP)  ## Everything at once on a real node: images, chart, pool, faults -> build/bench/e2e.json (E2E=FILE: some)
	PYTHONPATH=tests/e2e $(BIN)/python -m e2e_prepare
	$(BIN)/python -m pytest -v --tb=short --timeout 900 $(E2E)

e2e-soak: $(STAMP)  ## Twenty minutes of load with random faults, looking for leaks -> build/bench/e2e.json
	E2E_SOAK_S=1200 $(BIN)/python -m pytest -v --tb=short --timeout 2400 tests/e2e/soak.py

e2e-auto: $(STAMP)  ## A load step on the embedded model, planned, cache only, exact only -> build/bench/e2e-auto.json
	$(BIN)/python -m pytest -v --tb=short --timeout 2400 tests/e2e/auto.py

e2e-results: $(STAMP)  ## bench/results/e2e.md and its plot from what the e2e verbs measured
	$(BIN)/python -m bench.e2e.run $(ARGS)

e2e-up: $(STAMP)  ## Keep a local node: then E2E_KUBECONFIG=(what it prints) make e2e
	PYTHONPATH=tests/e2e $(BIN)/python -m local_node up

e2e-down: $(STAMP)  ## End the local node, also one that a killed run left
	PYTHONPATH=tests/e2e $(BIN)/python -m local_node down

lint: $(STAMP)  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)  ## Apply ruff's fixes and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(STAMP)  ## Regenerate the gRPC code from protos/
	$(BIN)/python -m grpc_tools.protoc -I protos --python_out=protos --mypy_out=quiet:protos \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc $(PROTOS)
	$(BIN)/python -m grpc_tools.protoc -I protos --grpc_python_out=protos --mypy_grpc_out=quiet:protos \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc $(filter-out %/level.proto %/drawing.proto,$(PROTOS))

crds: $(STAMP)  ## Regenerate crds/ from the pool's classes
	@mkdir -p crds
	$(BIN)/python -m t2i_api.crd > crds/t2iservingpools.yaml

chart: crds kube-assets  ## Copy crds/ into the chart, regenerate the golden files of its templates
	cp crds/*.yaml charts/t2i-serving/files/crds/
	PYTHONPATH=tests/support $(BIN)/python -m helm_chart

verify: protos chart  ## Regenerate and check that nothing changed
	git diff --exit-code -- protos crds charts tests/chart/golden

lock:  ## Resolve requirements.lock anew (hashes, no index addresses)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal \
	  --generate-hashes --no-emit-index-url --quiet --custom-compile-command "make lock" -o requirements.lock

train-scenes: $(STAMP)  ## Train the embedded model from scratch (about an hour on 2 cores) into build/scenes
	$(BIN)/python -m t2i_scenes.train --out build/scenes

distil-scenes: $(STAMP)  ## Distil the embedded model to few unguided steps (an hour on 2 cores) into build/distil
	$(BIN)/python -m t2i_scenes.distil --out build/distil

bench: bench-decide bench-engine bench-gateway bench-scenes bench-crd bench-operator  ## Every benchmark

# `make bench-NAME ARGS=--help` lists a benchmark's options, `ARGS=--quick` tries it in under a minute. Files of yours:
# PROMPTS=FILE and ARRIVALS="FILE ..."; a benchmark that needs one says what it must hold.
BENCH = $(BIN)/python -m bench.$(subst -,_,$(@:bench-%=%)).run $(ARGS)
FILES = $(if $(PROMPTS),--prompts $(PROMPTS)) $(if $(ARRIVALS),--arrivals $(ARRIVALS))
bench-simulator bench-policy bench-models bench-carried bench-batching bench-eviction bench-cache bench-pipelines bench-quality bench-models-real: export OMP_NUM_THREADS = 1

bench-decide: $(STAMP)  ## A request's decision and a plan, timed -> build/bench/decide.json
	$(BENCH)

bench-simulator: $(STAMP)  ## The simulator's own speed, a day of 64 workers -> build/bench/simulator.json
	$(BENCH)

bench-engine: $(STAMP)  ## Engine against a bare diffusers loop -> build/bench/engine.json
	$(BENCH)

bench-pipelines: $(STAMP)  ## The engine against stock pipelines of every family -> docs/models.md
	$(BENCH)

bench-gpu: $(STAMP)  ## Full-size models on one GPU, 10 minutes (ARGS=--dry-run: tiny, CPU) -> bench/results/gpu.md
	$(BENCH)

bench-gateway: $(STAMP)  ## Both doors of the gateway beside bare relays -> bench/results/gateway.md
	$(BENCH)

bench-several-gateways: $(STAMP)  ## Gateways that share an overloaded pool -> build/bench/several-gateways.json
	$(BENCH)

bench-tenant-timing: $(STAMP)  ## Does the clock tell one tenant what another cached? -> build/bench/tenant-timing.json
	$(BENCH)

bench-quality: $(STAMP)  ## Promised and measured quality, drift, what audits cost -> bench/results/quality.md
	$(BENCH)

bench-crd: kube-assets  ## Every change of every field against a real API server -> build/bench/crd-campaign.json
	$(BENCH)

bench-operator: kube-assets  ## 1000 pools: readiness, restart, 10 idle minutes, a load step -> bench/results/operator.md
	$(BENCH)

bench-scenes: $(STAMP)  ## Quality by level and similarity -> bench/results/scenes-quality.md
	$(BENCH)

bench-starts: $(STAMP)  ## Stored latents as starts, by the run that left them -> bench/results/starts.md
	$(BENCH)

bench-levels: $(STAMP)  ## Forecasts, guidance tails, solvers, skips: loss by time -> bench/results/levels.md
	$(BENCH)

bench-false-neighbours: $(STAMP)  ## Near prompts that ask for another picture (PROMPTS=) -> bench/results/false-neighbours.md
	$(BENCH) $(if $(PROMPTS),--prompts $(PROMPTS))

bench-probe: $(STAMP)  ## Early looks at runs: what they foresee, and what acting upon them gains -> bench/results/probe.md
	$(BENCH)

bench-predictor: $(STAMP)  ## Precision of the learned predictor -> bench/results/predictor.md
	$(BENCH)

bench-policy: $(STAMP)  ## Every policy on the same traces (PROMPTS=, ARRIVALS=) -> bench/results/policy.md
	$(BENCH) $(FILES)

bench-models: $(STAMP)  ## Pools of several models: plans, policies, the map's worth (PROMPTS=, ARRIVALS=) -> bench/results/models.md
	$(BENCH) $(FILES)

bench-models-real: $(STAMP)  ## Two models in a real pool: promised and measured quality, lost requests -> bench/results/models-real.md
	$(BENCH)

bench-carried: $(STAMP)  ## Load carried at 5 % violations, and at 95 % quality (PROMPTS=, ARRIVALS=) -> bench/results/carried.md
	$(BENCH) $(FILES)

bench-batching: $(STAMP)  ## Dispatch alone: whole batches against step-level ones -> bench/results/batching.md
	$(BENCH)

bench-eviction: $(STAMP)  ## Steps saved by eviction policy (PROMPTS=) -> bench/results/eviction.md
	$(BENCH) $(if $(PROMPTS),--prompts $(PROMPTS))

bench-cache: valkey-assets  ## Lookup, recall, turnover, rebuild, fetch; an hour (PROMPTS= adds real ones) -> bench/results/cache.md
	$(BENCH) $(if $(PROMPTS),--prompts $(PROMPTS))

clean:  ## Remove build outputs, keep .venv
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
