// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device programmed by its manual, with the kernel's driver off it: what that one does not use, on the path that it uses.
//! Each test follows worked sequences of `device-model/MANUAL.md`.

pub mod access_counters;
pub mod channels;
pub mod copies;
pub mod errors;
pub mod faults;
pub mod interrupts;
pub mod kernels;
mod long_work;
pub mod migration;
mod patchwork;
pub mod peers;
pub mod races;
pub mod registers;
pub mod resets;
pub mod translations;
pub mod unserved_faults;
