// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver behind `/dev/hmm_dmirror*`, which the tests are about: this project's, or the kernel's own `lib/test_hmm.c`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use ersatz_abi::pci;
use ersatz_guest_image::hmm_test::{self, Memory};
use ersatz_guest_image::run::TEST_DRIVER_PATH;

/// How long device files may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// The memory that `test_hmm` needs for each of its devices of the coherent type.
const SPECIAL_PURPOSE_BYTES: u64 = 256 << 20;

/// The BAR with VRAM.
const VRAM_BAR: usize = pci::BAR_VRAM as usize;

/// A driver that offers the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// This project's driver, which PID 1 has loaded with the parameter for it.
    Ersatz,
    /// The kernel's own test driver, whose device is simulated. Its memory of the coherent type is the VRAM of the GPUs.
    #[value(name = "test_hmm")]
    TestHmm,
}

impl Peer {
    /// Makes the devices ready that the tests `names` use.
    ///
    /// # Errors
    ///
    /// Fails with the reason if the driver does not offer them.
    pub fn prepare(self, names: &[String]) -> Result<(), String> {
        let memories = [Memory::Private, Memory::Coherent]
            .map(|memory| (memory, names.iter().any(|name| hmm_test::memory(name) == Some(memory))));
        let is_coherent = memories.contains(&(Memory::Coherent, true));
        if self == Self::TestHmm {
            load(is_coherent)?;
        }
        let needed = memories.iter().filter(|(_, is_needed)| *is_needed).flat_map(|(memory, _)| devices(*memory));
        let deadline = Instant::now() + PATIENCE;
        let missing: Vec<String> = needed.filter(|path| !comes(path, deadline)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let advice = match self {
            Self::Ersatz => {
                "the driver does not offer them (parameter hmm_dmirror=1), or has bound fewer than two GPUs"
            }
            Self::TestHmm => "the kernel's test driver is loaded, and does not offer them",
        };
        Err(format!("there is no {}: {advice}", missing.join(", ")))
    }
}

/// The devices of a memory type, as the tests have them: two of the private type come before two of the coherent one.
fn devices(memory: Memory) -> [String; 2] {
    let numbers = match memory {
        Memory::Private => [0, 1],
        Memory::Coherent => [2, 3],
    };
    numbers.map(|number| format!("/dev/hmm_dmirror{number}"))
}

/// Whether a device file is there, or comes before the deadline.
fn comes(path: &str, deadline: Instant) -> bool {
    while !Path::new(path).exists() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Loads the kernel's test driver, unless it is loaded.
fn load(is_coherent: bool) -> Result<(), String> {
    if Path::new("/sys/module/test_hmm").exists() {
        return Ok(());
    }
    let parameters = if is_coherent {
        let [first, second] = special_purpose_memory()?;
        format!("spm_addr_dev0={first:#x} spm_addr_dev1={second:#x}")
    } else {
        String::new()
    };
    ersatz_init::driver::load(Path::new(TEST_DRIVER_PATH), &parameters).map_err(|error| error.to_string())
}

/// Returns the addresses of the VRAM of two GPUs.
fn special_purpose_memory() -> Result<[u64; 2], String> {
    let entries = fs::read_dir("/sys/bus/pci/devices").map_err(|error| format!("cannot list PCI devices: {error}"))?;
    let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let read = |folder: &Path, name| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let is_gpu = |folder: &&std::path::PathBuf| {
        let ids = ["vendor", "device"].map(|name| read(folder, name).trim().to_owned());
        ids == [pci::VENDOR_ID, pci::DEVICE_ID].map(|id| format!("{id:#06x}"))
    };
    let bars = folders.iter().filter(is_gpu).map(|folder| bar(&read(folder, "resource"), VRAM_BAR));
    let large: Vec<u64> =
        bars.flatten().filter(|(_, bytes)| *bytes >= SPECIAL_PURPOSE_BYTES).map(|(address, _)| address).collect();
    match large[..] {
        [first, second, ..] => Ok([first, second]),
        _ => Err(format!(
            "test_hmm takes the VRAM of two GPUs for its memory of the coherent type, and {} of the GPUs have the {} MiB in a BAR that it \
             needs (--devices, --vram, --bar)",
            large.len(),
            SPECIAL_PURPOSE_BYTES >> 20
        )),
    }
}

/// Returns the address and the length in bytes of a BAR, from the content of the file `resource`; `None` if there is none.
fn bar(resource: &str, number: usize) -> Option<(u64, u64)> {
    let mut words = resource.lines().nth(number)?.split_whitespace();
    let mut next = || u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok();
    let (first, last) = (next()?, next()?);
    (first != 0).then(|| (first, (last - first).saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_read_from_its_line() {
        let resource = "0x00000000fe000000 0x00000000fe00ffff 0x0000000000040200\n\
                        0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                        0x0000380000000000 0x000038000fffffff 0x000000000014220c\n";
        assert_eq!(bar(resource, 2), Some((0x3800_0000_0000, 256 << 20)));
        assert_eq!((bar(resource, 1), bar(resource, 3), bar("x", 0)), (None, None, None));
    }
}
