// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! PCI identity and the layout of the BARs.

/// Vendor id: the one that emulators use for devices that no vendor owns.
pub const VENDOR_ID: u16 = 0x1234;
/// Device id of the Ersatz GPU.
pub const DEVICE_ID: u16 = 0xe52a;
/// Class code: display controller (03), 3D controller (02), no programming interface.
pub const CLASS_CODE: u32 = 0x03_02_00;
/// PCI revision; rises with hardware behaviour a driver could tell apart.
pub const REVISION: u8 = 1;

/// BAR0: registers and doorbell pages, 32-bit, not prefetchable.
pub const BAR_REGISTERS: u8 = 0;
/// BAR2 (and 3): VRAM, 64-bit, prefetchable.
pub const BAR_VRAM: u8 = 2;
/// BAR4: MSI-X table and pending bits, 32-bit, not prefetchable.
pub const BAR_MSIX: u8 = 4;

/// Size of BAR0 in bytes.
pub const REGISTERS_BAR_SIZE: u64 = 512 << 10;
/// BAR5: the control window, 32-bit, not prefetchable; only if the device has one.
pub const BAR_CONTROL: u8 = 5;
/// Size of BAR4 in bytes.
pub const MSIX_BAR_SIZE: u64 = 8 << 10;
/// Offset of the MSI-X table in BAR4.
pub const MSIX_TABLE_OFFSET: u32 = 0;
/// Offset of the MSI-X pending bit array in BAR4.
pub const MSIX_PBA_OFFSET: u32 = 4 << 10;
/// Number of MSI-X vectors.
pub const MSIX_VECTORS: u16 = 32;
/// The vector that reports device errors; channels use those their driver gives them.
pub const VECTOR_ERROR: u16 = 0;

/// Smallest VRAM in bytes: the least that `devm_memremap_pages` can align (one memory subsection).
pub const VRAM_MIN: u64 = 2 << 20;
/// Largest VRAM in bytes.
pub const VRAM_MAX: u64 = 1 << 40;
