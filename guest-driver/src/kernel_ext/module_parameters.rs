// SPDX-License-Identifier: GPL-2.0
//! The module's parameters. They are declared in `shim.c`, since the `module!` macro has no strings.

use crate::bindings;
use kernel::prelude::*;

/// Which memory types to register VRAM as: a comma list, one per device.
pub(crate) fn memory() -> &'static [u8] {
    // SAFETY: The parameter is a NUL-terminated string that cannot change once the module is loaded.
    unsafe { CStr::from_char_ptr(bindings::ersatz_parameter_memory()) }.to_bytes()
}

/// Where private pages get their pfns.
pub(crate) fn region() -> &'static [u8] {
    // SAFETY: As in `memory`.
    unsafe { CStr::from_char_ptr(bindings::ersatz_parameter_region()) }.to_bytes()
}

/// The most VRAM to register, in bytes; zero for no limit of the user's.
pub(crate) fn vram_limit() -> u64 {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_parameter_vram_limit() }
}

/// How long the device may take for one batch, in milliseconds.
pub(crate) fn timeout_ms() -> u32 {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_parameter_timeout_ms() }
}

/// How much memory a CPU fault brings back, in bytes.
pub(crate) fn fault_chunk() -> u32 {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_parameter_fault_chunk() }
}

/// Whether to offer the ioctls of the kernel's test driver for HMM.
pub(crate) fn hmm_dmirror() -> bool {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_parameter_hmm_dmirror() }
}
