// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The serial port, `ttyS0`.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// An interrupt line that is an irqfd.
struct InterruptLine(EventFd);

impl Trigger for InterruptLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Tells the event loop when there is room for input again.
struct RoomForInput(EventFd);

impl SerialEvents for RoomForInput {
    fn buffer_read(&self) {}

    fn out_byte(&self) {}

    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        if let Err(error) = self.0.write(1) {
            log::error!("cannot ask for more console input: {error}");
        }
    }
}

/// A 16550A whose output goes to a sink.
pub struct SerialPort {
    uart: Mutex<Serial<InterruptLine, RoomForInput, Box<dyn Write + Send>>>,
    room: EventFd,
}

impl SerialPort {
    /// A port that signals `interrupt`, an irqfd, and sends to `output`.
    ///
    /// # Errors
    ///
    /// If no eventfd can be had.
    pub fn new(interrupt: EventFd, output: Box<dyn Write + Send>) -> io::Result<Self> {
        let room = EventFd::new(EFD_NONBLOCK)?;
        let events = RoomForInput(room.try_clone()?);
        Ok(Self { uart: Mutex::new(Serial::with_events(InterruptLine(interrupt), events, output)), room })
    }

    fn uart(&self) -> MutexGuard<'_, Serial<InterruptLine, RoomForInput, Box<dyn Write + Send>>> {
        // A sink that panics loses its byte, no more.
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a register.
    pub fn read(&self, register: u8) -> u8 {
        self.uart().read(register)
    }

    /// Writes a register.
    pub fn write(&self, register: u8, value: u8) {
        // The sink's failures are its owner's business.
        if let Err(error) = self.uart().write(register, value) {
            log::debug!("serial port: {error}");
        }
    }

    /// Bytes of input that the guest has room for.
    pub fn input_room(&self) -> usize {
        self.uart().fifo_capacity()
    }

    /// Sends input to the guest; at most [`Self::input_room`] bytes of it.
    pub fn input(&self, bytes: &[u8]) {
        if let Err(error) = self.uart().enqueue_raw_bytes(bytes) {
            log::warn!("console input is lost: {error}");
        }
    }

    /// Signalled when the guest has read all input.
    pub fn room_event(&self) -> &EventFd {
        &self.room
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn output_goes_to_the_sink_and_input_to_the_guest() {
        let sink = Sink::default();
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let port = SerialPort::new(interrupt.try_clone().unwrap(), Box::new(sink.clone())).unwrap();
        port.write(0, b'x');
        assert_eq!(*sink.0.lock().unwrap(), b"x");

        port.write(1, 1); // interrupt when data is there
        let room = port.input_room();
        port.input(b"in");
        assert_eq!(port.input_room(), room - 2);
        assert!(interrupt.read().is_ok());
        assert_eq!([port.read(0), port.read(0)], *b"in");
        assert!(port.room_event().read().is_ok());
    }
}
