// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's kernel: the stock packages, and a source tree that modules for exactly that kernel can be built with; a debug
//! kernel from the same source; or a kernel of the user's own.

pub mod build_tree;
mod compiler;
pub mod debug;
pub mod hmm_tests;
mod likeness;
pub mod packages;
pub mod tree;

use std::path::PathBuf;

use ersatz_guest_image::build_tree::TreeRecord;
use ersatz_guest_image::manifest::DEBUG_KERNEL;

use self::debug::DebugKernel;
use self::packages::KernelPackages;
use self::tree::KernelTree;

/// The kernel that guests boot.
pub struct GuestKernel {
    /// The name of what is built for it: a series, [`DEBUG_KERNEL`], or one that stands for a build tree.
    pub name: String,
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// The compressed kernel.
    pub bz_image: PathBuf,
    /// The same kernel as an ELF file.
    pub vmlinux: PathBuf,
    /// The folder of its modules; `None` if it has none.
    pub modules: Option<PathBuf>,
    /// What the driver is built against.
    pub tree: KernelTree,
    /// Of a build tree, what reports say of it.
    pub record: Option<TreeRecord>,
}

impl GuestKernel {
    /// The kernel as the distribution ships it.
    pub fn stock(packages: &KernelPackages, tree: KernelTree) -> Self {
        Self {
            name: packages.kernel.series.clone(),
            release: packages.kernel.release.clone(),
            bz_image: packages.bz_image(),
            vmlinux: packages.vmlinux(),
            modules: Some(packages.modules()),
            tree,
            record: None,
        }
    }

    /// Returns those of the named modules that this kernel has as files. A distribution's has all; a tree's own may have them built
    /// in, or off.
    pub fn modular<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        let is_module = |name: &&str| self.record.is_none() || self.tree.has_module(name);
        names.iter().copied().filter(is_module).collect()
    }
}

impl From<DebugKernel> for GuestKernel {
    fn from(kernel: DebugKernel) -> Self {
        let (bz_image, vmlinux) = (kernel.bz_image(), kernel.vmlinux());
        Self {
            name: DEBUG_KERNEL.to_owned(),
            release: kernel.release,
            bz_image,
            vmlinux,
            // All that tests need is built in.
            modules: None,
            tree: kernel.tree,
            record: None,
        }
    }
}
