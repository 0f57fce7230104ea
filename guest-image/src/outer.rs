// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The outer machine of `--accel nested`: a QEMU TCG machine in which the VMM finds a working KVM.
//!
//! Three parties meet here. `cargo xtask` packs the outer initramfs: PID 1 as `/init` and the modules [`MODULES`] names,
//! with all they depend on, uncompressed, in [`MODULES_FOLDER`]. The host side of `ersatz run` appends an archive that
//! holds a [`Job`] at [`JOB_PATH`] and the files the job needs, and starts QEMU. PID 1 finds the job, which puts it into
//! its outer mode, loads KVM, runs the command, and exchanges messages with the host over a virtio-serial port meanwhile
//! ([`channel`]).

pub mod channel;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the outer initramfs keeps kernel modules, each as `NAME.ko`.
pub const MODULES_FOLDER: &str = "/lib/modules";

/// The modules that provide KVM in the outer machine.
pub const KVM_MODULES: &[&str] = &["kvm-amd"];

/// The modules a job with a [`Share`] needs besides.
pub const SHARE_MODULES: &[&str] = &["9p", "9pnet_virtio"];

/// The modules that a job which hands devices to a guest needs besides.
pub const VFIO_MODULES: &[&str] = &["vfio_iommu_type1", "vfio-pci"];

/// All modules to pack; [`load_order`](crate::kernel_module::load_order) finds those they depend on.
pub const MODULES: &[&str] = &["kvm-amd", "9p", "9pnet_virtio", "vfio_iommu_type1", "vfio-pci"];

/// Where PID 1 looks for its [`Job`], as JSON. It is in outer mode if and only if this file is there.
pub const JOB_PATH: &str = "/ersatz/job.json";

/// The name of the virtio-serial port between PID 1 and the host.
pub const PORT_NAME: &str = "ersatz.outer";

/// A folder of the host, seen read-only in the outer machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The mount tag of the 9p device.
    pub tag: String,
    /// Where it is mounted in the outer machine.
    pub target: PathBuf,
}

/// What PID 1 is to do in the outer machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The program to run, and its arguments.
    pub command: Vec<String>,
    /// Folders to mount before.
    pub shares: Vec<Share>,
    /// PCI devices to bind to vfio-pci before, by their addresses as sysfs has them.
    pub passed_through: Vec<String>,
    /// Files to send to the host afterwards, however the command ends. Those that do not exist are left out.
    pub collect: Vec<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_modules_are_the_sum_of_those_for_each_purpose() {
        assert_eq!(MODULES, [KVM_MODULES, SHARE_MODULES, VFIO_MODULES].concat());
    }
}
