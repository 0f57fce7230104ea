// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest boots with.

use clap::Args;
use ersatz_device_model::size;
use ersatz_guest_image::manifest::DEBUG_KERNEL;
use serde::{Deserialize, Serialize};

use super::path::{PathMapping, ReadPath};

/// Smallest guest memory in bytes: below it a stock kernel cannot unpack itself and its initramfs.
const MEMORY_MIN: u64 = 128 << 20;
/// Largest guest memory in bytes: what the machine's address map has room for below the BAR windows.
const MEMORY_MAX: u64 = 256 << 30;

/// What a guest boots with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// The kernel, a bzImage or an ELF file.
    pub kernel: ReadPath,
    /// The initramfs.
    pub initramfs: ReadPath,
    /// The kernel's command line.
    pub command_line: String,
    /// Processors and memory.
    pub resources: Resources,
}

/// Processors and memory of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct Resources {
    /// Guest memory; the debug kernel has 3G by default, since KASAN takes an eighth for its shadow and makes objects larger
    #[arg(long, value_name = "SIZE", value_parser = memory_size, default_value = "1G",
        default_value_if("kernel", DEBUG_KERNEL, "3G"))]
    pub memory: u64,
    /// Number of vCPUs
    #[arg(long = "cpus", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64), default_value = "2")]
    pub vcpus: u8,
}

impl MachineSpec {
    /// Returns the same machine with its paths mapped.
    ///
    /// # Errors
    ///
    /// Those of `mapping`.
    pub fn map_paths<M: PathMapping>(&self, mapping: &mut M) -> Result<Self, M::Error> {
        let Self { kernel, initramfs, command_line, resources } = self;
        Ok(Self {
            kernel: mapping.read(kernel)?,
            initramfs: mapping.read(initramfs)?,
            command_line: command_line.clone(),
            resources: *resources,
        })
    }
}

/// Reads `--memory`.
fn memory_size(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text).map_err(|error| error.to_string())?;
    check_memory(bytes).map(|()| bytes)
}

/// Checks that a guest may have this much memory, in bytes.
///
/// # Errors
///
/// Fails with what it may have instead.
pub fn check_memory(bytes: u64) -> Result<(), String> {
    if !(MEMORY_MIN..=MEMORY_MAX).contains(&bytes) {
        return Err(format!("a guest may have {} to {}", size::format(MEMORY_MIN), size::format(MEMORY_MAX)));
    }
    if bytes % (2 << 20) != 0 {
        return Err("memory comes in multiples of 2M; type for example 512M or 2G".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_limits() {
        assert_eq!(memory_size("128M"), Ok(128 << 20));
        assert!(memory_size("127M").is_err());
        assert!(memory_size("1T").is_err());
        assert!(memory_size("129M").unwrap_err().contains("2M"));
    }
}
