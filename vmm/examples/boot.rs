// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Boots a kernel with nothing but the machine: no GPU, no terminal handling, no time limit.
//!
//! ```text
//! boot KERNEL INITRAMFS MEMORY_MIB VCPUS COMMAND_LINE...
//! ```

use std::error::Error;
use std::io;
use std::process::ExitCode;

use ersatz::machine::{Console, End, Machine, MachineConfig, Payload};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what| arguments.next().ok_or(format!("{what} is missing"));
    let (kernel, initramfs) = (next("KERNEL")?, next("INITRAMFS")?);
    let (memory, vcpus) = (next("MEMORY_MIB")?, next("VCPUS")?);
    let config = MachineConfig {
        vcpus: vcpus.parse()?,
        memory: memory.parse::<u64>()? << 20,
        payload: Payload::Linux {
            kernel: kernel.into(),
            initramfs: initramfs.into(),
            initramfs_tail: Vec::new(),
            command_line: arguments.collect::<Vec<_>>().join(" "),
        },
    };
    let console = Console { output: Box::new(io::stdout()), input: None };
    let machine = Machine::new(config, Vec::new(), console)?;
    let handle = machine.handle();
    let end = machine.run();
    eprintln!("{end:?}; exits: {}", handle.exits());
    match end? {
        End::Exited(status) => Ok(status.into()),
        _ => Ok(ExitCode::FAILURE),
    }
}
