# stave: `make` builds build/stave and its plugins; `make test` the unit tests, `make bench` what measures; `make SAN=1
# BUILD=build/san test` the tests under the address and undefined-behaviour sanitizers; `make FUZZ=1 CC=clang
# BUILD=build/fuzz fuzz` the fuzz targets. V=1 shows the commands. Packages come from tools/install.
#
# The file name is the build rule. src/ROOM/x.c is plain C (a large room has folders: src/ROOM/PART/x.c); x.simd.c is compiled once per vector level (avx2, avx512,
# avx512bf16), its symbols suffixed by STAVE_LEVEL; x.avx512bf16.c only for that level; x.plugin.c is a shared object
# of its own that `stave` opens at run time. `rooms` says who may include whom, and from it comes what a test links.

ifeq ($(origin CC),default)
CC = gcc
endif
ifndef V
.SILENT:
endif
BUILD   ?= build
OPT     ?= -O2
WARN     = -Wall -Wextra -Wshadow -Wno-unused-parameter -Werror=implicit-function-declaration -Werror=incompatible-pointer-types
BASEFLAGS = -std=c11 -D_GNU_SOURCE -g $(OPT) $(WARN) -fopenmp -ffp-contract=off -fvisibility=hidden -Isrc -MMD -MP
# SAN=1: both sanitizers. FUZZ=1 (with CC=clang): the same and libFuzzer's coverage.
ifdef SAN
BASEFLAGS += -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LDSAN    = -fsanitize=address,undefined
SIMDOPT  = -O1
endif
ifdef FUZZ
BASEFLAGS += -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LDSAN    = -fsanitize=fuzzer,address,undefined
SIMDOPT  = -O1
endif
CFLAGS  += $(BASEFLAGS)
LIBS     = -ldnnl -ljansson -lyaml -lpcre2-8 -lutf8proc -lzstd -lz -lxxhash -lcrypto -levent -levent_pthreads -lhwloc -fopenmp -lm -ldl -lpthread

# What each vector level adds to the baseline x86-64. Unrolled kernels under sanitizers take minutes to compile at -O3.
SIMDOPT ?= -O3
FLAGS_avx2       = -mavx2 -mfma -mf16c -mbmi2 -ffp-contract=fast $(SIMDOPT)
FLAGS_avx512     = $(FLAGS_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512
FLAGS_avx512bf16 = $(FLAGS_avx512) -mavx512bf16 -mavx512vnni
LEVELS           = avx2 avx512 avx512bf16

ROOMS   := $(shell sed -n 's/^\([a-z]*\):.*/\1/p' rooms)
# closure of a room: itself, all it may include, and what those may
uses     = $(shell sed -n 's/^$(1): *//p' rooms)
closure  = $(sort $(1) $(call uses,$(1)) $(foreach u,$(call uses,$(1)),$(call uses,$(u))))

plainsrc = $(filter-out %.simd.c %.plugin.c $(foreach l,$(LEVELS),%.$(l).c),$(wildcard src/$(1)/*.c src/$(1)/*/*.c))
objects  = $(patsubst src/%.c,$(BUILD)/obj/%.o,$(call plainsrc,$(1))) \
           $(foreach l,$(LEVELS),$(patsubst src/%.simd.c,$(BUILD)/obj/%.$(l).o,$(wildcard src/$(1)/*.simd.c)) \
                                 $(patsubst src/%.c,$(BUILD)/obj/%.o,$(wildcard src/$(1)/*.$(l).c)))
LIBRARIES = $(foreach r,$(filter-out cli,$(ROOMS)),$(if $(wildcard src/$(r)/*.c),$(BUILD)/lib$(r).a))
libsof    = $(foreach r,$(call closure,$(1)),$(if $(filter-out cli,$(r)),$(if $(wildcard src/$(r)/*.c),$(BUILD)/lib$(r).a)))

PLUGINS  = $(patsubst src/%.plugin.c,$(BUILD)/stave-%.so,$(subst comm/,,$(wildcard src/comm/*.plugin.c)))
TESTBIN  = $(patsubst test/%.c,$(BUILD)/test/%,$(wildcard test/*/test_*.c)) $(BUILD)/test/nanogpt_char
FUZZBIN  = $(patsubst test/%.c,$(BUILD)/fuzz/%,$(wildcard test/*/fuzz_*.c))
BENCHBIN = $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/*.c))

.DELETE_ON_ERROR:

all: $(BUILD)/stave $(PLUGINS)

$(BUILD)/stave: $(call objects,cli) $(LIBRARIES)
	$(CC) -o $@ $(call objects,cli) -Wl,--start-group $(LIBRARIES) -Wl,--end-group $(LDSAN) $(LIBS)

define room
$(BUILD)/lib$(1).a: $(call objects,$(1)); @rm -f $$@; ar rcs $$@ $$^
# a unit test of a room links only the rooms that room may use
$(BUILD)/test/$(1)/%: test/$(1)/%.c $(call libsof,$(1)); @mkdir -p $$(@D)
	$$(CC) $$(CFLAGS) -Itest -o $$@ $$< -Wl,--start-group $(call libsof,$(1)) -Wl,--end-group $$(LDSAN) $$(LIBS) -lcmocka
$(BUILD)/fuzz/$(1)/%: test/$(1)/%.c $(call libsof,$(1)); @mkdir -p $$(@D)
	$$(CC) $$(CFLAGS) -Itest -o $$@ $$< -Wl,--start-group $(call libsof,$(1)) -Wl,--end-group $$(LDSAN) $$(LIBS)
endef
$(foreach r,$(ROOMS),$(eval $(call room,$(r))))

define level
$(BUILD)/obj/%.$(1).o: src/%.simd.c; @mkdir -p $$(@D)
	$$(CC) $$(CFLAGS) $$(FLAGS_$(1)) -DSTAVE_LEVEL=$(1) -c -o $$@ $$<
$(BUILD)/obj/%.$(1).o: src/%.$(1).c; @mkdir -p $$(@D)
	$$(CC) $$(CFLAGS) $$(FLAGS_$(1)) -DSTAVE_LEVEL=$(1) -c -o $$@ $$<
endef
$(foreach l,$(LEVELS),$(eval $(call level,$(l))))

$(BUILD)/obj/%.o: src/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c -o $@ $<

# the catalog is part of the program
$(BUILD)/obj/plan/catalog/catalog_embed.o: $(wildcard catalog/*.yaml)

$(BUILD)/stave-mpi.so: src/comm/mpi.plugin.c
	@mkdir -p $(@D)
	OMPI_CC=$(CC) mpicc $(CFLAGS) -fPIC -shared -o $@ $<

# the published nanoGPT run, by its generator of random numbers
$(BUILD)/test/nanogpt_char: test/train/nanogpt_char.c $(call libsof,train)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Itest -o $@ $< -Wl,--start-group $(call libsof,train) -Wl,--end-group $(LDSAN) $(LIBS)

$(BUILD)/bench/%: bench/%.c $(LIBRARIES)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Itest -o $@ $< -Wl,--start-group $(LIBRARIES) -Wl,--end-group $(LDSAN) $(LIBS)

test: $(TESTBIN) $(PLUGINS)
fuzz: $(FUZZBIN)
bench: $(BENCHBIN)

PREFIX ?= /usr/local
install: all
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(BUILD)/stave $(PLUGINS) $(DESTDIR)$(PREFIX)/bin

clean:
	rm -rf $(BUILD)

.PHONY: all test fuzz bench install clean
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
