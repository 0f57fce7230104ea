// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The reset vector: what is executed when the guest jumps to the BIOS to reboot.
//!
//! On hardware-reduced ACPI Linux wants to reboot by EFI. Without EFI it tries the BIOS next: it goes back to real mode
//! and jumps to f000:fff0, before it would try ACPI's reset register.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::machine::layout::RESET_VECTOR;
use crate::machine::platform::{PORT_RESET, RESET_VALUE};

/// Writes the code that the BIOS of a PC would have there: it resets the machine.
///
/// # Errors
///
/// Fails if guest memory is too small.
pub fn write_reset_vector(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    let [port_low, port_high] = PORT_RESET.to_le_bytes();
    // 16-bit code: mov dx, PORT_RESET; mov al, RESET_VALUE; out dx, al; hlt; jmp back to the hlt
    let code = [0xba, port_low, port_high, 0xb0, RESET_VALUE, 0xee, 0xf4, 0xeb, 0xfd];
    memory.write_slice(&code, GuestAddress(RESET_VECTOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_between_the_vector_and_the_first_mib() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
        write_reset_vector(&memory).unwrap();
        let code: [u8; 16] = memory.read_obj(GuestAddress(RESET_VECTOR)).unwrap();
        assert_eq!(code[..3], [0xba, 0x02, 0x06], "mov dx, 0x602");
        assert_eq!(memory.read_obj::<u64>(GuestAddress(RESET_VECTOR + 16)).unwrap(), 0);
    }
}
