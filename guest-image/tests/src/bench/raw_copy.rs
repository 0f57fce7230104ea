// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How fast a copy engine copies by itself: lists of 2 MiB pieces, written by this process straight into a channel.

use std::time::Instant;

use ersatz_abi::command::{ListEntry, Operation};

use crate::direct::buffer::Buffer;
use crate::direct::channel::{Channel, Setup, copy_entry};
use crate::direct::gpu::Gpu;
use crate::region::HUGE_PAGE;

/// Pieces in each of the two memories.
const PIECES: usize = 4;
/// How often a list has each piece.
const TURNS: usize = 8;
/// Lists in one measurement: their time is that from the doorbell of the first to the fence of the last.
const LISTS: usize = 2;
/// Measurements, of which the median counts.
const ROUNDS: usize = 7;

/// Rates in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawRates {
    /// From system memory to VRAM.
    pub to_device: f64,
    /// From VRAM to system memory.
    pub to_system: f64,
}

/// Takes the GPU off its driver for as long as it takes, and measures.
///
/// # Panics
///
/// If the device does not work, or a process has it open.
pub fn measure() -> RawRates {
    let gpu = Gpu::claim();
    let channel = Channel::open(&gpu, Setup::new(0, 0));
    let system: Vec<_> = (0..PIECES).map(|_| gpu.system().take(HUGE_PAGE)).collect();
    let vram: Vec<_> = (0..PIECES).map(|_| gpu.vram().take(HUGE_PAGE)).collect();
    RawRates { to_device: rate(&channel, &system, &vram), to_system: rate(&channel, &vram, &system) }
}

fn rate(channel: &Channel<'_>, sources: &[Buffer<'_>], destinations: &[Buffer<'_>]) -> f64 {
    let pairs = sources.iter().zip(destinations);
    let turn: Vec<ListEntry> = pairs.map(|(&source, &destination)| copy_entry(source, destination)).collect();
    let list = channel.list(&turn.repeat(TURNS));
    let bytes = (LISTS * TURNS * turn.len() * HUGE_PAGE) as f64;
    let mut rates: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let last = (0..LISTS).map(|_| channel.submit(Operation::Copy(list))).last();
            channel.wait(last.unwrap_or_default());
            bytes / start.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_unstable_by(f64::total_cmp);
    rates[ROUNDS / 2]
}
