// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Telling kernel files from other files by their first bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::bzimage;

/// Bytes that are looked at.
const HEAD: usize = 1024;
/// `e_ident` of a 64-bit little-endian ELF file, up to its data encoding.
const ELF: &[u8] = b"\x7fELF\x02\x01";
/// Where `e_type` and `e_machine` are, and what they are in an x86-64 kernel, little-endian: `ET_EXEC`, `EM_X86_64`.
const TYPE_AND_MACHINE: (usize, [u8; 4]) = (16, [2, 0, 62, 0]);

/// Whether a file begins as a bzImage, or as an ELF file that is not relocatable, as x86-64 kernels are.
///
/// # Errors
///
/// Fails if the file cannot be read.
pub fn is_kernel(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    let (offset, expected) = TYPE_AND_MACHINE;
    let is_elf = head.starts_with(ELF) && head.get(offset..).is_some_and(|rest| rest.starts_with(&expected));
    Ok(is_elf || bzimage::is_bz_image(&head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_from_programs_and_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let is_kernel = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            is_kernel(&path).unwrap()
        };
        let elf = |kind: u8, machine: u8| [ELF, &[1; 10], &[kind, 0, machine, 0], &[0; 40]].concat();
        assert!(is_kernel(&elf(2, 62)));
        assert!(!is_kernel(&elf(3, 62)), "a shared object, or a program");
        assert!(!is_kernel(&elf(2, 183)), "of another processor");
        let mut image = vec![0; 0x210];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(is_kernel(&image));
        for other in [&b"hello"[..], b"", b"\x7fELF\x02\x01"] {
            assert!(!is_kernel(other), "{other:?}");
        }
        assert!(super::is_kernel(Path::new("/nowhere")).is_err());
    }
}
