// SPDX-License-Identifier: GPL-2.0
//! Bindings that the `kernel` crate does not have: `linux/kprobes.h` and the functions of `shim.h`.
//!
//! The included file is made by Kbuild's bindgen run. It defines only what is missing; every other type in it is the
//! kernel crate's own.

#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub
)]
mod generated {
    use kernel::{bindings::*, ffi};

    include!(env!("ERSATZ_BINDINGS"));
}

pub(crate) use generated::*;
pub(crate) use kernel::bindings::*;
