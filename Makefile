# SPDX-License-Identifier: MIT
#
# A short face of Meson and Ninja.
#
#   make                  build/mkwrite, build/libmkwrite.so, build/libmkwrite.a
#   make demo             the engine beside the kernel, then the 2012 race
#   make test             every test with gcc, clang, ASan+UBSan and TSan
#   make gcc|clang|asan|tsan    the tests of one of them
#   make cross            the library compiled for arm64
#   make test-kernels     the tests of real faults under Linux 6.1 and 6.12, in qemu
#   make soak SECONDS=n   mkwrite check and sim for a long time
#   make dist             the sources of this commit as mkwrite-VERSION.tar.xz
#   make check-abi        the library against that of the last tag
#   make package          the Debian packages, in BUILD-debian (DEB_BUILD_OPTIONS=nocheck
#                         is faster)
#   make test-package     those, installed in a fresh Debian 12, with every example
#                         built and run there (root)
#   make install          DESTDIR and PREFIX as usual
#   make clean
#
# BUILD names the build directory; the variants' are BUILD-clang and so on.

BUILD   ?= build
PREFIX  ?= /usr/local
SECONDS ?= 300
MESON   ?= meson

setup = test -f $(1)/build.ninja || $(2) $(MESON) setup $(3) $(1)
comma := ,
setup_gcc   = $(call setup,$(BUILD)-gcc,CC=gcc)
setup_clang = $(call setup,$(BUILD)-clang,CC=clang)
setup_asan  = $(call setup,$(BUILD)-asan,CC=clang,-Db_lundef=false -Db_sanitize=address$(comma)undefined)
setup_tsan  = $(call setup,$(BUILD)-tsan,CC=clang,-Db_lundef=false -Db_sanitize=thread)
variants    = gcc clang asan tsan

.PHONY: all deps demo test $(variants) cross test-kernels soak dist check-abi \
	package test-package install clean

all:
	@$(call setup,$(BUILD),,--prefix=$(PREFIX))
	@ninja -C $(BUILD)

deps:
	@tools/deps

demo: deps all
	@tools/demo $(BUILD)

test: deps
	@$(setup_gcc)
	@$(setup_clang)
	@$(setup_asan)
	@$(setup_tsan)
	@tools/run-tests $(variants:%=$(BUILD)-%)

$(variants): deps
	@$(setup_$@)
	@tools/run-tests $(BUILD)-$@

cross:
	@tools/cross-arm64 $(BUILD)-arm64 $(BUILD)-debian

test-kernels: deps
	@$(setup_gcc)
	@ninja -C $(BUILD)-gcc --quiet
	@tools/test-kernels $(BUILD)-gcc

soak: deps all
	@tools/soak $(BUILD) $(SECONDS)

dist:
	@tools/dist

check-abi: all
	@tools/check-abi $(BUILD) || test $$? -eq 77

package:
	@tools/package $(BUILD)-debian

test-package: package
	@tools/test-package $(BUILD)-debian || test $$? -eq 77

install: all
	@DESTDIR=$(DESTDIR) $(MESON) install --no-rebuild -C $(BUILD)

clean:
	rm -rf $(BUILD) $(variants:%=$(BUILD)-%) $(BUILD)-arm64 $(BUILD)-debian
