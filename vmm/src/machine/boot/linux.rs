// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The Linux/x86 64-bit boot protocol: kernel, initramfs, command line and boot parameters into guest memory.
//!
//! Files are read straight into guest memory; nothing of their size is held by the VMM.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::{self, BzImage, Elf, KernelLoader, KernelLoaderResult};
use thiserror::Error;
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::Entry;
use crate::machine::layout::{
    ACPI_TABLES, COMMAND_LINE, COMMAND_LINE_ROOM, ECAM, HIGH_MEMORY, LOW_MEMORY_END, Layout, PAGE, ZERO_PAGE,
};

/// Offset of a bzImage's 64-bit entry from where it is loaded.
const BZIMAGE_ENTRY_64: u64 = 0x200;
/// Bit of `xloadflags`: the image has a 64-bit entry.
const XLF_KERNEL_64: u16 = 1 << 0;
/// `type_of_loader` for a loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;
/// What the boot protocol wants in `boot_flag`.
const BOOT_FLAG: u16 = 0xaa55;
/// "HdrS": what the boot protocol wants in `header`.
const HEADER_MAGIC: u32 = 0x5372_6448;
/// Boot protocol 2.15, for kernels that carry no header.
const PROTOCOL_VERSION: u16 = 0x020f;
/// Longest command line of a kernel that does not say (an ELF file), as in its `COMMAND_LINE_SIZE`.
const DEFAULT_COMMAND_LINE_SIZE: u32 = 2047;
/// Highest initramfs address of a kernel that does not say.
const DEFAULT_INITRAMFS_MAX: u32 = 0x7fff_ffff;
/// Alignment that the kernel's cpio reader wants of an archive that follows another.
const ARCHIVE_ALIGNMENT: u64 = 4;

/// e820: usable memory.
const E820_RAM: u32 = 1;
/// e820: not for use.
const E820_RESERVED: u32 = 2;
/// e820: ACPI tables.
const E820_ACPI: u32 = 3;

/// Why Linux could not be loaded.
#[derive(Debug, Error)]
pub enum LinuxError {
    /// A file could not be opened or read.
    #[error("cannot read {what} {path:?}")]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The kernel is neither a bzImage nor an ELF file, or is broken.
    #[error("cannot load kernel {path:?}; it must be a bzImage or an ELF vmlinux for x86-64")]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        #[source]
        source: loader::Error,
    },
    /// The kernel has no 64-bit entry.
    #[error("kernel {0:?} has no 64-bit entry point; it must be one for x86-64")]
    Not64Bit(PathBuf),
    /// The kernel and the initramfs do not fit into memory together.
    #[error(
        "kernel (up to {kernel_end:#x}) and initramfs ({initramfs} bytes) do not fit below {limit:#x}; \
         give the guest more memory"
    )]
    NoRoom {
        /// First address that the kernel does not need to unpack itself.
        kernel_end: u64,
        /// Size of the initramfs with its tail in bytes.
        initramfs: u64,
        /// First address that may not hold an initramfs.
        limit: u64,
    },
    /// The file was changed while it was read, or guest memory is too small.
    #[error("cannot copy {what} into guest memory")]
    Write {
        /// What was copied.
        what: &'static str,
        /// What guest memory said.
        #[source]
        source: GuestMemoryError,
    },
    /// The command line has a NUL in it.
    #[error("the kernel command line has a NUL byte at {0}")]
    CommandLineNul(usize),
    /// The command line is longer than the kernel takes.
    #[error("the kernel command line has {length} bytes; this kernel takes {max}")]
    CommandLineLength {
        /// Length in bytes.
        length: usize,
        /// The most it may have.
        max: u32,
    },
}

/// What to load.
#[derive(Clone, Copy, Debug)]
pub struct LinuxImage<'a> {
    /// bzImage or ELF file.
    pub kernel: &'a Path,
    /// First archive of the initramfs.
    pub initramfs: &'a Path,
    /// Second archive of the initramfs; may be empty.
    pub initramfs_tail: &'a [u8],
    /// Kernel command line.
    pub command_line: &'a str,
}

/// Where the initramfs is.
struct Initramfs {
    address: u32,
    size: u32,
}

/// Loads Linux; returns where the boot CPU starts.
///
/// # Errors
///
/// [`LinuxError`]: a file that cannot be used, or too little guest memory.
pub fn load(memory: &GuestMemoryMmap, layout: &Layout, image: &LinuxImage<'_>) -> Result<Entry, LinuxError> {
    let (kernel, rip) = load_kernel(memory, image.kernel)?;
    let mut params = boot_params { acpi_rsdp_addr: ACPI_TABLES.start, ..boot_params::default() };
    match kernel.setup_header {
        Some(header) => params.hdr = header,
        None => {
            params.hdr.boot_flag = BOOT_FLAG;
            params.hdr.header = HEADER_MAGIC;
            params.hdr.version = PROTOCOL_VERSION;
            params.hdr.cmdline_size = DEFAULT_COMMAND_LINE_SIZE;
            params.hdr.initrd_addr_max = DEFAULT_INITRAMFS_MAX;
        }
    }
    params.hdr.type_of_loader = LOADER_UNDEFINED;

    load_command_line(memory, image.command_line, params.hdr.cmdline_size)?;
    params.hdr.cmd_line_ptr = COMMAND_LINE as u32;

    let initramfs_max = u64::from(params.hdr.initrd_addr_max) + 1;
    let initramfs = load_initramfs(memory, image, kernel_end(&kernel), layout.low_ram_end.min(initramfs_max))?;
    params.hdr.ramdisk_image = initramfs.address;
    params.hdr.ramdisk_size = initramfs.size;

    let map = memory_map(layout);
    params.e820_table[..map.len()].copy_from_slice(&map);
    params.e820_entries = map.len() as u8;
    memory
        .write_slice(params.as_slice(), GuestAddress(ZERO_PAGE))
        .map_err(|source| LinuxError::Write { what: "the boot parameters", source })?;
    Ok(Entry { rip, rsi: ZERO_PAGE })
}

/// Loads the kernel; returns what the loader found, and the 64-bit entry.
fn load_kernel(memory: &GuestMemoryMmap, path: &Path) -> Result<(KernelLoaderResult, u64), LinuxError> {
    let read_error = |source| LinuxError::Read { what: "kernel", path: path.to_path_buf(), source };
    let kernel_error = |source| LinuxError::Kernel { path: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(read_error)?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).map_err(read_error)?;
    file.rewind().map_err(read_error)?;

    let high_memory = Some(GuestAddress(HIGH_MEMORY));
    if magic == *b"\x7fELF" {
        let kernel = Elf::load(memory, None, &mut file, high_memory).map_err(kernel_error)?;
        let entry = kernel.kernel_load.0;
        Ok((kernel, entry))
    } else {
        let kernel = BzImage::load(memory, None, &mut file, high_memory).map_err(kernel_error)?;
        let flags = kernel.setup_header.map_or(0, |header| header.xloadflags);
        if flags & XLF_KERNEL_64 == 0 {
            return Err(LinuxError::Not64Bit(path.to_path_buf()));
        }
        let entry = kernel.kernel_load.0 + BZIMAGE_ENTRY_64;
        Ok((kernel, entry))
    }
}

/// First address that the kernel leaves alone until it knows where the initramfs is.
fn kernel_end(kernel: &KernelLoaderResult) -> u64 {
    let unpacked = kernel.setup_header.map_or(0, |header| header.pref_address.saturating_add(header.init_size.into()));
    kernel.kernel_end.max(unpacked)
}

fn load_command_line(memory: &GuestMemoryMmap, line: &str, max: u32) -> Result<(), LinuxError> {
    if let Some(position) = line.bytes().position(|byte| byte == 0) {
        return Err(LinuxError::CommandLineNul(position));
    }
    let max = u64::from(max).min(COMMAND_LINE_ROOM - 1) as u32;
    if line.len() as u64 > u64::from(max) {
        return Err(LinuxError::CommandLineLength { length: line.len(), max });
    }
    let write = |bytes: &[u8], address| memory.write_slice(bytes, GuestAddress(address));
    write(line.as_bytes(), COMMAND_LINE)
        .and_then(|()| write(&[0], COMMAND_LINE + line.len() as u64))
        .map_err(|source| LinuxError::Write { what: "the command line", source })
}

/// Loads both archives, as high below `limit` as they fit.
fn load_initramfs(
    memory: &GuestMemoryMmap,
    image: &LinuxImage<'_>,
    kernel_end: u64,
    limit: u64,
) -> Result<Initramfs, LinuxError> {
    let read_error = |source| LinuxError::Read { what: "initramfs", path: image.initramfs.to_path_buf(), source };
    let mut file = File::open(image.initramfs).map_err(read_error)?;
    let file_size = file.metadata().map_err(read_error)?.len();
    let (address, size) = place_initramfs(file_size, image.initramfs_tail.len() as u64, kernel_end, limit)?;

    let write_error = |source| LinuxError::Write { what: "the initramfs", source };
    let tail = address + file_size.next_multiple_of(ARCHIVE_ALIGNMENT);
    memory.read_exact_volatile_from(GuestAddress(address), &mut file, file_size as usize).map_err(write_error)?;
    memory.write_slice(image.initramfs_tail, GuestAddress(tail)).map_err(write_error)?;
    // Both are below `limit`, which is at most 4 GiB.
    Ok(Initramfs { address: address as u32, size: size as u32 })
}

/// Where archives of `file` and `tail` bytes go, and how many bytes they are together.
fn place_initramfs(file: u64, tail: u64, kernel_end: u64, limit: u64) -> Result<(u64, u64), LinuxError> {
    let size =
        file.checked_next_multiple_of(ARCHIVE_ALIGNMENT).and_then(|start| start.checked_add(tail)).unwrap_or(u64::MAX);
    match limit.checked_sub(size).map(|address| address & !(PAGE - 1)) {
        Some(address) if address >= kernel_end => Ok((address, size)),
        _ => Err(LinuxError::NoRoom { kernel_end, initramfs: size, limit }),
    }
}

/// The memory map that the kernel is told.
fn memory_map(layout: &Layout) -> Vec<boot_e820_entry> {
    let mut map = Vec::new();
    let mut add = |range: std::ops::Range<u64>, kind| {
        if !range.is_empty() {
            map.push(boot_e820_entry { addr: range.start, size: range.end - range.start, r#type: kind });
        }
    };
    add(0..LOW_MEMORY_END, E820_RAM);
    add(ACPI_TABLES, E820_ACPI);
    add(HIGH_MEMORY..layout.low_ram_end, E820_RAM);
    add(ECAM, E820_RESERVED);
    add(layout.high_ram.clone(), E820_RAM);
    map
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::machine::memory::allocate;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    /// Loads a made-up ELF kernel with one segment at 16 MiB.
    fn load_elf(initramfs: &[u8], tail: &[u8], command_line: &str) -> Result<(GuestMemoryMmap, Entry), LinuxError> {
        let mut elf = vec![0; 0x1000];
        elf[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
        elf[0x18..0x20].copy_from_slice(&0x100_0040u64.to_le_bytes()); // entry
        elf[0x20..0x28].copy_from_slice(&0x40u64.to_le_bytes()); // program headers
        elf[0x36..0x38].copy_from_slice(&56u16.to_le_bytes()); // their size
        elf[0x38..0x3a].copy_from_slice(&1u16.to_le_bytes()); // their number
        elf[0x40..0x44].copy_from_slice(&1u32.to_le_bytes()); // PT_LOAD
        elf[0x58..0x60].copy_from_slice(&0x100_0000u64.to_le_bytes()); // physical address
        elf[0x60..0x68].copy_from_slice(&0x1000u64.to_le_bytes()); // size in the file
        elf[0x68..0x70].copy_from_slice(&0x2000u64.to_le_bytes()); // size in memory
        let (kernel, initramfs) = (file(&elf), file(initramfs));
        let layout = Layout::new(32 << 20, 40).unwrap();
        let memory = allocate(&layout).unwrap();
        let image =
            LinuxImage { kernel: kernel.path(), initramfs: initramfs.path(), initramfs_tail: tail, command_line };
        load(&memory, &layout, &image).map(|entry| (memory, entry))
    }

    fn params(memory: &GuestMemoryMmap) -> boot_params {
        memory.read_obj(GuestAddress(ZERO_PAGE)).unwrap()
    }

    #[test]
    fn an_elf_kernel_is_where_it_wants_to_be() {
        let (memory, entry) = load_elf(b"one", b"other", "console=ttyS0").unwrap();
        assert_eq!(entry, Entry { rip: 0x100_0040, rsi: ZERO_PAGE });
        assert_eq!(memory.read_obj::<u32>(GuestAddress(0x100_0000)).unwrap(), u32::from_le_bytes(*b"\x7fELF"));
        let mut line = [0; 14];
        memory.read_slice(&mut line, GuestAddress(params(&memory).hdr.cmd_line_ptr.into())).unwrap();
        assert_eq!(&line, b"console=ttyS0\0");
    }

    #[test]
    fn the_tail_follows_the_initramfs_at_a_word() {
        let (memory, _) = load_elf(b"onetwo", b"tail", "").unwrap();
        let header = params(&memory).hdr;
        let (image, size) = (header.ramdisk_image, header.ramdisk_size);
        assert_eq!(u64::from(image) % PAGE, 0);
        let mut bytes = vec![0; size as usize];
        memory.read_slice(&mut bytes, GuestAddress(image.into())).unwrap();
        assert_eq!(bytes, b"onetwo\0\0tail");
    }

    #[test]
    fn bad_input_is_named() {
        assert!(matches!(load_elf(b"", b"", "a\0b"), Err(LinuxError::CommandLineNul(1))));
        let long = "x".repeat(4096);
        assert!(matches!(load_elf(b"", b"", &long), Err(LinuxError::CommandLineLength { max: 2047, .. })));
        let big = vec![0; 17 << 20];
        assert!(matches!(load_elf(&big, b"", ""), Err(LinuxError::NoRoom { .. })));
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let (text, empty) = (file(b"#!/bin/sh\nexit 1\n"), file(b""));
        let layout = Layout::new(32 << 20, 40).unwrap();
        let memory = allocate(&layout).unwrap();
        let image = |kernel| LinuxImage { kernel, initramfs: empty.path(), initramfs_tail: b"", command_line: "" };
        assert!(matches!(load(&memory, &layout, &image(text.path())), Err(LinuxError::Kernel { .. })));
        assert!(matches!(load(&memory, &layout, &image(empty.path())), Err(LinuxError::Read { .. })));
        assert!(matches!(load(&memory, &layout, &image(Path::new("/nonexistent"))), Err(LinuxError::Read { .. })));
    }

    #[test]
    fn the_memory_map_leaves_the_gap_out() {
        let map = memory_map(&Layout::new(4 << 30, 40).unwrap());
        let ram: u64 = map.iter().filter(|entry| entry.r#type == E820_RAM).map(|entry| entry.size).sum();
        assert_eq!(ram, (4 << 30) - (HIGH_MEMORY - LOW_MEMORY_END));
        assert!(map.windows(2).all(|pair| pair[0].addr + pair[0].size <= pair[1].addr));
    }

    proptest! {
        #[test]
        fn an_initramfs_never_leaves_its_room(file: u64, tail: u64, kernel_end: u64, limit in 0u64..1 << 32) {
            if let Ok((address, size)) = place_initramfs(file, tail, kernel_end, limit) {
                prop_assert!(address >= kernel_end);
                prop_assert!(address + size <= limit);
                prop_assert!(size >= file && size - file >= tail);
            }
        }
    }
}
