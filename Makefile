# Two commands do everything on a fresh Debian 12 machine: `make run` and `make test`.
B ?= build
PREFIX ?= /usr/local
REL := $(B)/release
SAN := $(B)/san
MESON ?= meson
NINJA ?= ninja

.PHONY: all build san test run check-rooms format install clean deps
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

check-rooms:
	@tools/check-rooms

format:
	@tools/format

# Below PREFIX; DESTDIR is honoured.
install: build
	$(MESON) configure $(REL) -Dprefix=$(PREFIX)
	@$(NINJA) -C $(REL) build.ninja
	$(MESON) install -C $(REL) --no-rebuild --strip

clean:
	rm -rf $(B)

.PHONY: deps-build deps-run deps-test
deps: deps-build deps-run deps-test
deps-build:
	@tools/install-deps build
deps-run:
	@tools/install-deps build run
deps-test:
	@tools/install-deps build test
