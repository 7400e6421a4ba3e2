# Builds the reference kernel. `make kernel`, or `make -f kernel/kernel.mk kernel` from the top directory.
#   make kernel                 build/kernel/exo-os.elf, build/kernel/programs/*.elf
#   make kernel VARIANT=name    build/kernel/name/exo-os.elf, build/kernel/name/programs/*.elf
#   make kernel V=1             the same, with the commands in full instead of a short line for each step
# Needs rustc (1.85 or newer, stable), gcc and ld; no cargo, no crates.

RUSTC ?= rustc
KERNEL_CC ?= gcc
# With -j rustc warns that it cannot reach make's job server, which is for makes.
KERNEL_RUSTC = env -u MAKEFLAGS -u MFLAGS $(RUSTC)
VARIANT ?=
V ?=

# $(call kernel-say,STEP,WHAT) tells what is done; V=1 shows the command itself, -s shows neither.
KERNEL_QUIET := $(if $(V),,@)
kernel-say = @$(if $(V)$(findstring s,$(firstword -$(MAKEFLAGS))),:,printf '  %-7s %s\n' '$(1)' '$(2)')

KERNEL_VARIANTS := debug today seed-literal stripped truth-less truth-long \
    fmask-without-if fmask-leaves-df-tf-ac no-sce lstar-noncanonical lstar-unmapped lstar-user-page \
    star-off-by-one no-swapgs-entry no-swapgs-exit misaligned-call shared-gs-block lstar-differs \
    user-rsp-before-switch
KERNEL_ENTRY_VARIANTS := stripped no-swapgs-entry no-swapgs-exit misaligned-call user-rsp-before-switch
KERNEL_PROGRAMS := demo sender receiver worker echo selftest bench spin

ifneq ($(filter-out $(KERNEL_VARIANTS),$(VARIANT)),)
$(error There is no kernel variant '$(VARIANT)'; there are: $(KERNEL_VARIANTS))
endif

KERNEL_OUT := build/kernel$(if $(VARIANT),/$(VARIANT))
KERNEL_ELF := $(KERNEL_OUT)/exo-os.elf
KERNEL_OBJECTS := $(KERNEL_OUT)/objects
# Only `debug` has programs of its own; the other variants carry, and get a copy of, the default build's.
KERNEL_PROGRAMS_OUT := build/kernel$(if $(filter debug,$(VARIANT)),/debug)
KERNEL_RUST_SOURCES := $(shell find kernel/src -name '*.rs')
KERNEL_USER_LIBRARY := kernel/user/exo.rs kernel/user/calls.rs kernel/src/syscall/numbers.rs \
    kernel/src/memory/routines.rs
KERNEL_PROGRAM_ELFS := $(KERNEL_PROGRAMS:%=$(KERNEL_OUT)/programs/%.elf)
KERNEL_PROGRAM_IMAGES := $(KERNEL_PROGRAMS:%=$(KERNEL_PROGRAMS_OUT)/objects/%.stripped)

# What the compiler makes of the kernel. The mistakes that are in the entry stub alone are linked to the default build's.
KERNEL_RUST_OBJECTS := $(if $(filter $(KERNEL_ENTRY_VARIANTS),$(VARIANT)),build/kernel/objects,$(KERNEL_OBJECTS))
KERNEL_RUST_OBJECT := $(KERNEL_RUST_OBJECTS)/exo_os.o
# Where files.rs finds the programs' images, seen from that file: no path of this machine gets into the build.
KERNEL_ENVIRONMENT := EXO_PROGRAMS=../../$(KERNEL_PROGRAMS_OUT)/objects

KERNEL_ENTRY := $(if $(filter today seed-literal,$(VARIANT)),entry_$(subst -,_,$(VARIANT)),entry)
KERNEL_ASM_OBJECTS := $(KERNEL_OBJECTS)/boot.o $(KERNEL_OBJECTS)/traps.o $(KERNEL_OBJECTS)/$(KERNEL_ENTRY).o

# One name for a variant in Rust (--cfg variant="x") and in assembly (-DFLAW_X; only the mistakes look at it).
KERNEL_FLAW := $(shell echo '$(VARIANT)' | tr a-z- A-Z_)
KERNEL_ASM_FLAGS := -g -c $(if $(VARIANT),-DFLAW_$(KERNEL_FLAW)) \
    $(if $(filter today,$(VARIANT)),-DKERNEL_PAGE_TABLE_SWITCH)
KERNEL_OPT := $(if $(filter debug,$(VARIANT)),0,2)
KERNEL_RUST_FLAGS := --edition 2021 -g -C opt-level=$(KERNEL_OPT) -C panic=abort -C relocation-model=static \
    -C code-model=kernel -C no-redzone=yes -C force-frame-pointers=yes -C codegen-units=1 -C force-unwind-tables=yes \
    --check-cfg 'cfg(variant, values(any()))' \
    $(if $(filter-out $(KERNEL_ENTRY_VARIANTS),$(VARIANT)),--cfg 'variant="$(VARIANT)"')
KERNEL_USER_FLAGS := --edition 2021 -g -C opt-level=$(KERNEL_OPT) -C panic=abort -C relocation-model=static \
    -C force-frame-pointers=yes -C codegen-units=1
# GNU ld, also where rustc would bring its own linker: the same script and the same layout everywhere.
KERNEL_LINK := -fuse-ld=bfd -nostartfiles -nostdlib -static -no-pie -Wl,--build-id=none,-z,noexecstack,-z,norelro \
    -Wl,-z,max-page-size=4096
KERNEL_USER_LINK := $(KERNEL_LINK) -Wl,-z,separate-code
# Before the script, which asks for it.
KERNEL_LINK_truth-long := -Wl,--defsym=STUB_HAS_ITS_PAGE=1
KERNEL_IMAGE_LINK := $(KERNEL_LINK) $(KERNEL_LINK_$(VARIANT)) \
    -Wl,--gc-sections,-O1,--no-warn-rwx-segments,-T,kernel/src/linker.ld
link-args = $(foreach argument,$($(1)),-C link-arg=$(argument))

# Every program at its own address, so that a debugger can have the symbols of all of them at once.
KERNEL_BASE_demo := 0x10000000
KERNEL_BASE_sender := 0x11000000
KERNEL_BASE_receiver := 0x12000000
KERNEL_BASE_worker := 0x13000000
KERNEL_BASE_echo := 0x14000000
KERNEL_BASE_selftest := 0x15000000
KERNEL_BASE_bench := 0x16000000
KERNEL_BASE_spin := 0x17000000

.PHONY: kernel
kernel: $(KERNEL_ELF) $(KERNEL_PROGRAM_ELFS)
	@:

$(KERNEL_OBJECTS)/%.o: kernel/src/%.S kernel/src/percpu.h
	@mkdir -p $(@D)
	$(call kernel-say,AS,$(<F))
	$(KERNEL_QUIET)$(KERNEL_CC) $(KERNEL_ASM_FLAGS) -o $@ $<
$(KERNEL_OBJECTS)/%.o: kernel/src/arch/%.S kernel/src/percpu.h
	@mkdir -p $(@D)
	$(call kernel-say,AS,$(<F))
	$(KERNEL_QUIET)$(KERNEL_CC) $(KERNEL_ASM_FLAGS) -o $@ $<
$(KERNEL_OBJECTS)/%.o: kernel/src/syscall/%.S kernel/src/percpu.h
	@mkdir -p $(@D)
	$(call kernel-say,AS,$(<F))
	$(KERNEL_QUIET)$(KERNEL_CC) $(KERNEL_ASM_FLAGS) -o $@ $<

$(KERNEL_PROGRAMS_OUT)/objects/libexo.rlib: $(KERNEL_USER_LIBRARY) kernel/kernel.mk
	@mkdir -p $(@D)
	$(call kernel-say,RUSTC,exo)
	$(KERNEL_QUIET)$(KERNEL_RUSTC) $(KERNEL_USER_FLAGS) --crate-type rlib --crate-name exo -o $@ kernel/user/exo.rs

$(KERNEL_PROGRAMS_OUT)/programs/selftest.elf: $(wildcard kernel/user/selftest_*.rs)

$(KERNEL_PROGRAMS_OUT)/programs/%.elf: kernel/user/%.rs $(KERNEL_PROGRAMS_OUT)/objects/libexo.rlib
	@mkdir -p $(@D)
	$(call kernel-say,RUSTC,$*)
	$(KERNEL_QUIET)$(KERNEL_RUSTC) $(KERNEL_USER_FLAGS) --crate-type bin --crate-name $* \
	    --extern exo=$(KERNEL_PROGRAMS_OUT)/objects/libexo.rlib $(call link-args,KERNEL_USER_LINK) \
	    -C link-arg=-Wl,-Ttext-segment=$(KERNEL_BASE_$*) -o $@ $<

$(KERNEL_PROGRAMS_OUT)/objects/%.stripped: $(KERNEL_PROGRAMS_OUT)/programs/%.elf
	$(KERNEL_QUIET)objcopy --strip-all $< $@

ifneq ($(KERNEL_OUT),$(KERNEL_PROGRAMS_OUT))
$(KERNEL_OUT)/programs/%.elf: $(KERNEL_PROGRAMS_OUT)/programs/%.elf
	@mkdir -p $(@D)
	$(KERNEL_QUIET)cp -p $< $@
endif

$(KERNEL_RUST_OBJECT): $(KERNEL_RUST_SOURCES) $(KERNEL_PROGRAM_IMAGES) kernel/kernel.mk
	@mkdir -p $(@D)
	$(call kernel-say,RUSTC,$(@F:.o=))
	$(KERNEL_QUIET)$(KERNEL_ENVIRONMENT) $(KERNEL_RUSTC) $(KERNEL_RUST_FLAGS) --crate-type bin --crate-name exo_os \
	    --emit obj=$@ --out-dir $(@D) kernel/src/main.rs

$(KERNEL_ELF): $(KERNEL_RUST_OBJECT) $(KERNEL_ASM_OBJECTS) kernel/src/linker.ld
	$(call kernel-say,LD,$@)
	$(KERNEL_QUIET)libraries=$$($(KERNEL_RUSTC) --print target-libdir) && $(KERNEL_CC) $(KERNEL_IMAGE_LINK) -o $@ $(KERNEL_ASM_OBJECTS) \
	    $(KERNEL_RUST_OBJECT) $$libraries/libcore-*.rlib $$libraries/libcompiler_builtins-*.rlib
	$(KERNEL_QUIET)$(if $(filter stripped,$(VARIANT)),objcopy --strip-all $@)

# All of them; with -j several at once, when what they share has been built.
KERNEL_ALL := $(KERNEL_VARIANTS:%=kernel-variant-%)
.PHONY: kernel-variants $(KERNEL_ALL)
kernel-variants: $(KERNEL_ALL)
$(KERNEL_ALL): kernel-variant-%: kernel
	@$(MAKE) -f kernel/kernel.mk --no-print-directory kernel VARIANT=$*

.SECONDARY: $(KERNEL_PROGRAM_IMAGES) $(KERNEL_PROGRAM_ELFS)

# The performance table of kernel/README.md, measured now.
.PHONY: kernel-bench
kernel-bench: kernel
	@$(MAKE) -f kernel/kernel.mk --no-print-directory -s kernel VARIANT=truth-less
	@$(MAKE) -f kernel/kernel.mk --no-print-directory -s kernel VARIANT=today
	@kernel/measure build/kernel/exo-os.elf build/kernel/truth-less/exo-os.elf build/kernel/today/exo-os.elf

# Ten million calls on some CPUs as fast as they go; fails if anything stops or a frame of memory is lost.
KERNEL_SOAK_CALLS ?= 10000000
KERNEL_SOAK_CPUS ?= 2
.PHONY: kernel-soak
kernel-soak: kernel
	@timeout 600 qemu-system-x86_64 -kernel $(KERNEL_ELF) -smp $(KERNEL_SOAK_CPUS) \
	    -append 'run=demo pace=none calls=$(KERNEL_SOAK_CALLS)' \
	    -display none -monitor none -serial stdio -no-reboot -device isa-debug-exit,iobase=0xf4 </dev/null

# `cargo fmt` and `cargo clippy` where they are installed; every shape of the code that a variant compiles is seen.
KERNEL_CLIPPY := cargo clippy -q --manifest-path kernel/Cargo.toml --bins --lib --target-dir build/kernel/clippy
.PHONY: kernel-lint
kernel-lint: kernel
	@if cargo fmt --version >/dev/null 2>&1; then cargo fmt --manifest-path kernel/Cargo.toml -- --check; \
	else echo 'kernel-lint: cargo fmt is not installed: skipped'; fi
	@if ! cargo clippy --version >/dev/null 2>&1; then echo 'kernel-lint: cargo clippy is not installed: skipped'; \
	else for variant in none today truth-less; do \
	    $(KERNEL_ENVIRONMENT) RUSTFLAGS="--cfg variant=\"$$variant\"" \
	        $(KERNEL_CLIPPY) -- -D warnings -D clippy::undocumented_unsafe_blocks || exit 1; done; fi
