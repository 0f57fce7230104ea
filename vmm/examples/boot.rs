// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Boots a kernel with nothing but the machine: no terminal handling, no kernel log checks.
//!
//! ```text
//! boot KERNEL INITRAMFS MEMORY_MIB VCPUS VRAM_MIB SECONDS COMMAND_LINE...
//! ```
//!
//! VRAM_MIB is 0 for no GPU. After SECONDS it says where the guest is, has the guest's kernel say the same, and ends.

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ersatz::gpu::{self, GpuAddress};
use ersatz::machine::{BusConnections, Console, End, FunctionFactory, Machine, MachineConfig, MachineHandle, Payload};
use ersatz::spec::GpuSpec;

/// How long the guest's kernel gets to print what an NMI makes it print.
const LAST_WORDS: Duration = Duration::from_secs(5);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let mut next = |what| arguments.next().ok_or(format!("{what} is missing"));
    let (kernel, initramfs) = (next("KERNEL")?, next("INITRAMFS")?);
    let (memory, vcpus) = (next("MEMORY_MIB")?, next("VCPUS")?);
    let (vram, seconds) = (next("VRAM_MIB")?.parse::<u64>()?, next("SECONDS")?);
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
    let functions = if vram > 0 { vec![gpu_factory(vram << 20)] } else { Vec::new() };
    let console = Console { output: Box::new(io::stdout()), input: None };
    let machine = Machine::new(&config, functions, console)?;
    let handle = machine.handle();
    limit(handle.clone(), Duration::from_secs(seconds.parse()?));
    let end = machine.run();
    eprintln!("{end:?}; exits: {}", handle.exits());
    match end? {
        End::Exited(status) => Ok(status.into()),
        _ => Ok(ExitCode::FAILURE),
    }
}

fn gpu_factory(vram: u64) -> FunctionFactory {
    let spec = GpuSpec::new(vram);
    Box::new(move |BusConnections { dma, interrupts, requester_id, .. }| {
        let address = GpuAddress { requester_id, ..GpuAddress::default() };
        Ok(gpu::build(&spec, &address, dma, interrupts)?)
    })
}

/// Ends the machine after a while.
fn limit(handle: MachineHandle, time: Duration) {
    thread::spawn(move || {
        thread::sleep(time);
        for state in handle.vcpus() {
            eprintln!("{state}");
        }
        handle.inject_nmi();
        thread::sleep(LAST_WORDS);
        handle.stop();
    });
}
