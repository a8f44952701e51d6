# The two commands a newcomer needs: `make test` and `make demo`.

CARGO ?= cargo
# A stale lock file is a change nobody reviewed.
LOCKED := --locked

.PHONY: help test test-full demo services preflight format lint tidy build

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: preflight format lint build services ## everything that must hold before a change lands
	$(CARGO) test $(LOCKED) --test tidy
	$(CARGO) test $(LOCKED) --lib
	$(CARGO) test $(LOCKED) --test services

test-full: test ## what takes longer: wide property tests, release build, a timed demo
	POSTRIDER_PROPERTY_SECONDS=20 $(CARGO) test $(LOCKED) --lib
	DEMO_SECONDS=10 $(MAKE) demo
	$(CARGO) build $(LOCKED) --release --bins

demo: preflight services ## start Postgres and Kafka, make the outbox table, say what runs where
	./target/debug/drill up

services: build ## fetch Postgres 13-18, Kafka, psql and promtool once, into .services
	./target/debug/drill services fetch

preflight:
	@sh tests/preflight.sh

format:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy $(LOCKED) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --no-deps --document-private-items

tidy: ## the house style alone
	$(CARGO) test $(LOCKED) --test tidy

# Always all targets: tests give some dependencies more features, and a build without them would
# compile those again, back and forth.
build:
	$(CARGO) build $(LOCKED) --all-targets
