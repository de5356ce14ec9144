# The two commands of the README are `make demo` and `make test`. Each installs what it needs by itself.

GO       ?= go
BIN      := bin
DISKS    := cryptsetup-bin qemu-utils e2fsprogs openssl libnbd-bin nbdkit btrfs-progs
SERVERS  := postgresql azure-cli
AZ       := azure-cli libnss-myhostname
PEERS    := restic borgbackup virtnbdbackup
LIVE     := libvirt-daemon-system polkitd dbus-daemon apparmor libvirt-clients qemu-system-x86 busybox-static cpio kmod mtools dosfstools fdisk linux-image-cloud-amd64 ovmf swtpm swtpm-tools
AZURITE  := $(BIN)/azurite
TOFU     := $(BIN)/tofu

# SQLite is C that was translated into Go. Its memory is not Go's, so that the race detector sees nothing in it and only slows it
# down, to half: it looks at all but that.
RACE     := -race -gcflags=modernc.org/sqlite/lib=-race=false

.PHONY: help
help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/kluis
	@mkdir -p $(BIN)
	$(GO) build -trimpath -o $(BIN)/kluis ./cmd/kluis

.PHONY: demo
demo: build ## an encrypted VM is backed up, lost, and comes back (DEMO_SIZE=2GiB for more)
	@scripts/install $(DISKS)
	@$(GO) run ./demo -kluis $(BIN)/kluis

.PHONY: demo-vm
demo-vm: build ## an encrypted VM that runs under libvirt is backed up, lost, and boots again
	@scripts/install $(DISKS) $(LIVE)
	@scripts/with-libvirt $(GO) run ./demo -live -kluis $(BIN)/kluis

.PHONY: test
test: check race live clients az cloud ## everything: format, vet, lint, all tests with the race detector, VMs that run, other people's clients, S3 and Azure

.PHONY: check
check: format vet lint ## format, vet and lint

.PHONY: format
format: ## fail if a file is not gofmt-ed
	@unformatted=$$(gofmt -l bench cmd demo internal test); if [ -n "$$unformatted" ]; then echo "not gofmt-ed:"; echo "$$unformatted"; exit 1; fi

.PHONY: vet
vet:
	$(GO) vet ./...
	cd test/clients && $(GO) vet ./...
	cd test/cloud && $(GO) vet ./...

.PHONY: lint
lint: $(BIN)/golangci-lint ## run golangci-lint, pinned in tools/go.mod
	$(BIN)/golangci-lint run ./...

$(BIN)/golangci-lint: tools/go.mod
	@mkdir -p $(BIN)
	cd tools && $(GO) build -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

# Whatever a test needs must be there: with KLUIS_TEST_REQUIRE set, what would be skipped fails.
.PHONY: race
race: ## all tests with the race detector
	@scripts/install $(DISKS) $(SERVERS)
	KLUIS_TEST_REQUIRE=1 $(GO) test $(RACE) -timeout 30m $$($(GO) list ./... | grep -v '/test/az$$')

# A guest is emulated in software, by one processor: two packages run beside each other. The program that they run is built by
# themselves, so that go cannot know when what they showed is still true: -count=1.
.PHONY: live
live: ## VMs that run, under a libvirt daemon of this machine
	@scripts/install $(DISKS) $(LIVE)
	KLUIS_TEST_REQUIRE=1 KLUIS_TEST_LIBVIRT=1 scripts/with-libvirt $(GO) test -count=1 $(RACE) -p 2 -timeout 20m ./internal/fabric/libvirt ./test/live
	KLUIS_TEST_REQUIRE=1 KLUIS_TEST_LIBVIRT=1 scripts/with-libvirt $(GO) test -count=1 -timeout 10m -run 'OfAHost|OnAHost' ./cmd/kluis

.PHONY: clients
clients: ## the official Azure clients and Terraform's, unmodified, against a server
	@scripts/install $(DISKS)
	cd test/clients && KLUIS_TEST_REQUIRE=1 $(GO) test -count=1 -timeout 20m ./...

# An az waits more than it works, so more stories run beside each other than there are processors. Here and there the server is
# built by the tests: -count=1, as above.
.PHONY: az
az: ## the real az, azure-cli from Debian, against a server
	@scripts/install $(DISKS) $(AZ)
	KLUIS_TEST_REQUIRE=1 $(GO) test -count=1 -timeout 20m -parallel 6 ./test/az

# OpenTofu and the azurerm provider take twenty minutes to build on two processors; what is built is kept.
.PHONY: test-tofu
test-tofu: $(TOFU)/tofu $(TOFU)/terraform-provider-azurerm ## OpenTofu with the azurerm provider against a server (builds both: twenty minutes)
	@scripts/install $(DISKS)
	KLUIS_TEST_REQUIRE=1 KLUIS_TEST_TOFU=$(CURDIR)/$(TOFU) $(GO) test -timeout 20m -count=1 ./test/tofu

$(TOFU)/tofu: test/tofu/opentofu/go.mod
	@mkdir -p $(TOFU)
	cd test/tofu/opentofu && $(GO) build -p 1 -o $(CURDIR)/$@ github.com/opentofu/opentofu/cmd/tofu

$(TOFU)/terraform-provider-azurerm: test/tofu/azurerm/go.mod
	@mkdir -p $(TOFU)
	cd test/tofu/azurerm && $(GO) build -p 1 -o $(CURDIR)/$@ github.com/hashicorp/terraform-provider-azurerm

# Azurite needs a newer Node than Debian has from 3.36 on.
.PHONY: cloud
cloud: ## recovery stores in S3 and in Azure Blob Storage, on servers that the tests start
	@command -v npm >/dev/null || scripts/install nodejs npm
	@test -x $(AZURITE)/node_modules/.bin/azurite-blob || npm install --silent --no-fund --no-audit --prefix $(AZURITE) azurite@3.35.0
	@scripts/install $(DISKS)
	cd test/cloud && KLUIS_TEST_REQUIRE=1 KLUIS_TEST_AZURITE=$(CURDIR)/$(AZURITE) $(GO) test -timeout 30m ./...

.PHONY: fuzz
fuzz: ## fuzz every parser of outside bytes for FUZZTIME each (default 30s)
	@scripts/fuzz $(or $(FUZZTIME),30s)

.PHONY: crash
crash: ## kill the real binary at random in backup, deletion and collection, KILLS times (default 500)
	KLUIS_KILLS=$(or $(KILLS),500) $(GO) test -run TestStoreKilledAtRandom -timeout 2h -v ./cmd/kluis

.PHONY: bench
bench: build ## measure the store beside cp, restic and borg, the server, NBD, and VMs that run beside virtnbdbackup; writes docs/performance.md (half an hour, 30 GiB)
	@scripts/install $(DISKS) $(SERVERS) $(PEERS) $(LIVE)
	scripts/with-libvirt $(GO) run ./bench -kluis $(BIN)/kluis -write docs/performance.md

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)
