// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's kernel: the stock packages, and a source tree that modules for exactly that kernel can be built with; or a debug
//! kernel from the same source.

mod compiler;
pub mod debug;
pub mod hmm_tests;
mod likeness;
pub mod packages;
pub mod tree;

use std::path::PathBuf;

use ersatz_guest_image::manifest::DEBUG_KERNEL;

use self::debug::DebugKernel;
use self::packages::KernelPackages;
use self::tree::KernelTree;

/// The kernel that guests boot.
pub struct GuestKernel {
    /// What `--kernel` calls it: a series, or [`DEBUG_KERNEL`].
    pub name: String,
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// The compressed kernel.
    pub bz_image: PathBuf,
    /// The same kernel as an ELF file.
    pub vmlinux: PathBuf,
    /// What the driver is built against.
    pub tree: KernelTree,
}

impl GuestKernel {
    /// The kernel as the distribution ships it.
    pub fn stock(packages: &KernelPackages, tree: KernelTree) -> Self {
        Self {
            name: packages.kernel.series.clone(),
            release: packages.kernel.release.clone(),
            bz_image: packages.bz_image(),
            vmlinux: packages.vmlinux(),
            tree,
        }
    }
}

impl From<DebugKernel> for GuestKernel {
    fn from(kernel: DebugKernel) -> Self {
        let (bz_image, vmlinux) = (kernel.bz_image(), kernel.vmlinux());
        Self { name: DEBUG_KERNEL.to_owned(), release: kernel.release, bz_image, vmlinux, tree: kernel.tree }
    }
}
