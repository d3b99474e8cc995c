.PHONY: help run build test format bench bench-peers

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Set up, build and start the server on http://localhost:8008 with its data in ./data
	@scripts/run

build: ## Set up and build the release binary, .build/release/roost
	@scripts/build

test: ## Set up and run all tests
	@scripts/test

format: ## Format all Swift files
	@swift format --in-place --parallel --recursive Package.swift Sources Tests Benchmarks Fuzz

bench: ## Measure the protocol core and the database
	@scripts/bench

bench-peers: ## Measure the whole server beside another one; see CONTRIBUTING.md
	@scripts/bench-peers
