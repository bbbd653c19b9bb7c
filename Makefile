# make help tells what there is. CI calls only what stands here.
.DEFAULT_GOAL := help
.PHONY: bench browser clean consul demo generate help lint mutants race soak test test-matrix test-modules test-root verify verify-backends verify-backends-knockouts verify-knockouts

GO    ?= go
TOOLS := bin/sqlc bin/staticcheck
# What programs link: the standard library alone is below it.
LIBRARY := . ./pglock ./pginspect ./lockweb ./memlock ./filelock ./migrations ./locktest ./multilock ./semaphore ./election ./chain ./shard ./leaselock ./leaselock/migrations
# Modules of their own, with the dependencies that only they need.
MODULES := $(wildcard adapters/* backends/*) lockweb/browser metrics metrics/otel metrics/prometheus

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-26s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the main job on real processes and a PostgreSQL of its own (20 s)
	@$(GO) run ./cmd/swanlock demo

# Both parts run at the same time, since most tests wait; their servers are copies of one cluster. pglock's take longest, and
# so begin first. make verify vets. Without debugging information, linking them takes half as long.
test: ## every test, unit and integration, with the race detector
	@template=$$(mktemp -d) && trap 'rm -rf "$$template"' EXIT && \
		SWANLOCK_PG_TEMPLATE=$$template $(MAKE) --no-print-directory -j2 test-root test-modules

test-root:
	$(GO) test -race -shuffle=on -vet=off -ldflags=-s -timeout 30m ./pglock ./...

test-modules:
	@set -e; for module in $(MODULES); do (cd $$module && $(GO) test -race -shuffle=on -vet=off -ldflags=-s ./...); done

test-matrix: ## the integration tests on PostgreSQL 14 to 18, each driver in each of its modes (VERSIONS="14 18" SHORT=-short: less)
	tools/matrix $(VERSIONS) -- $(SHORT) -timeout 20m ./pglock
	SWANLOCK_DRIVERS=$${SWANLOCK_DRIVERS:-postgres,pgx} tools/matrix $(VERSIONS) -- $(SHORT) ./internal/pgserver ./cmd/swanlock ./pginspect

race: ## the fast tests 20 times over, in random order
	$(GO) test -race -shuffle=on -short -count=20 -timeout 90m ./...

lint: bin/staticcheck ## gofmt, vet, staticcheck
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "run gofmt -w on: $$unformatted"; exit 1; }
	$(GO) vet ./...
	bin/staticcheck ./...

verify: lint bin/sqlc ## lint, and: generated code, SQL, go.mod and dependencies are as they should be
	bin/sqlc diff
	$(GO) test ./internal/sqlnames
	$(GO) run ./cmd/swanlock dev -- sh -c '$(GO) run ./internal/leasetable && bin/sqlc vet'
	$(GO) mod tidy -diff
	cd tools && $(GO) mod tidy -diff
	@set -e; for module in bench $(MODULES); do (cd $$module && $(GO) mod tidy -diff && $(GO) vet ./... && $(CURDIR)/bin/staticcheck ./...); done
	@foreign=$$($(GO) list -deps -f '{{if not .Standard}}{{.ImportPath}}{{end}}' $(LIBRARY) | grep -v '^github.com/swanlake-io/swanlock'); \
		test -z "$$foreign" || { echo "linked into users' programs: $$foreign"; exit 1; }

verify-knockouts: ## swanlock verify finds each guarantee that is taken out of a build (20 minutes)
	SWANLOCK_KNOCKOUTS=1 $(GO) test -run 'TestKnockouts$$' -v -count=1 -timeout 90m ./internal/verify

verify-backends: ## a minute of torture for each locker that is not PostgreSQL's: kill, stop, cut and restart (DURATION=5m: longer)
	cd backends/verify && SWANLOCK_VERIFY=$(or $(DURATION),1m) $(GO) test -run 'TestBackends$$' -v -count=1 -timeout 90m .

verify-backends-knockouts: ## it finds what is taken out of them (15 minutes)
	cd backends/verify && SWANLOCK_KNOCKOUTS=1 $(GO) test -run 'TestKnockouts$$' -v -count=1 -timeout 90m .

soak: ## a steady load for 10 minutes; its memory, connections and locks stay flat (DURATION=2h: longer)
	$(GO) run ./internal/soak -duration $(or $(DURATION),10m)

mutants: ## the tests of pglock find the defects that are put into it (SINCE=main: into what has changed since; MUTANT=pattern: those)
	$(GO) run ./internal/mutate -since '$(SINCE)' -mutant '$(MUTANT)'

bench: ## swanlock against its floors and peers, with a table at the end (15 minutes)
	cd bench && $(GO) run .

browser: ## the page of lockweb in a real Chromium, in every state (SWANLOCK_SCREENSHOTS=folder: pictures of them)
	cd lockweb/browser && $(GO) test -v -count=1 -timeout 15m .

consul: ## Consul, for the tests of backends/consullock, into the user's cache (10 minutes, once; without it they do not run)
	cd tools/consul && $(GO) run ./build

generate: bin/sqlc ## db/ from queries/ and migrations/
	bin/sqlc generate

clean: ## what make has built
	rm -rf bin

$(TOOLS) &: tools/go.mod tools/go.sum
	cd tools && $(GO) build -o ../bin/ tool
