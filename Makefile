# `make` alone shows what there is. Nothing here needs the network, apart from
# Go modules and, for the tests, apt.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo build cross test lint bench fuzz clean

# In CI a skipped test is a failure.
ifeq ($(CI),true)
export AMBIT_TEST_STRICT := 1
endif

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## build, then run the demonstration: an agent at work, and attacked
	@bin/ambit demo

build: ## build bin/ambit, one static binary
	@scripts/build bin/ambit

cross: ## build dist/: linux on amd64 and arm64, and the client commands for macOS
	@GOOS=linux GOARCH=amd64 scripts/build dist/ambit-linux-amd64
	@GOOS=linux GOARCH=arm64 scripts/build dist/ambit-linux-arm64
	@GOOS=darwin GOARCH=arm64 scripts/build dist/ambit-darwin-arm64

test: ## install what the tests need (as root), then run them all
	@scripts/setup-tests
	@scripts/test

# The same flags as for build, so that gVisor is not compiled once more.
lint: ## check formatting and run the linters
	@CGO_ENABLED=0 GOFLAGS="$$(go env GOFLAGS) -trimpath" go tool -modfile=tools.mod golangci-lint run ./...

bench: ## measure, and compare with the references
	@go run ./internal/bench

fuzz: ## run every fuzz target for FUZZTIME (30s)
	@scripts/fuzz

clean: ## remove bin and dist
	@rm -rf bin dist
