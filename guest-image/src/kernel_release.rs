// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The release of a kernel image, by which the driver that fits it is found.
//!
//! A bzImage has a pointer to its version string in the set-up header of the Linux/x86 boot protocol. An ELF file has the kernel's
//! banner among its read-only data.

/// Offset of the boot protocol's magic number in a bzImage.
const MAGIC: usize = 0x202;
/// Offset of the pointer to the version string.
const VERSION_POINTER: usize = 0x20e;
/// Where that pointer counts from.
const POINTER_BASE: usize = 0x200;
/// How the kernel's banner begins.
const BANNER: &[u8] = b"Linux version ";

/// Returns the release of a kernel image, as `uname -r` prints it; `None` if the image does not contain it.
pub fn release(image: &[u8]) -> Option<&str> {
    if image.get(MAGIC..MAGIC + 4) == Some(b"HdrS") {
        let pointer = image.get(VERSION_POINTER..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))?;
        return word(image.get(POINTER_BASE + usize::from(pointer)..)?);
    }
    let mut rest = image.starts_with(b"\x7fELF").then_some(image)?;
    loop {
        let start = rest.windows(BANNER.len()).position(|window| window == BANNER)? + BANNER.len();
        rest = &rest[start..];
        // The format string of a banner is not one.
        if let Some(release) = word(rest) {
            return Some(release);
        }
    }
}

/// The word that the bytes begin with, if it can be a release.
fn word(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_graphic())?;
    let word = std::str::from_utf8(&bytes[..end]).ok()?;
    word.starts_with(|first: char| first.is_ascii_digit()).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bz_image(version: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x300];
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION_POINTER] = 0x80;
        image[0x280..0x280 + version.len()].copy_from_slice(version);
        image
    }

    #[test]
    fn a_bz_image_points_to_its_version() {
        let image = bz_image(b"7.2.12+deb13-amd64 (debian-kernel@lists.debian.org) #1 SMP\0");
        assert_eq!(release(&image), Some("7.2.12+deb13-amd64"));
        assert_eq!(release(&bz_image(b"")), None);
        let mut wild = image;
        wild[VERSION_POINTER..VERSION_POINTER + 2].copy_from_slice(&[0xff; 2]);
        assert_eq!(release(&wild), None);
    }

    #[test]
    fn an_elf_file_has_a_banner() {
        let banner = b"\x7fELF....Linux version %s\0Linux version 7.3.4 (gcc)\0";
        assert_eq!(release(banner), Some("7.3.4"));
        assert_eq!(release(b"\x7fELF....Linux version 7"), None, "no end");
    }

    #[test]
    fn other_files_have_none() {
        assert_eq!(release(b""), None);
        assert_eq!(release(b"#!/bin/sh\n# Linux version 7.2.12 "), None);
        let whole = bz_image(b"7.2.12 x\0");
        for length in 0..0x286 {
            assert_eq!(release(&whole[..length]), None, "{length}");
        }
    }
}
