# SPDX-License-Identifier: MIT
#
# A short face of Meson and Ninja.
#
#   make                  build/mkwrite, build/libmkwrite.so, build/libmkwrite.a
#   make demo             the engine beside the kernel, then the 2012 race
#   make test             every test with gcc, clang, ASan+UBSan and TSan
#   make gcc|clang|asan|tsan    the tests of one of them
#   make soak SECONDS=n   mkwrite check and sim for a long time
#   make install          DESTDIR and PREFIX as usual
#   make clean
#
# BUILD names the build directory; the variants' are BUILD-clang and so on.

BUILD   ?= build
PREFIX  ?= /usr/local
SECONDS ?= 600
MESON   ?= meson

setup = test -f $(1)/build.ninja || $(2) $(MESON) setup $(3) $(1)
SAN   = -Dbuildtype=debugoptimized -Db_lundef=false

.PHONY: all demo test gcc clang asan tsan cross soak deps install clean

all:
	@$(call setup,$(BUILD),,--prefix=$(PREFIX))
	@ninja -C $(BUILD)

deps:
	@tools/deps

demo: deps all
	@tools/demo $(BUILD)

test: deps gcc clang asan tsan cross

gcc:
	@$(call setup,$(BUILD)-gcc,CC=gcc)
	@tools/run-tests $(BUILD)-gcc

clang:
	@$(call setup,$(BUILD)-clang,CC=clang)
	@tools/run-tests $(BUILD)-clang

asan:
	@$(call setup,$(BUILD)-asan,CC=clang,$(SAN) -Db_sanitize=address$(comma)undefined)
	@tools/run-tests $(BUILD)-asan

tsan:
	@$(call setup,$(BUILD)-tsan,CC=clang,$(SAN) -Db_sanitize=thread)
	@tools/run-tests $(BUILD)-tsan

cross:
	@tools/cross-arm64 $(BUILD)-arm64

soak: deps all
	@tools/soak $(BUILD) $(SECONDS)

install: all
	@DESTDIR=$(DESTDIR) $(MESON) install --no-rebuild -C $(BUILD)

clean:
	rm -rf $(BUILD) $(BUILD)-gcc $(BUILD)-clang $(BUILD)-asan \
		$(BUILD)-tsan $(BUILD)-arm64

comma := ,
