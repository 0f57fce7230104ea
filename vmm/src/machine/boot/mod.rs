// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is in guest memory when the boot CPU starts, and where it starts.

mod linux;
mod page_tables;
mod reset_vector;

pub use linux::{LinuxError, LinuxImage, load as load_linux};
pub use page_tables::{PageTableError, identity_map};
pub use reset_vector::write_reset_vector;

/// The registers that a boot protocol gives meaning to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First instruction.
    pub rip: u64,
    /// What the entry gets as its argument.
    pub rsi: u64,
}
