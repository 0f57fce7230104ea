// SPDX-License-Identifier: GPL-2.0
//! What this module needs of the driver's `kernel_ext`: that which `zone_device` stands on, a character device, and ioctls.

#[path = "../../../src/kernel_ext/char_device.rs"]
pub(crate) mod char_device;
#[path = "../../../src/kernel_ext/compat/mod.rs"]
pub(crate) mod compat;
#[path = "../../../src/kernel_ext/dma.rs"]
pub(crate) mod dma;
#[path = "../../../src/kernel_ext/mm.rs"]
pub(crate) mod mm;
#[path = "../../../src/kernel_ext/module_use.rs"]
pub(crate) mod module_use;
#[path = "../../../src/kernel_ext/raw.rs"]
pub(crate) mod raw;
#[path = "../../../src/kernel_ext/revocable.rs"]
pub(crate) mod revocable;
#[path = "../../../src/kernel_ext/signal.rs"]
pub(crate) mod signal;
#[path = "../../../src/kernel_ext/uapi_bytes.rs"]
pub(crate) mod uapi_bytes;
