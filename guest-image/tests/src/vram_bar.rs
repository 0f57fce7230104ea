// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! BAR2 from outside, by sysfs: which sizes it can have, which one it has, and what the CPU finds in it while no driver is bound.

use std::fs::{self, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::ptr::NonNull;

use ersatz_abi::pci::BAR_VRAM;
use nix::libc::off_t;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::bus::Function;
use crate::pattern::PAGE;

/// The unit of sizes in sysfs.
const MIB_ORDER: u32 = 20;

/// BAR2 of a function.
#[derive(Clone, Debug)]
pub struct VramBar {
    folder: PathBuf,
}

impl VramBar {
    /// That of this function.
    pub fn of(function: &Function) -> Self {
        Self { folder: function.folder().to_owned() }
    }

    /// The sizes that it can have in bytes, smallest first; none if it is not resizable.
    pub fn sizes(&self) -> Vec<u64> {
        let text = fs::read_to_string(self.resize_path()).unwrap_or_default();
        let orders = u64::from_str_radix(text.trim(), 16).unwrap_or(0);
        (0..u64::BITS - MIB_ORDER)
            .filter(|order| orders & 1 << order != 0)
            .map(|order| 1 << (order + MIB_ORDER))
            .collect()
    }

    /// The size that it has in bytes.
    ///
    /// # Panics
    ///
    /// As all functions here that return no error, if the system refuses what a test needs.
    pub fn size(&self) -> u64 {
        let path = self.folder.join("resource");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let line = text.lines().nth(BAR_VRAM.into()).unwrap_or_default();
        let words: Vec<u64> = line
            .split_whitespace()
            .filter_map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok())
            .collect();
        match words[..] {
            [start, end, _] if start != 0 => end - start + 1,
            _ => panic!("{} has no BAR{BAR_VRAM}: {line:?}", path.display()),
        }
    }

    /// Asks for a size.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn try_resize(&self, size: u64) -> io::Result<()> {
        let order = size.ilog2() - MIB_ORDER;
        let mut file = OpenOptions::new().write(true).open(self.resize_path())?;
        io::Write::write_all(&mut file, order.to_string().as_bytes())
    }

    /// Gives it a size that it can have. No driver may be bound.
    pub fn resize(&self, size: u64) {
        self.try_resize(size).unwrap_or_else(|error| panic!("cannot resize BAR{BAR_VRAM} to {size:#x} bytes: {error}"));
        assert_eq!(self.size(), size, "the size of BAR{BAR_VRAM}");
    }

    /// Reads a word of VRAM with no driver in between.
    pub fn read(&self, offset: u64) -> u64 {
        // SAFETY: the word is mapped, and aligned as the caller's offset is.
        self.at(offset, |word| unsafe { word.read_volatile() })
    }

    /// Writes a word of VRAM that nobody uses, with no driver in between.
    pub fn write(&self, offset: u64, value: u64) {
        // SAFETY: as for `read`.
        self.at(offset, |word| unsafe { word.write_volatile(value) });
    }

    fn at<R>(&self, offset: u64, work: impl FnOnce(NonNull<u64>) -> R) -> R {
        assert_eq!(offset % 8, 0, "the offset of a word");
        const LENGTH: NonZeroUsize = NonZeroUsize::new(PAGE).unwrap();
        let path = self.folder.join(format!("resource{BAR_VRAM}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
        let in_page = offset % PAGE as u64;
        let page = off_t::try_from(offset - in_page).expect("an offset in a BAR");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { mmap(None, LENGTH, protection, MapFlags::MAP_SHARED, file.as_fd(), page) }
            .unwrap_or_else(|error| panic!("cannot map {} at {offset:#x}: {error}", path.display()));
        // SAFETY: the offset is inside the page.
        let result = work(unsafe { base.cast::<u8>().add(in_page as usize) }.cast());
        // SAFETY: it was mapped above, and nothing refers to it any more.
        unsafe { munmap(base, PAGE) }.unwrap_or_else(|error| panic!("cannot unmap {}: {error}", path.display()));
        result
    }

    fn resize_path(&self) -> PathBuf {
        self.folder.join(format!("resource{BAR_VRAM}_resize"))
    }
}
