// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The processor that QEMU emulates.

/// All that TCG can do, for `-cpu`, with 46 physical address bits, which make room for a BAR of 1 TiB, and without what makes
/// emulation slow:
///
/// - five-level paging makes every page walk longer;
/// - processors with fast string instructions have the kernel copy and clear memory with those. They are fast on hardware; TCG
///   carries them out byte by byte, and copies three times as fast by words.
pub const PROCESSOR: &str = "max,la57=off,phys-bits=46,erms=off,fsrm=off,fzrm=off,fsrs=off,fsrc=off";
