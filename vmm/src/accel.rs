// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What carries a guest: the ways there are, and which of them this machine has.
//!
//! [`kvm`] is our own machine on KVM, [`tcg`] QEMU's emulation with the GPUs over vfio-user. [`probe`] finds out whether KVM
//! really runs a kernel; [`nested`] runs our machine where it does: in a machine that QEMU emulates, SVM included.

pub mod kvm;
pub mod nested;
pub mod probe;
pub mod tcg;
