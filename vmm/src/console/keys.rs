// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Keys that are commands and not input for the guest: those after Ctrl-A, as in QEMU.

/// Ctrl-A.
const PREFIX: u8 = 0x01;

/// Separates commands from input for the guest.
#[derive(Debug, Default)]
pub struct Keys {
    after_prefix: bool,
}

impl Keys {
    /// Takes what was typed and appends to `guest` what is for the guest. Returns true once Ctrl-A x was typed; what follows is
    /// dropped.
    pub fn take(&mut self, typed: &[u8], guest: &mut Vec<u8>) -> bool {
        for &byte in typed {
            if !std::mem::take(&mut self.after_prefix) {
                match byte {
                    PREFIX => self.after_prefix = true,
                    byte => guest.push(byte),
                }
            } else {
                match byte {
                    b'x' | b'X' => return true,
                    b'a' | PREFIX => guest.push(PREFIX),
                    // Not a command: the guest gets both, as if there were no prefix.
                    byte => guest.extend([PREFIX, byte]),
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut keys, mut guest) = (Keys::default(), Vec::new());
        let end = pieces.iter().any(|piece| keys.take(piece, &mut guest));
        (guest, end)
    }

    #[test]
    fn ordinary_keys_pass() {
        assert_eq!(typed(&[b"ls\r\x03\x04"]), (b"ls\r\x03\x04".to_vec(), false));
    }

    #[test]
    fn ctrl_a_x_ends_even_in_two_pieces() {
        assert_eq!(typed(&[b"ab\x01", b"xcd"]), (b"ab".to_vec(), true));
    }

    #[test]
    fn ctrl_a_a_is_ctrl_a_and_others_pass() {
        assert_eq!(typed(&[b"\x01a\x01\x01\x01z"]), (b"\x01\x01\x01z".to_vec(), false));
    }
}
