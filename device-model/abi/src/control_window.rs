// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! The control window, BAR5: by it a program in the guest asks for what a program on the host asks for by the control socket.
//!
//! The BAR exists only on a machine that was started with it (`--control-window`). Drivers do not use it, and a reset of the device does not
//! change its state.
//!
//! A program writes a request, one line of JSON without its end, to the buffer and its length to [`SUBMIT`]. [`STATE`] then reads
//! [`WindowState::Busy`] until the answer is in the buffer in the request's place, and [`LENGTH`] reads its length. Requests and answers are
//! those of the socket; an answer that does not fit is replaced by an error. All accesses are naturally aligned, of 4 or 8 bytes.

/// Size of the window in bytes.
pub const SIZE: u32 = 0x1_0000;
/// What [`IDENT`] reads: "ECTL" in memory order.
pub const MAGIC: u32 = u32::from_le_bytes(*b"ECTL");

/// Offset in the window: reads [`MAGIC`].
pub const IDENT: u32 = 0x00;
/// Offset in the window: written with the length of the request in bytes. A request of no bytes, one that is longer than the buffer
/// and one before the answer to the last one are ignored.
pub const SUBMIT: u32 = 0x04;
/// Offset in the window: reads a [`WindowState`].
pub const STATE: u32 = 0x08;
/// Offset in the window: reads the length of the answer in bytes, zero without one.
pub const LENGTH: u32 = 0x0c;
/// Offset in the window of the buffer.
pub const BUFFER: u32 = 0x1000;
/// Bytes of the buffer.
pub const BUFFER_SIZE: u32 = SIZE - BUFFER;

/// What the window does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum WindowState {
    /// Nothing was asked for yet.
    Idle = 0,
    /// A request is being carried out. What is read from the buffer is undefined, and writes to it are lost.
    Busy = 1,
    /// The answer is in the buffer.
    Done = 2,
}

impl WindowState {
    /// The state of a number.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            0 => Some(Self::Idle),
            1 => Some(Self::Busy),
            2 => Some(Self::Done),
            _ => None,
        }
    }
}
