# SPDX-License-Identifier: GPL-2.0
#
# For a module that uses src/zone_device: bindings as bindings.mk makes them, with what the abstractions there need. Its src/shim.h
# includes src/zone_device/shim.h, and it compiles src/zone_device/shim.c.

# The series of kernels that src/kernel_ext/compat adapts modules to: the newest that is not newer than this kernel.
ersatz_kernel := $(if $(filter 7.0 7.1 7.2,$(VERSION).$(PATCHLEVEL)),7.2,7.3)
rustflags-y += --cfg 'ersatz_kernel="$(ersatz_kernel)"'

ersatz_bindgen_flags := --no-recursive-allowlist \
	--allowlist-type 'migrate_vma|migrate_vma_direction|hmm_range|hmm_pfn_flags' \
	--allowlist-function 'ersatz_.*|migrate_vma_.*|migrate_device_.*|hmm_range_fault' \
	--no-doc-comments --blocklist-type '__kernel_s?size_t|__kernel_ptrdiff_t'

include $(dir $(lastword $(MAKEFILE_LIST)))bindings.mk
