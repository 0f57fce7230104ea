# SPDX-License-Identifier: GPL-2.0
#
# Bindings that the kernel crate does not have, for a module that consists of src/main.rs and src/shim.c: generated from
# src/shim.h by the same bindgen and with the same flags as the kernel's own, restricted by $(ersatz_bindgen_flags) to what is
# missing there: all other types stay the very same.

# Where src/bindings.rs finds its generated half.
export ERSATZ_BINDINGS := $(abspath $(obj))/src/bindings_generated.rs

$(obj)/src/main.o: $(obj)/src/bindings_generated.rs

# The kernel's list of compiler flags that libclang does not know.
bindgen_skip_c_flags := $(shell sed -n '/^bindgen_skip_c_flags :=/,/[^\\]$$/p' $(srctree)/rust/Makefile | \
	sed -e 's/^bindgen_skip_c_flags :=//' -e 's/\\$$//')

quiet_cmd_ersatz_bindgen = BINDGEN $@
      cmd_ersatz_bindgen = \
	$(BINDGEN) $< $(ersatz_bindgen_flags) --rust-target 1.85 \
		--use-core --with-derive-default --ctypes-prefix ffi --no-layout-tests \
		--no-debug '.*' --enable-function-attribute-detection \
		-o $@ -- $(filter-out $(bindgen_skip_c_flags), $(c_flags)) \
		-w --target=x86_64-linux-gnu -fno-builtin -D__BINDGEN__ -DMODULE

targets += src/bindings_generated.rs
$(obj)/src/bindings_generated.rs: $(src)/src/shim.h FORCE
	$(call if_changed_dep,ersatz_bindgen)

clean-files := src/bindings_generated.rs
