// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What carries a guest: which ways there are on this machine, and the one that makes its own.
//!
//! [`probe`] finds out whether KVM really runs a kernel; [`nested`] runs our VMM where it does: in a machine that QEMU
//! emulates, SVM included.

pub mod nested;
pub mod probe;
