// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A vector of the process: the CPU fills it, the device adds it up where it is, then works on it in its own memory.
//!
//! ```text
//! cargo build -p ersatz-uapi --example shared_memory
//! ersatz run -- target/debug/examples/shared_memory
//! ```

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use ersatz_uapi::{
    Advice, Advise, Bind, KernelKind, Launch, PageState, Residency, IOC_ADVISE, IOC_BIND, IOC_LAUNCH, IOC_RESIDENCY,
};
use nix::errno::Errno;

nix::ioctl_readwrite_bad!(
    /// [`IOC_BIND`].
    bind, IOC_BIND, Bind
);
nix::ioctl_readwrite_bad!(
    /// [`IOC_ADVISE`].
    advise, IOC_ADVISE, Advise
);
nix::ioctl_readwrite_bad!(
    /// [`IOC_LAUNCH`].
    launch, IOC_LAUNCH, Launch
);
nix::ioctl_readwrite_bad!(
    /// [`IOC_RESIDENCY`].
    residency, IOC_RESIDENCY, Residency
);

const PAGE: usize = 4096;
const WORDS: usize = 16 * PAGE / 8;

/// Memory that the device writes to as well: atomics, page-aligned.
#[repr(align(4096))]
struct Words([AtomicU64; WORDS]);

/// The number of pages that are on the device.
fn pages_on_device(device: RawFd, words: &Words) -> Result<usize, Errno> {
    let mut states = [PageState::None as u8; WORDS * 8 / PAGE];
    let (address, length) = (words.0.as_ptr() as u64, size_of::<Words>() as u64);
    let mut request = Residency { address, length, states: states.as_mut_ptr() as u64 };
    // SAFETY: The ioctl reads and writes the structure, and an array with a byte for each page; both live through the call.
    unsafe { residency(device, &mut request) }?;
    Ok(states.iter().filter(|state| **state == PageState::Device as u8).count())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/ersatz0")?;
    let device = file.as_raw_fd();
    let words = Box::new(Words([const { AtomicU64::new(0) }; WORDS]));
    let sum = AtomicU64::new(0);
    for (number, word) in (0..).zip(&words.0) {
        word.store(number, Ordering::Relaxed);
    }
    let (first, count) = (words.0.as_ptr() as u64, size_of::<Words>() as u64);

    // SAFETY: The ioctl reads and writes the structure, which lives through the call.
    unsafe { bind(device, &mut Bind::default()) }?;

    let kernel = KernelKind::Sum as u32;
    let mut request = Launch { kernel, first, count, result: sum.as_ptr() as u64, ..Launch::default() };
    // SAFETY: As above; the kernel reads and writes atomics, which live through the call.
    unsafe { launch(device, &mut request) }?;
    println!("sum {}, {} pages on the device", sum.load(Ordering::Relaxed), pages_on_device(device, &words)?);

    let mut request = Advise { address: first, length: count, advice: Advice::PreferDevice as u32, flags: 0 };
    // SAFETY: As above.
    unsafe { advise(device, &mut request) }?;
    let mut request = Launch { kernel: KernelKind::AtomicAdd as u32, first, count, value: 1, ..Launch::default() };
    // SAFETY: As above.
    unsafe { launch(device, &mut request) }?;
    println!("added, {} pages on the device", pages_on_device(device, &words)?);

    let is_right = (1..).zip(&words.0).all(|(expected, word)| word.load(Ordering::Relaxed) == expected);
    println!("the words are {}what they should be", if is_right { "" } else { "not " });
    Ok(())
}
