// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is built from the sources of the clone: programs, driver, initramfs archives, and the manifest that lists them.

pub mod driver;
pub mod initramfs;
mod modules;
pub mod outer;
pub mod own_module;
pub mod programs;
pub mod test_driver;
