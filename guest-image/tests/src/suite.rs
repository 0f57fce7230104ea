// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a test is, and the list of all.

use std::time::Duration;

use ersatz_abi::pci::BAR_CONTROL;
use ersatz_uapi::{Info, MemoryType};

use crate::bus::Function;
use crate::vram_bar::VramBar;

/// What a test needs of the guest to make sense; without it the test is skipped, and says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// VRAM that a CPU touch brings back from.
    Private,
    /// VRAM that the CPU uses in place.
    Coherent,
    /// At least so many pages of VRAM.
    VramPages(u64),
    /// Little enough VRAM to fill: at most so many pages.
    FillableVram(u64),
    /// Huge pages on request.
    HugePages,
    /// Two nodes of memory at least.
    ManyNodes,
    /// The device whose memory is RAM.
    RamDevice,
    /// A second device.
    SecondDevice,
    /// A BAR2 that the guest can give another size.
    ResizableBar,
    /// BARs that devices reach by bus address.
    BarsOnTheBus,
    /// A kernel of at least this version: an older one has a fault of its own that the test shows.
    Kernel(u32, u32),
    /// Huge pages set aside on demand, whose bus addresses a process can learn.
    HugetlbPages,
    /// A kernel that looks for memory that it has lost.
    Kmemleak,
    /// A device that a program in the guest can have hold and fail.
    ControlWindow,
    /// A kernel without `VM_BUG_ON()`: one of them is wrong (docs/kernel-bugs/soft-dirty-bug-on.md). It also prints a backtrace where
    /// `hmm_range_fault()` comes to memory that a userfaultfd would have to fill, which has that fail and is no fault.
    NoDebugVm,
    /// A kernel without KASAN, which reports a use after free of the kernel's own (docs/kernel-bugs/evicted-while-unmapped.md).
    NoKasan,
    /// A kernel built by the compiler that its points were named for: another one inlines other functions.
    Gcc,
}

impl Need {
    /// Why the need is not met, if it is not.
    pub fn unmet(self, info: &Info) -> Option<String> {
        let pages = info.vram_bytes / crate::pattern::PAGE as u64;
        match self {
            Self::Private if info.memory_type != MemoryType::Private as u32 => {
                Some("VRAM is not device-private".into())
            }
            Self::Coherent if info.memory_type != MemoryType::Coherent as u32 => {
                Some("VRAM is not device-coherent".into())
            }
            Self::VramPages(least) if pages < least => Some(format!("needs {least} pages of VRAM, there are {pages}")),
            Self::FillableVram(most) if pages > most => {
                Some(format!("fills VRAM, of which there are {pages} pages: more than {most}"))
            }
            Self::HugePages if !crate::proc_fs::huge_pages_on_request() => {
                Some("this kernel has no transparent huge pages on request".into())
            }
            Self::Kernel(major, minor) if crate::proc_fs::kernel_version() < (major, minor) => {
                let (own_major, own_minor) = crate::proc_fs::kernel_version();
                Some(format!("kernels before {major}.{minor} have a fault here, and this is {own_major}.{own_minor}"))
            }
            Self::ManyNodes if crate::numa::nodes() < 2 => {
                Some("this machine has one node of memory (--kernel-args numa=fake=2 makes two)".into())
            }
            Self::RamDevice if !crate::ram_device::is_there() => {
                Some(format!("{} is not in this guest", ersatz_guest_image::run::RAM_MODULE_PATH))
            }
            Self::SecondDevice if !crate::device::Device::second_exists() => Some("there is one device".into()),
            Self::ResizableBar => {
                let sizes = VramBar::of(&Function::at(info.pci_address)).sizes().len();
                (sizes < 2).then(|| "this machine offers its guest no other size of BAR2".into())
            }
            Self::BarsOnTheBus if crate::bus::is_qemu_q35() => {
                Some("QEMU does not map BARs for DMA of its vfio-user devices".into())
            }
            Self::HugetlbPages if !crate::direct::memory::has_hugetlb_pages() => {
                Some("this kernel has no huge pages to give a process (CONFIG_HUGETLBFS)".into())
            }
            Self::Kmemleak if !std::path::Path::new(crate::proc_fs::KMEMLEAK).exists() => {
                Some("this kernel does not look for memory that it has lost (CONFIG_DEBUG_KMEMLEAK)".into())
            }
            Self::ControlWindow if !Function::at(info.pci_address).has_bar(BAR_CONTROL) => {
                Some("the GPU has no control window (--control-window)".into())
            }
            Self::NoDebugVm if crate::proc_fs::has_function("dump_vma") => {
                Some("this kernel has CONFIG_DEBUG_VM, and a check in it that is wrong".into())
            }
            Self::NoKasan if crate::proc_fs::has_function("kasan_report") => Some(
                "this kernel has KASAN, and a use after free of its own (docs/kernel-bugs/evicted-while-unmapped.md)"
                    .into(),
            ),
            Self::Gcc if !crate::proc_fs::is_built_by_gcc() => Some(
                "this kernel was built by another compiler than the stock ones, and inlines other functions".into(),
            ),
            _ => None,
        }
    }
}

/// One test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// `topic.what_holds`.
    pub name: &'static str,
    /// Runs it, in a process of its own; a panic is a failure.
    pub run: fn(),
    /// What it needs.
    pub needs: &'static [Need],
    /// How many times the usual time limit it may take.
    pub patience: u32,
    /// Whether it means to make the driver fail a CPU fault, or to unbind or unload it.
    pub disruptive: bool,
    /// Whether it programs the device itself.
    pub direct: bool,
}

impl Test {
    /// A test that needs nothing special.
    pub const fn new(name: &'static str, run: fn()) -> Self {
        Self { name, run, needs: &[], patience: 1, disruptive: false, direct: false }
    }

    /// The same with needs.
    pub const fn needs(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    /// The same with more time.
    pub const fn patience(self, patience: u32) -> Self {
        Self { patience, ..self }
    }

    /// The same, unbinding or unloading the driver: its counters start again.
    pub const fn disruptive(self) -> Self {
        Self { disruptive: true, ..self }
    }

    /// The same, taking the driver off the device and programming that itself.
    pub const fn direct(self) -> Self {
        Self { direct: true, ..self.disruptive() }
    }

    /// Which of its needs is not met, if one is not.
    pub fn unmet(&self, info: &Info) -> Option<String> {
        let of_direct = self.direct.then_some(&Need::HugetlbPages);
        of_direct.into_iter().chain(self.needs).find_map(|need| need.unmet(info))
    }

    /// How long it may take.
    pub fn time_limit(self, usual: Duration) -> Duration {
        usual * self.patience
    }
}

/// Makes a topic's list: each function under its own name.
macro_rules! test_list {
    ($topic:literal: $($name:ident $(. $modifier:ident ( $($argument:expr)? ))* ;)*) => {
        /// The tests of this topic.
        pub const TESTS: &[$crate::suite::Test] = &[
            $($crate::suite::Test::new(concat!($topic, ".", stringify!($name)), $name) $(. $modifier ( $($argument)? ))*,)*
        ];
    };
}
pub(crate) use test_list;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unmet_need_says_what_is_missing() {
        let info = Info { vram_bytes: 2 << 20, ..Info::default() };
        assert_eq!(Need::VramPages(512).unmet(&info), None);
        assert!(Need::VramPages(513).unmet(&info).unwrap().contains("513"));
        assert!(Need::FillableVram(511).unmet(&info).unwrap().contains("511"));
        assert!(Need::Coherent.unmet(&info).is_some() && Need::Private.unmet(&info).is_none());
    }
}
