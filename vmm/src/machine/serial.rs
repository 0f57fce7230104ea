// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The serial port, `ttyS0`.
//!
//! Input waits until the guest's driver has asked to be interrupted for it: a driver that starts clears what the port has
//! received before.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The register that says what the guest wants interrupts for.
pub const INTERRUPT_ENABLE: u8 = 1;

/// Whether a driver listens that has set the interrupt enable register of a 16550 to this: it wants interrupts for received
/// data. One that only looks what kind of port it has before it sets all bits for a moment.
pub fn listens(interrupt_enable: u8) -> bool {
    const RECEIVED_DATA: u8 = 1 << 0;
    const ALL: u8 = 0x0f;
    interrupt_enable & RECEIVED_DATA != 0 && interrupt_enable & ALL != ALL
}

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
    /// The guest has taken up listening.
    listened_to: AtomicBool,
}

impl SerialPort {
    /// A port that signals `interrupt`, an irqfd, and sends to `output`.
    ///
    /// # Errors
    ///
    /// Fails if no eventfd can be had.
    pub fn new(interrupt: EventFd, output: Box<dyn Write + Send>) -> io::Result<Self> {
        let room = EventFd::new(EFD_NONBLOCK)?;
        let events = RoomForInput(room.try_clone()?);
        let uart = Mutex::new(Serial::with_events(InterruptLine(interrupt), events, output));
        Ok(Self { uart, room, listened_to: AtomicBool::new(false) })
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
        let mut uart = self.uart();
        // The sink's failures are its owner's business.
        if let Err(error) = uart.write(register, value) {
            log::debug!("serial port: {error}");
        }
        // The register may also be half of a divisor, so what counts is what the write came to.
        if register == INTERRUPT_ENABLE
            && listens(uart.state().interrupt_enable)
            && !self.listened_to.swap(true, Ordering::Relaxed)
        {
            if let Err(error) = self.room.write(1) {
                log::error!("cannot ask for console input: {error}");
            }
        }
    }

    /// Bytes of input that the guest has room for; none before it listens.
    pub fn input_room(&self) -> usize {
        if self.listened_to.load(Ordering::Relaxed) { self.uart().fifo_capacity() } else { 0 }
    }

    /// Sends input to the guest; at most [`Self::input_room`] bytes of it.
    pub fn input(&self, bytes: &[u8]) {
        if let Err(error) = self.uart().enqueue_raw_bytes(bytes) {
            log::warn!("console input is lost: {error}");
        }
    }

    /// Signalled when the guest has begun to listen, and when it has read all input.
    pub fn room_event(&self) -> &EventFd {
        &self.room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::recorder::Recorder;

    #[test]
    fn input_waits_until_the_guest_listens() {
        let port = SerialPort::new(EventFd::new(EFD_NONBLOCK).unwrap(), Box::new(io::sink())).unwrap();
        assert_eq!(port.input_room(), 0);
        port.write(3, 0x80); // divisor latch
        port.write(1, 1);
        port.write(3, 0x03);
        assert_eq!(port.input_room(), 0, "half of a divisor");
        port.write(1, 0x0f);
        port.write(1, 0);
        assert_eq!(port.input_room(), 0, "a driver looks what kind of port it has");
        assert!(port.room_event().read().is_err());
        port.write(1, 0x05);
        assert!(port.room_event().read().is_ok());
        assert!(port.input_room() > 0);
        port.write(1, 0);
        assert!(port.input_room() > 0, "once listened to, it stays so: a console masks interrupts while it prints");
    }

    #[test]
    fn output_goes_to_the_sink_and_input_to_the_guest() {
        let sink = Recorder::default();
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let port = SerialPort::new(interrupt.try_clone().unwrap(), Box::new(sink.clone())).unwrap();
        port.write(0, b'x');
        assert_eq!(sink.text(), "x");

        port.write(1, 1); // interrupt when data is there
        let room = port.input_room();
        port.input(b"in");
        assert_eq!(port.input_room(), room - 2);
        assert!(interrupt.read().is_ok());
        assert_eq!([port.read(0), port.read(0)], *b"in");
        assert!(port.room_event().read().is_ok());
    }
}
