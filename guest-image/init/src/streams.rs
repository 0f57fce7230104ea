// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The standard streams of the command as virtio-serial ports: every byte reaches the host as it is, and the console is left to the
//! kernel.

use std::fs::File;

use ersatz_guest_image::run::STREAM_PORTS;

use crate::virtio_port::{Direction, PortError, open};

/// Opens standard input, output and error.
///
/// # Errors
///
/// Fails if one is not there in time, or cannot be opened.
pub fn open_all() -> Result<[File; 3], PortError> {
    let [input, output, errors] = STREAM_PORTS;
    Ok([open(input, Direction::In)?, open(output, Direction::Out)?, open(errors, Direction::Out)?])
}
