# Everything a builder of mxpipe runs. "make test" is all of it.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.version=$(VERSION)
TOOL     = $$(go -C internal/tools tool -n $(1))
FUZZTIME ?= 30s
BENCHROUNDS ?= 5

.PHONY: attacks burden chaos killmatrix receivers siege soak traffic build demo dashboard test unit bench bench-docs microbench lint fuzz needs packages packages-test install release docs clean debian rpm

build:
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/ ./cmd/mxpipe ./cmd/mxpolicyd

# Delivers mail through both programs to an internet on loopback.
demo: build
	@go run ./internal/lab/demo -bin bin

# What every query of the Grafana dashboard returns from a real Prometheus that
# watches mxpolicyd deliver to that internet.
dashboard: needs
	go test -count 1 -v -run TestDashboard ./e2e/prometheus

# Unit tests, the seeds of the fuzz targets, the lab, and the real servers.
test: needs lint
	$(call TOOL,gotestsum) --format pkgname-and-test-fails --hide-summary=output -- -race -timeout 15m ./...
	go -C bench/plot test .

# The same without real mail servers.
unit:
	$(call TOOL,gotestsum) --format pkgname-and-test-fails -- -race $$(go list ./... | grep -v -e /e2e -e /packaging)

lint:
	@test -z "$$(gofmt -l . | tee /dev/stderr)"
	go vet ./...
	go -C bench/plot vet ./...
	$(call TOOL,staticcheck) ./...
	@cd docs && mandoc -T lint -W style *.[1578] && sh markdown.sh check
	@VULNDB='$(VULNDB)' sh internal/tools/vulncheck.sh "$(call TOOL,govulncheck)"

# The servers that the tests drive: installed as root on Debian, otherwise
# named.
needs:
	@sh e2e/needs.sh

# The whole of mxpipe, measured on this machine in some minutes: a table, and
# bench/results/ with all values and plots. BENCHFLAGS=-list tells what there
# is, BENCHFLAGS="-only idle" chooses; with flags the results stay as they are.
# "make bench-docs" puts the table of the last whole run into
# docs/performance.md.
bench: build
	@sh e2e/needs.sh bench
	@mkdir -p bench/results
ifeq ($(BENCHFLAGS),)
	go run ./bench -bin bin -rounds $(BENCHROUNDS) -json bench/results/latest.json
	go -C bench/plot run . ../results/latest.json ../results
else
	go run ./bench -bin bin -rounds $(BENCHROUNDS) $(BENCHFLAGS)
endif

bench-docs:
	go run ./bench -json bench/results/latest.json -doc docs/performance.md

# Go's benchmarks of single packages.
microbench:
	@mkdir -p bench/results
	go test -run '^$$' -bench . -benchmem -count 5 ./... | tee bench/results/micro.txt
	$(call TOOL,benchstat) bench/results/micro.txt

# Every fuzz target for FUZZTIME each, or those that FUZZ is a part of the name
# of: make fuzz FUZZ=transport/reply. What they learn is kept.
fuzz:
	@sh internal/tools/fuzz.sh $(FUZZTIME) $(FUZZ)

# Packages of every kind for amd64 and arm64, in dist/.
packages:
	sh packaging/build.sh $(VERSION) dist

# Debian's source package in dist/debian, built without a network in a clean
# Debian 13 (with the Go of its backports), looked at and used there. Root; ten
# minutes.
SUITES ?= trixie
debian:
	@sh e2e/needs.sh debian
	sh packaging/debian.sh $(VERSION) dist/debian $(SUITES)

# The rpm of the spec, from the same tarball, with the files of the release's.
rpm: debian
	@sh e2e/needs.sh packages
	sh packaging/rpm.sh $(VERSION) dist/debian

# The life of a package in a machine of its own, which boots systemd: installed,
# upgraded under load, taken back, removed. Root on Debian; ten minutes.
packages-test:
	@sh e2e/needs.sh packages
	sh packaging/machine/image.sh bin/machine
	go test -tags machine -count 1 -timeout 30m -v ./packaging/machine

# Everything but the packages' own scripts: then "systemd-sysusers",
# "systemd-tmpfiles --create" and "systemctl enable --now mxpolicyd.socket"
# finish the job.
install:
	sh packaging/build.sh $(VERSION) "$(DESTDIR)/" any

# Packages, programs, what these are made of, and checksums, in dist/.
release:
	sh packaging/release.sh $(VERSION) dist

# The manual pages as Markdown, to be read where there is no man.
docs:
	@sh docs/markdown.sh

# Everything fails that can, for minutes, and nothing may be lost: a long run of
# what "make test" has a short one of.
CHAOS      ?= 5000
CHAOS_TIME ?= 5m
chaos: needs
	go test ./e2e -run '^TestChaos$$' -v -count 1 -timeout 2h -args -chaos $(CHAOS) -chaos-time $(CHAOS_TIME)

# A receiver of 400 domains that takes 20 connections and 50 messages a second:
# by a daemon that minds nothing, one as it comes, and one with a limit for the
# provider. It takes an hour, or less with a smaller TRAFFIC.
TRAFFIC ?= 50000
traffic: needs
	go test ./e2e -run '^(TestTraffic|TestSuspendUnderLoad|TestFloodedDestination)$$' -parallel 1 -v -count 1 -timeout 3h -args -traffic $(TRAFFIC) -traffic-domains 400 -traffic-report $(CURDIR)/bench/results/traffic.json
	go -C bench/plot run . ../results/traffic.json ../results

# Each party dies at each stage of a message, by each way of Postfix and Exim,
# and nothing may be lost or arrive twice: all of what "make test" has a part
# of.
killmatrix: needs
	go test ./e2e -run '^TestKillMatrix$$' -v -count 1 -timeout 1h -args -killmatrix

# Messages to real servers of all makes, cold, warm and over connections that
# end: what "make test" has, and Haraka from npm.
receivers:
	@sh e2e/needs.sh receivers
	go test ./e2e -run '^TestRealReceivers$$' -v -count 1 -timeout 10m -args -receivers

# Many messages by LMTP to domains that change all the time: what mxpolicyd
# needs at the start, in the middle and in the end.
SOAK         ?= 200000
SOAK_DOMAINS ?= 2000
soak:
	go test ./e2e/soak -v -count 1 -timeout 6h -args -messages $(SOAK) -domains $(SOAK_DOMAINS)

# Everybody attacks one mxpolicyd at once, beside ten good messages a second;
# and each attack alone, with what it costs: before, at the worst, and after.
SIEGE ?= 5m
siege:
	go test ./e2e/siege -run '^TestSiege$$' -v -count 1 -timeout 1h -args -long -scale 1 -peace 1m -siege $(SIEGE)

attacks:
	go test ./e2e/siege -run '^TestEachAttack$$' -v -count 1 -timeout 2h -args -each all -scale 1 -attack 20s

# A thousand deliveries of 25 MB, held by slow servers: 25 GB of disk, for
# minutes.
burden: needs
	go test ./e2e -run '^TestHeldDeliveries$$' -v -count 1 -timeout 2h -args -held 1000 -held-size 25000000

# Postfix and mxpolicyd before the same real TLS servers: all of
# docs/handshakes.md, of which "make test" has a selection.
# HANDSHAKES=-write-handshakes writes its table.
.PHONY: handshakes
handshakes: needs
	@sh e2e/needs.sh handshakes
	go test ./e2e -run '^TestHandshakes$$' -v -count 1 -timeout 1h -args -handshakes $(HANDSHAKES)

clean:
	rm -rf bin dist
