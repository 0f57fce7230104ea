// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control window, BAR5, by which a program in the guest controls the world behind the device: breakpoints, rules, queries.
//!
//! The model has no language of requests; its embedder does, and gives the GPU a [`ControlHandler`]. A thread of the GPU calls it, so an
//! access to the window never waits for a request.

use std::fmt::Debug;
use std::sync::{Condvar, PoisonError};

use ersatz_abi::control_window::{BUFFER, BUFFER_SIZE, IDENT, LENGTH, MAGIC, SIZE, STATE, SUBMIT, WindowState};

use crate::sync::Mutex;

/// Carries out the requests of a control window.
pub trait ControlHandler: Debug + Send + Sync {
    /// Carries out a request and returns its answer, of at most `room` bytes. What waits looks at `is_stopped` now and then: when
    /// that says so the GPU is being dropped, and waits for this call.
    fn carry_out(&self, request: &[u8], room: usize, is_stopped: &dyn Fn() -> bool) -> Vec<u8>;
}

/// The window.
#[derive(Debug)]
pub(crate) struct ControlWindow {
    window: Mutex<Window>,
    /// Notified when a request is submitted, and to leave.
    changed: Condvar,
}

#[derive(Debug)]
struct Window {
    state: WindowState,
    buffer: Box<[u8]>,
    /// Bytes of the request or answer in the buffer.
    length: usize,
    leaving: bool,
}

impl ControlWindow {
    pub(crate) fn new() -> Self {
        let buffer = vec![0; BUFFER_SIZE as usize].into_boxed_slice();
        Self {
            window: Mutex::new(Window { state: WindowState::Idle, buffer, length: 0, leaving: false }),
            changed: Condvar::new(),
        }
    }

    /// Reads what is at an offset; where nothing is, zeros.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some(offset) = offset_of(offset, data.len()) else { return };
        let window = self.window.lock();
        if let Some(buffer) = window.place(offset, data.len()) {
            return data.copy_from_slice(&window.buffer[buffer]);
        }
        let value = match offset {
            IDENT => MAGIC,
            STATE => window.state as u32,
            LENGTH if window.state == WindowState::Done => u32::try_from(window.length).unwrap_or(u32::MAX),
            _ => 0,
        };
        // The others are 32 bits wide.
        if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
            *data = value.to_le_bytes();
        }
    }

    /// Writes to an offset; where nothing is, the write is lost.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) {
        let Some(offset) = offset_of(offset, data.len()) else { return };
        let mut window = self.window.lock();
        if window.state == WindowState::Busy {
            return;
        }
        if let Some(buffer) = window.place(offset, data.len()) {
            window.buffer[buffer].copy_from_slice(data);
        } else if let (SUBMIT, Ok(length)) = (offset, <[u8; 4]>::try_from(data)) {
            let length = u32::from_le_bytes(length);
            if (1..=BUFFER_SIZE).contains(&length) {
                window.state = WindowState::Busy;
                window.length = length as usize;
                self.changed.notify_one();
            }
        }
    }

    /// Passes requests to a handler, one after the other, until [`Self::leave`].
    pub(crate) fn run(&self, handler: &dyn ControlHandler) {
        while let Some(request) = self.next_request() {
            let answer = handler.carry_out(&request, BUFFER_SIZE as usize, &|| self.window.lock().leaving);
            let mut window = self.window.lock();
            let length = answer.len().min(window.buffer.len());
            window.buffer[..length].copy_from_slice(&answer[..length]);
            window.length = length;
            window.state = WindowState::Done;
        }
    }

    fn next_request(&self) -> Option<Vec<u8>> {
        let mut window = self.window.lock();
        loop {
            if window.leaving {
                return None;
            }
            if window.state == WindowState::Busy {
                return Some(window.buffer[..window.length].to_vec());
            }
            window = self.changed.wait(window).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes [`Self::run`] return.
    pub(crate) fn leave(&self) {
        self.window.lock().leaving = true;
        self.changed.notify_one();
    }
}

impl Window {
    /// The part of the buffer that an access of `length` bytes at an offset in the window means.
    fn place(&self, offset: u32, length: usize) -> Option<std::ops::Range<usize>> {
        let start = offset.checked_sub(BUFFER)? as usize;
        let end = start.checked_add(length)?;
        (end <= self.buffer.len()).then_some(start..end)
    }
}

/// The offset of an access that is naturally aligned and of 4 or 8 bytes.
fn offset_of(offset: u64, length: usize) -> Option<u32> {
    let offset = u32::try_from(offset).ok()?;
    let is_aligned = matches!(length, 4 | 8) && offset as usize % length == 0;
    (offset < SIZE && is_aligned).then_some(offset)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Answers with the request, doubled.
    #[derive(Debug)]
    struct Doubling;

    impl ControlHandler for Doubling {
        fn carry_out(&self, request: &[u8], room: usize, _: &dyn Fn() -> bool) -> Vec<u8> {
            request.repeat(2).into_iter().take(room).collect()
        }
    }

    /// Waits until it is stopped.
    #[derive(Debug)]
    struct Waiting;

    impl ControlHandler for Waiting {
        fn carry_out(&self, _: &[u8], _: usize, is_stopped: &dyn Fn() -> bool) -> Vec<u8> {
            while !is_stopped() {
                std::thread::sleep(Duration::from_millis(1));
            }
            Vec::new()
        }
    }

    fn read32(window: &ControlWindow, offset: u32) -> u32 {
        let mut data = [0xff; 4];
        window.read(offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    fn write(window: &ControlWindow, offset: u32, data: &[u8]) {
        window.write(offset.into(), data);
    }

    fn running(handler: impl ControlHandler + 'static) -> (Arc<ControlWindow>, std::thread::JoinHandle<()>) {
        let window = Arc::new(ControlWindow::new());
        let shared = window.clone();
        (window, std::thread::spawn(move || shared.run(&handler)))
    }

    fn wait(window: &ControlWindow) {
        while read32(window, STATE) == WindowState::Busy as u32 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_request_has_its_answer_in_its_place() {
        let (window, thread) = running(Doubling);
        assert_eq!((read32(&window, IDENT), read32(&window, STATE)), (MAGIC, WindowState::Idle as u32));
        for _ in 0..2 {
            write(&window, BUFFER, b"12345678");
            write(&window, BUFFER + 8, b"9abc");
            write(&window, SUBMIT, &11_u32.to_le_bytes());
            wait(&window);
            assert_eq!((read32(&window, STATE), read32(&window, LENGTH)), (WindowState::Done as u32, 22));
            let mut answer = [0; 24];
            for (piece, place) in answer.chunks_mut(8).zip((BUFFER..).step_by(8)) {
                window.read(place.into(), piece);
            }
            assert_eq!(&answer[..22], b"123456789ab123456789ab");
        }
        window.leave();
        thread.join().unwrap();
    }

    #[test]
    fn lengths_that_make_no_sense_are_ignored() {
        let (window, thread) = running(Doubling);
        for length in [0, BUFFER_SIZE + 1, u32::MAX] {
            write(&window, SUBMIT, &length.to_le_bytes());
            assert_eq!(read32(&window, STATE), WindowState::Idle as u32);
        }
        write(&window, SUBMIT, &BUFFER_SIZE.to_le_bytes());
        wait(&window);
        assert_eq!(read32(&window, LENGTH), BUFFER_SIZE);
        window.leave();
        thread.join().unwrap();
    }

    #[test]
    fn a_request_that_waits_ends_with_the_device() {
        let (window, thread) = running(Waiting);
        write(&window, SUBMIT, &1_u32.to_le_bytes());
        write(&window, BUFFER, b"lost");
        assert_eq!(read32(&window, STATE), WindowState::Busy as u32);
        window.leave();
        thread.join().unwrap();
    }

    proptest! {
        #[test]
        fn accesses_of_any_kind_harm_nothing(offset in 0..2 * u64::from(SIZE), length in 0_usize..16, is_write in any::<bool>()) {
            let window = ControlWindow::new();
            let mut data = vec![0x5a; length];
            if is_write { window.write(offset, &data) } else { window.read(offset, &mut data) }
        }
    }
}
