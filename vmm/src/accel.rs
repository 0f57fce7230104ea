// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The accelerators that guests run on.
//!
//! [`kvm`] is this VMM on KVM, [`tcg`] QEMU's emulation with the GPUs over vfio-user. [`probe`] determines whether KVM really runs
//! a kernel; [`nested`] runs the VMM where it does, in a machine that QEMU emulates, SVM included. [`accelerator`] chooses among
//! them.

pub mod accelerator;
pub mod kvm;
pub mod nested;
pub mod probe;
mod served_gpus;
pub mod tcg;
