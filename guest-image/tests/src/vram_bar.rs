// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! BAR2 from outside, by sysfs: which sizes it can have, which one it has, and what the CPU finds in it while no driver is bound.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use ersatz_abi::pci::BAR_VRAM;

use crate::bus::Function;
use crate::pattern::PAGE;
use crate::region::Region;

/// The unit of sizes in sysfs.
const MIB_ORDER: u32 = 20;

/// BAR2 of a function.
#[derive(Clone, Debug)]
pub struct VramBar {
    function: Function,
}

impl VramBar {
    /// That of this function.
    pub fn of(function: &Function) -> Self {
        Self { function: function.clone() }
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
        let [start, end] = self.bounds();
        end - start + 1
    }

    /// The bus address at which it begins.
    pub fn bus_address(&self) -> u64 {
        self.bounds()[0]
    }

    /// Its first byte and its last.
    fn bounds(&self) -> [u64; 2] {
        let path = self.function.folder().join("resource");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let line = text.lines().nth(BAR_VRAM.into()).unwrap_or_default();
        let words: Vec<u64> = line
            .split_whitespace()
            .filter_map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok())
            .collect();
        match words[..] {
            [start, end, _] if start != 0 => [start, end],
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
        self.at(offset, |word| word.load(Ordering::Relaxed))
    }

    /// Writes a word of VRAM that nobody uses, with no driver in between.
    pub fn write(&self, offset: u64, value: u64) {
        self.at(offset, |word| word.store(value, Ordering::Relaxed));
    }

    /// Maps pages of VRAM, from the offset of a page on, with no driver in between.
    pub fn map(&self, offset: u64, pages: usize) -> Region {
        self.function.map_bar(BAR_VRAM, offset, pages)
    }

    fn at<R>(&self, offset: u64, work: impl FnOnce(&AtomicU64) -> R) -> R {
        let in_page = offset % PAGE as u64;
        work(self.map(offset - in_page, 1).atomic(in_page as usize))
    }

    fn resize_path(&self) -> PathBuf {
        self.function.folder().join(format!("resource{BAR_VRAM}_resize"))
    }
}
