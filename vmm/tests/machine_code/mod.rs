// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Writes tiny guests: 64-bit machine code, one method for an instruction or two.

// Each test file uses its own part.
#![allow(dead_code)]

/// Config space by ECAM.
const ECAM: u64 = 0xe000_0000;

/// Config space of the root port of a slot: device *slot* + 1 on bus 0.
pub const fn port(slot: u64) -> u64 {
    ECAM + ((slot + 1) << 15)
}

/// Config space of the function in a slot: device 0 on bus *slot* + 1.
pub const fn config(slot: u64) -> u64 {
    ECAM + ((slot + 1) << 20)
}

/// Machine code that grows at its end.
#[derive(Clone, Default)]
pub struct Code(Vec<u8>);

impl Code {
    /// No code.
    pub fn new() -> Self {
        Self::default()
    }

    /// The code. Running off its end would be a test's mistake: it spins there.
    pub fn bytes(self) -> Vec<u8> {
        self.spin().0
    }

    fn add(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn add_with(self, opcode: &[u8], operand: &[u8]) -> Self {
        self.add(opcode).add(operand)
    }

    fn mov_dx(self, port: u16) -> Self {
        self.add_with(&[0x66, 0xba], &port.to_le_bytes())
    }

    fn mov_eax(self, value: u32) -> Self {
        self.add_with(&[0xb8], &value.to_le_bytes())
    }

    fn mov_rbx(self, value: u64) -> Self {
        self.add_with(&[0x48, 0xbb], &value.to_le_bytes())
    }

    /// Writes a byte to a port.
    pub fn out8(self, port: u16, value: u8) -> Self {
        self.mov_dx(port).mov_eax(value.into()).add(&[0xee])
    }

    /// Writes four bytes to a port.
    pub fn out32(self, port: u16, value: u32) -> Self {
        self.mov_dx(port).mov_eax(value).add(&[0xef])
    }

    /// Reads a port into AL.
    pub fn in8(self, port: u16) -> Self {
        self.mov_dx(port).add(&[0xec])
    }

    /// Reads a port into EAX.
    pub fn in32(self, port: u16) -> Self {
        self.mov_dx(port).add(&[0xed])
    }

    /// Writes four bytes of memory.
    pub fn store32(self, address: u64, value: u32) -> Self {
        self.mov_rbx(address).mov_eax(value).add(&[0x89, 0x03])
    }

    /// Reads four bytes of memory into EAX.
    pub fn load32(self, address: u64) -> Self {
        self.mov_rbx(address).add(&[0x8b, 0x03])
    }

    /// Has the root port of a slot forward 0xc000_0000 to 0xe000_0000 and 4 GiB to 8 GiB, so that tests may choose addresses.
    pub fn open_port(self, slot: u64) -> Self {
        self.store32(port(slot) + 0x20, 0xdff0_c000)
            .store32(port(slot) + 0x24, 0xfff0_0000)
            .store32(port(slot) + 0x28, 1)
            .store32(port(slot) + 0x2c, 1)
    }

    /// Ends the machine with AL as its exit status.
    pub fn exit_with_al(self) -> Self {
        self.mov_dx(0xf4).add(&[0xee])
    }

    /// Reads a port until one of the bits of `mask` is set.
    pub fn wait_port(self, port: u16, mask: u8) -> Self {
        // in al, dx; test al, mask; jz back
        self.mov_dx(port).add(&[0xec, 0xa8, mask, 0x74, 0xfb])
    }

    /// Reads four bytes of memory until they are `value`.
    pub fn wait_memory(self, address: u64, value: u32) -> Self {
        // mov eax, [rbx]; cmp eax, value; jne back
        self.mov_rbx(address).add(&[0x8b, 0x03]).add_with(&[0x3d], &value.to_le_bytes()).add(&[0x75, 0xf7])
    }

    /// Does all of the above again, for ever.
    pub fn repeat(self) -> Self {
        // jmp back to the start
        let length = i32::try_from(self.0.len() + 5).expect("a short program");
        self.add_with(&[0xe9], &(-length).to_le_bytes())
    }

    /// Stays here.
    pub fn spin(self) -> Self {
        self.add(&[0xeb, 0xfe])
    }

    /// An instruction that no processor has.
    pub fn invalid_instruction(self) -> Self {
        self.add(&[0x0f, 0x0b])
    }
}
