// SPDX-License-Identifier: GPL-2.0
//! What the `kernel` crate offers in another form in each series of kernels that this driver is built for.
//!
//! One file per series has the same names in it; Kbuild chooses the file (`--cfg ersatz_kernel="..."`). Nothing else in the
//! driver depends on the kernel's version.

#[cfg(ersatz_kernel = "7.2")]
#[path = "v7_2.rs"]
mod series;
#[cfg(ersatz_kernel = "7.3")]
#[path = "v7_3.rs"]
mod series;

pub(crate) use series::*;
