.PHONY: help run build test format bench

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Set up, build and start the server on http://localhost:8008 with its data in ./data
	@scripts/run

build: ## Set up and build the release binary, .build/release/roost
	@scripts/build

test: ## Set up and run all tests
	@scripts/test

format: ## Format all Swift files
	@swift format --in-place --parallel --recursive Package.swift Sources Tests

bench: ## Measure the release build; see CONTRIBUTING.md
	@scripts/bench
