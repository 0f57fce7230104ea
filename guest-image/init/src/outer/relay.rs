// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Moves the command's input and output between it and the host.

use std::io::{Read, Write};
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ersatz_guest_image::outer::channel::{Decoder, Message};
use nix::sys::signal::Signal;

use super::port::Port;

/// Bytes read from the command at a time.
const CHUNK: usize = 16 << 10;

/// How long to let output gather before it is sent. A guest's console comes byte by byte, and a message for each, with two
/// switches of task, would take the one processor from the guest.
const GATHER: Duration = Duration::from_millis(2);

/// Messages of input that may wait for a command which does not read. When they are full, the host waits too.
const BACKLOG: usize = 64;

/// How long to wait before reading again while no host is there.
const RETRY: Duration = Duration::from_millis(100);

/// Starts the thread that sends what the command writes. It ends when the command's end is closed.
pub fn output<R: Read + Send + 'static>(mut from: R, port: &Port, wrap: fn(Vec<u8>) -> Message) -> JoinHandle<()> {
    let port = port.clone();
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    port.send(&wrap(buffer[..length].to_vec()));
                    std::thread::sleep(GATHER);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    })
}

/// Starts the threads that take the host's messages. They run until the machine ends.
pub fn input(port: &Port, target: Option<ChildStdin>, signal: impl Fn(Signal) + Send + 'static) {
    let (sender, receiver) = sync_channel(BACKLOG);
    std::thread::spawn(move || feed(target, &receiver));
    let port = port.clone();
    std::thread::spawn(move || {
        let mut reader = port.reader();
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; CHUNK];
        while let Ok(length) = reader.read(&mut buffer) {
            if length == 0 {
                // While no host is at the other end, the driver reports that at once, each time.
                std::thread::sleep(RETRY);
                continue;
            }
            let result = decoder.push(&buffer[..length], |message| match message {
                Message::Signal(number) => {
                    if let Ok(number) = Signal::try_from(i32::from(number)) {
                        signal(number);
                    }
                }
                // The feeder lives as long as this thread, which holds the sender.
                message => drop(sender.send(message)),
            });
            if let Err(error) = result {
                port.send(&Message::Stage(error.to_string()));
                return;
            }
        }
    });
}

/// Hands input to the command as fast as it takes it. No bytes at all are the end of its input.
fn feed(mut target: Option<ChildStdin>, messages: &Receiver<Message>) {
    for message in messages {
        let Message::Input(data) = message else { continue };
        // A pipe that is dropped is closed.
        target = target.filter(|_| !data.is_empty());
        if target.as_mut().is_some_and(|pipe| pipe.write_all(&data).is_err()) {
            target = None;
        }
    }
}
