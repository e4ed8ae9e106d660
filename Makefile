# Everything that is made or fetched along the way lies in ~/.cache/local-telepresence and target/.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

.PHONY: help demo test check fuzz images push cluster-up cluster-down bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the README's example from nothing, shown step by step (KEEP=1 leaves it up)
	@tests/cluster/with cargo run --quiet -p tests --bin demo

test: ## everything that is tested, with a real cluster (KEEP=1 leaves it up)
	@tests/cluster/with tests/run

check: ## format, lints, docs, licences
	@.ci/check

fuzz: ## each parser of what comes over the wire, given anything, for a few seconds
	@fuzz/run

images: ## telepresence-remote:dev and local-telepresence:dev into the Docker engine at hand
	@tests/cluster/rust
	@tests/cluster/engine up
	@deploy/build-images

push: ## tags both images with the version and pushes them: make push REGISTRY=registry.example.com/team
	@test -n "$(REGISTRY)" || { echo 'error: say where to: make push REGISTRY=registry.example.com/team' >&2; exit 2; }
	@$(MAKE) --no-print-directory images
	@for image in telepresence-remote local-telepresence; do \
	  docker tag $$image:dev $(REGISTRY)/$$image:$(VERSION) && docker push $(REGISTRY)/$$image:$(VERSION) || exit 1; \
	done

cluster-up: ## the test cluster with its cloud, to try things out by hand
	@tests/cluster/up

cluster-down: ## removes the cluster, and stops the Docker engine if it was started here
	@tests/cluster/down

bench: ## beside OpenSSH and kubectl port-forward, with a real cluster: docs/benchmarks.md
	@tests/cluster/with tests/bench/run

clean: cluster-down ## removes target/ and everything that was cached
	@cargo clean
	@tests/cluster/clean
