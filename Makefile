# SPDX-License-Identifier: BSD-2-Clause
# make            everything, into build/          make check   all tests
# make unit       only the unit tests              make demo    see it work
# make check-long what takes longer                make bench-nvme  what a read costs the NVMe driver
# make bench      everything that is measured      make bench-store PAIRS=3  what the store is judged by
# make O=DIR      build elsewhere                  make SAN=asan|tsan   with a sanitizer, into O/asan, O/tsan
# make LAYERS="base bdev" unit                     only these layers of the library and their unit tests
# Files are found by wildcards: a new file needs no change here.

DEPS := build-essential pkg-config libdpdk-dev libnuma-dev libbsd-dev liburing-dev libisal-dev uuid-dev \
	libblkid-dev libjson-c-dev libfuse3-dev fuse3 liburcu-dev librocksdb-dev rocksdb-tools libgtest-dev \
	libsodium-dev libedit-dev sqlite3 git attr acl procps python3 e2fsprogs fdisk \
	qemu-system-x86 busybox-static kmod
DEPS_BENCH := valgrind fio
DEPS_FUZZ := clang libclang-rt-14-dev
DEPS_LINT := clang-format clang-tidy cppcheck

O ?= build
CONFIG := $(O)/config.mk
NO_CONFIG := clean deps distclean format lint help
ifneq ($(filter-out $(NO_CONFIG),$(or $(MAKECMDGOALS),all)),)
include $(CONFIG)
endif

SAN ?= $(CFG_SAN)
comma := ,
B := $(O)$(if $(SAN),/$(SAN))
LAYERS ?= base bdev nvme blob blobfs

WARN := -Wall -Wextra -Wshadow -Werror
CWARN := $(WARN) -Wstrict-prototypes -Wmissing-prototypes
SAN_asan := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
# For fuzzing: with clang, whose runtime has libFuzzer.
SAN_fuzz := -fsanitize=address,undefined,fuzzer-no-link -fno-omit-frame-pointer -Wno-error
SAN_tsan := -fsanitize=thread -fno-omit-frame-pointer
COMMON := $(OPT) -fPIC -pthread -fvisibility=hidden -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -I$(O) \
	$(SAN_$(SAN))
ALL_CFLAGS = -std=gnu11 $(COMMON) $(CWARN) $(FLAGS_$(firstword $(subst /, ,$<))) $(USER_CFLAGS)
ALL_CXXFLAGS = -std=c++17 $(COMMON) $(WARN) -fvisibility-inlines-hidden \
	$(FLAGS_$(firstword $(subst /, ,$<))) $(USER_CXXFLAGS)
ALL_LDFLAGS := $(SAN_$(SAN)) -pthread -Wl,-z,defs $(USER_LDFLAGS)
ifneq ($(SAN),)
# A sanitizer's runtime comes with the program, so a shared library has it undefined.
ALL_LDFLAGS := $(filter-out -Wl$(comma)-z$(comma)defs,$(SAN_$(SAN)) -pthread $(USER_LDFLAGS))
endif
# What only some files need, by the first directory of their path.
FLAGS_nvme = $(DPDK_CFLAGS)
FLAGS_fuse = $(FUSE_CFLAGS)
FLAGS_rocksdb_env = $(FUSE_CFLAGS)
FLAGS_test = $(FUSE_CFLAGS)
LIBS := $(DPDK_LIBS) -luring -lisal -luuid -lurcu-memb -lurcu-cds -lurcu-common -lsodium
TOOL_LIBS := -lblkid -luuid -ljson-c

obj = $(patsubst %,$(B)/obj/%.o,$(basename $(1)))
# Programs that show how to use a layer alone.
examples := nvme/example.c blob/example.c
lib_src := $(filter-out $(examples),$(foreach l,$(LAYERS),$(wildcard $(l)/*.c)))
ifneq ($(filter blobfs,$(LAYERS)),)
# What stands on the library needs all of it.
fuse_src := $(filter-out fuse/main.c,$(wildcard fuse/*.c))
mount_src := $(wildcard fuse/main.c)
rocksdb_src := $(wildcard rocksdb_env/*.cc)
tool_common_src := $(wildcard tools/common/*.c)
tool_dirs := $(foreach d,mkfs fsck blobfs nvme blobcli,$(if $(wildcard tools/$(d)/*.c),$(d)))
endif
unit_src := $(foreach l,$(LAYERS) $(if $(filter blobfs,$(LAYERS)),fuse tools),$(wildcard test/unit/$(l)/*.c))
test_common_src := $(wildcard test/common/*.c)
tools_mkfs := mkfs.blobfs
tools_fsck := fsck.blobfs
tools_blobfs := blobfs
tools_nvme := blobfs-nvme
tools_blobcli := blobcli
TOOL_LIBS_blobcli := -ledit

lib_so := $(B)/lib/libblobfs.so
lib_a := $(B)/lib/libblobfs.a
fuse_a := $(B)/lib/libblobfs_fuse.a
shim_a := $(B)/lib/libtestshim.a
mount_bin := $(if $(mount_src),$(B)/bin/mount.blobfs)
rocksdb_so := $(if $(rocksdb_src),$(B)/lib/librocksdb_blobfs.so)
tool_bins := $(foreach d,$(tool_dirs),$(B)/bin/$(tools_$(d)))
# Test programs made from one directory each: test/unit, test/model, test/powercut …
test_dirs := $(filter-out unit common shim check sh,$(patsubst test/%/,%,$(sort $(dir $(wildcard test/*/*.c)))))
test_bins := $(B)/test/unit $(addprefix $(B)/test/,$(test_dirs)) $(foreach l,$(filter nvme blob,$(LAYERS)),$(B)/test/$(l)_example)
# A program of its own that gets the plugin by LD_PRELOAD, as the stock tools do.
rocksdb_test_src := $(wildcard test/rocksdb/*.cc)
rocksdb_test := $(if $(rocksdb_test_src),$(B)/test/rocksdb)
bench_bins := $(patsubst bench/%.c,$(B)/bench/%,$(wildcard bench/*.c))
tool_src := $(foreach d,$(tool_dirs),$(wildcard tools/$(d)/*.c))
test_src := $(foreach d,$(test_dirs),$(wildcard test/$(d)/*.c))
shim_src := test/shim/shim.cc test/shim/main.c
all_objs := $(call obj,$(lib_src) $(fuse_src) $(mount_src) $(rocksdb_src) $(tool_src) \
	$(tool_common_src) $(unit_src) $(test_common_src) $(test_src) $(wildcard test/powercut/*.cc) $(shim_src) $(rocksdb_test_src))

# A file that went leaves no newer one behind: what is linked depends on the list of files, too. (Names as they are for every O.)
files := $(B)/obj/files
file_list := $(patsubst $(B)/obj/%,%,$(all_objs))
ifneq ($(wildcard $(CONFIG)),)
$(shell mkdir -p $(B)/obj; echo '$(file_list)' | cmp -s - $(files) || echo '$(file_list)' >$(files))
endif
$(files):
	@mkdir -p $(@D); echo '$(file_list)' >$@

.DEFAULT_GOAL := all
.PHONY: all lib tools unit tests check check-long check-long-unit check-long-powercut fuzz demo bench bench-nvme bench-store install uninstall deps format lint compdb clean distclean help
.SECONDARY:
.DELETE_ON_ERROR:

all: lib tools
lib: $(lib_so) $(lib_a) $(if $(fuse_src),$(fuse_a)) $(rocksdb_so)
tools: $(tool_bins) $(mount_bin)
unit: $(B)/test/unit
tests: $(test_bins) $(rocksdb_test)

# The two commands of a fresh machine see to its packages themselves.
ifneq ($(filter demo check,$(MAKECMDGOALS)),)
$(CONFIG): | deps
endif
$(CONFIG): configure VERSION
	$(CONFIGURE_ENV) ./configure --build-dir=$(O) $(CONFIGURE_ARGS)

$(B)/obj/%.o: %.c $(CONFIG)
	@mkdir -p $(@D)
	@echo "  CC   $<"
	@$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(B)/obj/%.o: %.cc $(CONFIG)
	@mkdir -p $(@D)
	@echo "  CXX  $<"
	@$(CXX) $(ALL_CXXFLAGS) -MMD -MP -c $< -o $@

$(B)/obj/base/msgring.o: FLAGS_base = $(DPDK_CFLAGS)

define archive
	@mkdir -p $(@D)
	@echo "  AR   $@"
	@rm -f $@
	@ar rcs $@ $(filter %.o,$^)
endef

# The names of static archives stay inside; our own are hidden but for BLOBFS_API. Calls among our own functions are direct.
$(lib_so): $(call obj,$(lib_src)) $(files)
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CC) -shared -Wl,-soname,libblobfs.so $(ALL_LDFLAGS) -Wl,--exclude-libs,ALL -Wl,-Bsymbolic-functions $(filter %.o,$^) -o $@ $(LIBS)

$(lib_a): $(call obj,$(lib_src)) $(files)
	$(archive)

$(fuse_a): $(call obj,$(fuse_src)) $(files)
	$(archive)

$(shim_a): $(call obj,$(shim_src))
	$(archive)

$(mount_bin): $(call obj,fuse/main.c $(tool_common_src)) $(fuse_a) $(lib_so) $(files)
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CC) $(ALL_LDFLAGS) $(filter %.o %.a,$^) -o $@ -L$(B)/lib -lblobfs '-Wl,-rpath,$$ORIGIN/../lib' \
		$(FUSE_LIBS) $(TOOL_LIBS)

# The plugin may serve the live file system over FUSE as well. Both libraries lie in one directory.
$(rocksdb_so): $(call obj,$(rocksdb_src)) $(if $(fuse_src),$(fuse_a)) $(lib_so) $(files)
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CXX) -shared -Wl,-soname,librocksdb_blobfs.so $(ALL_LDFLAGS) -Wl,--exclude-libs,ALL \
		$(filter %.o %.a,$^) -o $@ -L$(B)/lib -lblobfs '-Wl,-rpath,$$ORIGIN' -lrocksdb $(FUSE_LIBS)

# Measuring programs, one from each file of bench/.
$(bench_bins): $(B)/bench/%: $(B)/obj/bench/%.o $(lib_so)
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CC) $(ALL_LDFLAGS) $< -o $@ -L$(B)/lib -lblobfs '-Wl,-rpath,$$ORIGIN/../lib'

define tool_rule
$(B)/bin/$(tools_$(1)): $$(call obj,$$(wildcard tools/$(1)/*.c) $$(tool_common_src)) $$(lib_so) $$(files)
	@mkdir -p $$(@D)
	@echo "  LD   $$@"
	@$$(CC) $$(ALL_LDFLAGS) $$(filter %.o,$$^) -o $$@ -L$(B)/lib -lblobfs '-Wl,-rpath,$$$$ORIGIN/../lib' \
		$$(TOOL_LIBS) $$(TOOL_LIBS_$(1))
endef
$(foreach d,$(tool_dirs),$(eval $(call tool_rule,$(d))))

# Tests link the archives: they may look at what the shared library hides.
define link_test
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CXX) $(ALL_LDFLAGS) $(filter %.o,$^) $(shim_a) $(if $(fuse_src),$(filter $(fuse_a),$^)) $(lib_a) -o $@ \
		$(LIBS) $(FUSE_LIBS) $(TOOL_LIBS) -lgtest
endef

$(B)/test/unit: $(call obj,$(unit_src) $(test_common_src) $(tool_common_src)) $(shim_a) $(lib_a) $(if $(fuse_src),$(fuse_a)) $(files)
	$(link_test)

define test_rule
$(B)/test/$(1): $$(call obj,$$(wildcard test/$(1)/*.c) $$(test_common_src)) $$(shim_a) \
		$$(lib_a) $$(if $$(fuse_src),$$(fuse_a)) $$(files)
	$$(link_test)
endef
$(foreach d,$(filter-out mutants fuzz powercut,$(test_dirs)),$(eval $(call test_rule,$(d))))

# Power is cut under RocksDB, too: with the plugin in the program itself.
powercut_cc := $(call obj,$(wildcard test/powercut/*.cc) $(rocksdb_src))
$(B)/test/powercut: $(call obj,$(wildcard test/powercut/*.c)) $(powercut_cc) $(call obj,$(test_common_src)) $(shim_a) $(fuse_a) $(lib_a) $(files)
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CXX) $(ALL_LDFLAGS) $(filter %.o,$^) $(shim_a) $(fuse_a) $(lib_a) -o $@ $(LIBS) $(FUSE_LIBS) -lrocksdb

# The store compiled once more, with the mistakes of blob/mutation.h in it; it stands before the archive that has it without.
mutated_objs := $(patsubst blob/%.c,$(B)/obj/mutated/%.o,$(filter-out $(examples),$(wildcard blob/*.c)))
powercut_objs := $(call obj,$(filter-out test/powercut/main.c,$(wildcard test/powercut/*.c)))

$(B)/obj/mutated/%.o: blob/%.c $(CONFIG)
	@mkdir -p $(@D)
	@echo "  CC   $< (mutations)"
	@$(CC) $(ALL_CFLAGS) -DBS_MUTATIONS -MMD -MP -c $< -o $@

$(B)/test/mutants: $(call obj,$(wildcard test/mutants/*.c)) $(powercut_objs) $(mutated_objs) $(shim_a) $(lib_a) $(fuse_a) $(files)
	$(link_test)

# The fuzzer's targets, with a main that runs the corpus or with libFuzzer's. They use hostile images as test/corrupt does.
fuzz_main := test/fuzz/$(if $(filter fuzz,$(SAN)),libfuzzer,main).c
fuzz_objs := $(call obj,$(filter-out test/fuzz/main.c test/fuzz/libfuzzer.c,$(wildcard test/fuzz/*.c)) $(fuzz_main) \
	$(filter-out test/corrupt/main.c test/corrupt/targeted.c,$(wildcard test/corrupt/*.c)))

$(B)/test/fuzz: $(fuzz_objs) $(lib_a) $(files)
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CXX) $(ALL_LDFLAGS) $(if $(filter fuzz,$(SAN)),-fsanitize=fuzzer) $(filter %.o,$^) $(lib_a) -o $@ $(LIBS)

$(B)/test/%_example: $(B)/obj/%/example.o $(lib_so)
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CC) $(ALL_LDFLAGS) $< -o $@ -L$(B)/lib -lblobfs '-Wl,-rpath,$$ORIGIN/../lib'

$(rocksdb_test): $(call obj,$(rocksdb_test_src))
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CXX) $(ALL_LDFLAGS) $^ -o $@ -lrocksdb

check: all tests
	test/run --build $(B) $(if $(SAN),--no-sanitizers) $(RUN_ARGS)

# What takes longer than `make check`: about an hour on two quiet cores.
check-long: check-long-unit check-long-powercut fuzz

# Ten million reads of an emulated controller and a thousand attachments, under the address and undefined sanitizers; eight threads
# that do everything at once, for long, under the thread sanitizer; every call of some workloads failing in every way; minutes.
check-long-unit:
	$(MAKE) SAN=asan unit
	TEST_SCALE=50 $(O)/asan/test/unit --gtest_filter='nvme_long.reads*'
	$(O)/asan/test/unit --gtest_filter='nvme_long.attached*'
	TEST_DATASUM=1 $(O)/asan/test/unit --gtest_filter='bfs_*'
	$(MAKE) SAN=tsan unit
	TEST_SCALE=20 $(O)/tsan/test/unit --gtest_filter='*_mixed_threads.*'
	$(MAKE) $(B)/test/powercut
	$(B)/test/powercut --faults --level 1 --ops 60 --states 20000
	$(B)/test/powercut --faults --level 2 --ops 60 --states 10000

# A million states of the medium after a cut, by fresh seeds: short lives with every cut, long ones with a sample; under RocksDB fewer.
LONG_STATES ?= 1000000
part = $(shell expr $(LONG_STATES) \* $(1) / 100)
check-long-powercut:
	$(MAKE) $(B)/test/powercut
	$(B)/test/powercut --level 1 --states $(call part,32)
	$(B)/test/powercut --level 1 --ops 600 --cuts sample=400 --states $(call part,10)
	$(B)/test/powercut --level 1 --torn 4096 --states $(call part,3)
	$(B)/test/powercut --level 2 --ops 150 --states $(call part,40)
	$(B)/test/powercut --level 2 --ops 600 --cuts sample=400 --states $(call part,10)
	$(B)/test/powercut --level 3 --ops 150 --states $(call part,5)

# libFuzzer on each target for FUZZ_SECONDS, from the corpus on (clang: make deps FUZZ=1). What it finds is left in build/fuzz/found.
FUZZ_SECONDS ?= 150
fuzz_targets := super frame record image
fuzz:
	@command -v clang >/dev/null || { echo "fuzz: clang is missing; as root: make deps FUZZ=1" >&2; exit 1; }
	CC=clang CXX=clang++ ./configure --build-dir=$(O)/fuzz >/dev/null
	$(MAKE) O=$(O)/fuzz SAN=fuzz $(O)/fuzz/fuzz/test/fuzz
	@mkdir -p $(O)/fuzz/found
	@for t in $(fuzz_targets); do \
		ln -sf fuzz $(O)/fuzz/fuzz/test/fuzz_$$t; mkdir -p $(O)/fuzz/corpus/$$t; echo "fuzz: $$t for $(FUZZ_SECONDS) s"; \
		$(O)/fuzz/fuzz/test/fuzz_$$t -max_total_time=$(FUZZ_SECONDS) -timeout=60 -rss_limit_mb=3000 -max_len=8192 -print_final_stats=1 \
			-artifact_prefix=$(O)/fuzz/found/$$t- $(O)/fuzz/corpus/$$t test/fuzz/corpus/$$t >$(O)/fuzz/$$t.log 2>&1 || \
			{ tail -40 $(O)/fuzz/$$t.log; exit 1; }; \
		grep -E 'stat::number_of_executed|^Done' $(O)/fuzz/$$t.log; \
	done

demo: all
	BUILD=$(abspath $(B)) bench/demo.sh

bench: all $(bench_bins) $(B)/test/nvmet
	BUILD=$(abspath $(B)) bench/run.sh
	BUILD=$(abspath $(B)) bench/nvme.sh
	BUILD=$(abspath $(B)) bench/store.sh

# What the blob store is judged by, each beside something to compare with, and a table (fio: make deps BENCH=1). PAIRS=3: a quick look.
bench-store: all $(bench_bins)
	BUILD=$(abspath $(B)) bench/store.sh

# What a read costs the NVMe driver, on the emulated controller: time, and instructions by function (valgrind: make deps BENCH=1).
bench-nvme: all $(bench_bins) $(B)/test/nvmet
	BUILD=$(abspath $(B)) bench/nvme.sh

# Installation: programs a mount(8) or fsck(8) looks for go to sbin.
PKGDIR = $(DESTDIR)$(PREFIX)
man_pages := $(wildcard doc/*.1 doc/*.8)
public_headers = $(filter-out %/internal.h,$(wildcard base/*.h) $(shell grep -l BLOBFS_API $(wildcard nvme/*.h \
	bdev/*.h blob/*.h blobfs/*.h)))

install: all
	install -d $(PKGDIR)/bin $(PKGDIR)/sbin $(PKGDIR)/lib/pkgconfig
	for h in $(public_headers); do \
		install -D -m 644 $$h $(PKGDIR)/include/blobfs/$$h || exit 1; \
	done
	install -m 755 $(wildcard $(B)/lib/lib*.so) $(PKGDIR)/lib
	for p in $(tool_bins) $(mount_bin); do \
		case $$p in */blobfs | */blobcli) d=bin ;; *) d=sbin ;; esac; \
		install -m 755 $$p $(PKGDIR)/$$d || exit 1; \
	done
	for page in $(man_pages); do \
		install -D -m 644 $$page $(PKGDIR)/share/man/man$${page##*.}/$${page##*/} || exit 1; \
	done
	printf '%s\n' 'prefix=$(PREFIX)' 'Name: blobfs' 'Description: A file system in user space' \
		'Version: $(VERSION)' 'Cflags: -I$${prefix}/include/blobfs' \
		'Libs: -L$${prefix}/lib -Wl,-rpath,$${prefix}/lib -lblobfs' >$(PKGDIR)/lib/pkgconfig/blobfs.pc

uninstall:
	rm -rf $(PKGDIR)/include/blobfs
	rm -f $(PKGDIR)/lib/libblobfs.so $(PKGDIR)/lib/librocksdb_blobfs.so $(PKGDIR)/lib/pkgconfig/blobfs.pc \
		$(PKGDIR)/bin/blobfs $(PKGDIR)/bin/blobcli $(addprefix $(PKGDIR)/sbin/,mkfs.blobfs fsck.blobfs mount.blobfs blobfs-nvme)
	for page in $(man_pages); do rm -f $(PKGDIR)/share/man/man$${page##*.}/$${page##*/}; done

# Installs only what is missing, and touches nothing when nothing is. The kernel of the virtual machines is downloaded only.
deps:
	@missing=; for p in $(DEPS) $(if $(LINT),$(DEPS_LINT)) $(if $(BENCH),$(DEPS_BENCH)) $(if $(FUZZ),$(DEPS_FUZZ)); do \
		dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"; \
	done; \
	if [ -z "$$missing" ]; then echo "deps: all there"; exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "deps: these Debian packages are missing; run 'make deps' as root, or:" >&2; \
		echo "  apt-get install$$missing" >&2; exit 1; \
	fi; \
	echo "deps: installing$$missing"; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing
	@python3 test/qemu/kernel.py $(O)/qemu/kernel

c_files = $(shell git ls-files '*.c' '*.h' '*.cc')

format:
	clang-format -i $(c_files)

# cppcheck reads no system headers; without these two it stumbles over the macros of lists and trees.
bsd_headers = $(addprefix --include=$(shell pkg-config --variable=includedir libbsd)/bsd/sys/,queue.h tree.h)

# What it takes for mistakes here: keys of tree look-ups, structs filled by the callee; and tests and benchmarks that end with their memory.
lint_off := $(addprefix --suppress=,ctuuninitvar autoVariables uninitStructMember memleak:bench/* memleakOnRealloc:test/*)

# Fails on what cppcheck finds. Lines that clang-format would set otherwise are counted and are no failure: tables and
# signatures are laid out by hand in places. LINT_FORMAT=1 makes them one.
lint:
	cppcheck --quiet --std=c11 --language=c -I. --enable=warning,portability --inline-suppr --error-exitcode=1 \
		--suppress=missingIncludeSystem $(lint_off) $(bsd_headers) $(filter %.c,$(c_files))
	@n=$$(clang-format --dry-run $(c_files) 2>&1 | grep -c 'warning:'); \
	echo "cppcheck: no findings; clang-format: $$n lines differ$(if $(LINT_FORMAT),, (no failure; LINT_FORMAT=1 makes it one))"; \
	test -z "$(LINT_FORMAT)" -o "$$n" = 0

# compile_commands.json for editors and clang-tidy.
compdb: $(CONFIG)
	@{ echo '['; sep=; for f in $(filter %.c,$(lib_src) $(fuse_src) $(tool_src) $(unit_src) $(test_src)); do \
		printf '%s{"directory": "%s", "file": "%s", "command": "%s -c %s"}' "$$sep" '$(CURDIR)' $$f \
			'$(CC) -std=gnu11 $(COMMON) $(CWARN) $(FUSE_CFLAGS) $(DPDK_CFLAGS)' $$f; sep=",\n"; \
		sep=$$(printf ',\n '); done; echo; echo ']'; } >$(O)/compile_commands.json
	@echo "$(O)/compile_commands.json"

clean:
	rm -rf $(O)/obj $(O)/lib $(O)/bin $(O)/test $(O)/asan $(O)/tsan $(O)/fuzz

distclean:
	rm -rf $(O)

help:
	@sed -n '2,8s/^# //p' Makefile

-include $(all_objs:.o=.d) $(mutated_objs:.o=.d) $(patsubst %.o,%.d,$(call obj,$(examples) $(wildcard bench/*.c)))
