// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The least init there can be: it says that it is there, and sleeps.
//!
//! It is written as machine code so that a boot ends where the kernel's work does, and nothing else has to be built.

/// What init writes to the console.
pub const GREETING: &[u8] = b"ersatz: init is up\n";

/// Where the program is mapped.
const BASE: u64 = 0x40_0000;
/// Sizes of the ELF header and its one program header.
const HEADER: u16 = 64;
const PROGRAM_HEADER: u16 = 56;
/// Distance from the instruction behind `lea` to the greeting.
const GREETING_DISTANCE: u8 = 0x10;

/// The program as an ELF file.
pub fn elf() -> Vec<u8> {
    let code = code();
    let start = u64::from(HEADER + PROGRAM_HEADER);
    let length = start + code.len() as u64;
    let mut file = Vec::new();
    // e_ident: 64-bit, little-endian, current version, System V.
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend_from_slice(&2u16.to_le_bytes()); // e_type: executable
    file.extend_from_slice(&62u16.to_le_bytes()); // e_machine: x86-64
    file.extend_from_slice(&1u32.to_le_bytes()); // e_version
    file.extend_from_slice(&(BASE + start).to_le_bytes()); // e_entry
    file.extend_from_slice(&u64::from(HEADER).to_le_bytes()); // e_phoff
    file.extend_from_slice(&[0; 12]); // e_shoff, e_flags
    for value in [HEADER, PROGRAM_HEADER, 1, 0, 0, 0] {
        // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
        file.extend_from_slice(&value.to_le_bytes());
    }
    file.extend_from_slice(&1u32.to_le_bytes()); // p_type: load
    file.extend_from_slice(&5u32.to_le_bytes()); // p_flags: read, execute
    for value in [0, BASE, BASE, length, length, 0x1000] {
        // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
        file.extend_from_slice(&value.to_le_bytes());
    }
    file.extend_from_slice(&code);
    file
}

/// `write(1, GREETING)`, then `pause()` for ever.
#[rustfmt::skip]
fn code() -> Vec<u8> {
    let length = GREETING.len() as u8;
    let parts: [&[u8]; 9] = [
        b"\xb8\x01\x00\x00\x00",                       // mov eax, 1 (write)
        b"\xbf\x01\x00\x00\x00",                       // mov edi, 1 (standard output)
        &[0x48, 0x8d, 0x35, GREETING_DISTANCE, 0, 0, 0], // lea rsi, [rip + distance]
        &[0xba, length, 0, 0, 0],                      // mov edx, length
        b"\x0f\x05",                                   // syscall
        b"\xb8\x22\x00\x00\x00",                       // sleep: mov eax, 34 (pause)
        b"\x0f\x05",                                   // syscall
        b"\xeb\xf7",                                   // jmp sleep
        GREETING,
    ];
    parts.concat()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs it on this machine, which is the surest test of an ELF file made by hand.
    #[test]
    fn it_says_that_it_is_there_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("init");
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(&elf()).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
        drop(file);
        let mut child = Command::new(&path).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = vec![0; GREETING.len()];
        let result = child.stdout.take().unwrap().read_exact(&mut said);
        let running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        result.unwrap();
        assert_eq!(said, GREETING);
        assert!(running, "it ended");
    }
}
