# Two commands do everything on a fresh Debian 12 machine: `make run` and `make test`.
B ?= build
PREFIX ?= /usr/local
REL := $(B)/release
SAN := $(B)/san
MESON ?= meson
NINJA ?= ninja

.PHONY: all build san test fuzz run check-rooms format install uninstall image clean deps
all: build

# build/slipwayd and build/slipway: stripped release programs.
build: deps-build $(REL)/build.ninja
	@$(NINJA) -C $(REL) src/daemon/slipwayd src/cli/slipway
	@install -s $(REL)/src/daemon/slipwayd $(B)/slipwayd
	@install -s $(REL)/src/cli/slipway $(B)/slipway
	@ls -l $(B)/slipwayd $(B)/slipway

$(REL)/build.ninja:
	$(MESON) setup $(REL) --prefix=$(PREFIX) -Doptimization=2 -Ddebug=false -Dwerror=false

# The programs and unit tests with ASan and UBSan, for the tests.
san: deps-build $(SAN)/build.ninja
	@$(NINJA) -C $(SAN)

$(SAN)/build.ninja:
	$(MESON) setup $(SAN) -Doptimization=1 -Ddebug=true -Dwerror=false -Db_sanitize=address,undefined -Db_lundef=false

test: deps-test
	@$(MAKE) --no-print-directory san
	@tools/run-tests $(B)

run: deps-run
	@$(MAKE) --no-print-directory build
	@tools/run-example $(B)

# libFuzzer on each target of tests/fuzz for SECONDS (needs clang); `make test` runs their seeds without it. TARGETS: some of them.
SECONDS ?= 60
fuzz: deps-build
	@tools/fuzz $(B) $(SECONDS) $(TARGETS)

check-rooms:
	@tools/check-rooms

format:
	@tools/format

# Programs, manual pages and shell completions below PREFIX; DESTDIR is honoured.
#   DOCKER_PLUGIN=yes   also lib/docker/cli-plugins/docker-buildx: `docker build` and `docker buildx` call slipway then
#   COMPAT_NAMES=yes    also the names buildkitd and buildctl
DOCKER_PLUGIN ?= no
COMPAT_NAMES ?= no
bool = $(if $(filter yes true 1,$(1)),true,false)
MESON_INSTALL = $(MESON) install -C $(REL) --no-rebuild --quiet --strip
configure-install: build
	@$(MESON) configure $(REL) -Dprefix=$(PREFIX) -Ddocker_plugin=$(call bool,$(DOCKER_PLUGIN)) -Dcompat_names=$(call bool,$(COMPAT_NAMES))
	@$(NINJA) -C $(REL) src/daemon/slipwayd src/cli/slipway >/dev/null

install: configure-install
	$(MESON_INSTALL) $(if $(DESTDIR),--destdir $(abspath $(DESTDIR)))

# What `install` with the same settings would write, and nothing else. Folders stay.
uninstall: configure-install
	@rm -rf $(B)/stage
	@$(MESON_INSTALL) --destdir $(abspath $(B)/stage)
	@cd $(B)/stage && find . ! -type d | sed 's/^\.//' | while read -r f; do echo "rm $(DESTDIR)$$f"; rm -f "$(DESTDIR)$$f"; done
	@rm -rf $(B)/stage

# build/image.tar: the release image, built by the programs in build/. See docs/image.md and tools/mkimage.
#   TWICE=yes    let the daemon in the image build it again, and compare
#   ROOTLESS=yes                 also build/image-rootless.tar
#   BASE=debian:bookworm-slim    take this base, where Docker Hub can be reached; without it mmdebstrap makes one
image: deps-image
	@$(MAKE) --no-print-directory build
	@BASE=$(BASE) ROOTLESS=$(ROOTLESS) tools/mkimage $(if $(filter yes 1,$(TWICE)),--twice) $(B)

clean:
	rm -rf $(B)

.PHONY: deps-build deps-run deps-test deps-image configure-install
deps: deps-build deps-run deps-test
deps-build:
	@tools/install-deps build
deps-run:
	@tools/install-deps build run
deps-test:
	@tools/install-deps build test
deps-image:
	@tools/install-deps build mkimage
