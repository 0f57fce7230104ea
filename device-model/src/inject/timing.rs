// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long work takes: the bandwidth and the latency of the link, and the bandwidth of an engine, as real delays.
//!
//! The device moves data as fast as its host can. With a timing, a command waits behind each piece of its work until a device of that
//! speed would have done it. Work that shares an engine or the link shares its bandwidth: each has a time until which it is
//! busy ([`BusyUntil`]).

use serde::{Deserialize, Serialize};

/// How long work takes. The default is as fast as the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Timing {
    /// Bandwidth of the link to the system in bytes per second, each direction; 0 for as fast as the host.
    pub link_bytes_per_second: u64,
    /// What each piece of work over the link takes besides, in nanoseconds.
    pub link_latency_ns: u64,
    /// Bandwidth of an engine in bytes per second; 0 for as fast as the host.
    pub engine_bytes_per_second: u64,
}

/// A timing and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// By which it is chosen.
    pub name: &'static str,
    /// What it stands for, for lists.
    pub description: &'static str,
    /// The timing.
    pub timing: Timing,
}

const fn link(
    name: &'static str,
    description: &'static str,
    link_bytes_per_second: u64,
    link_latency_ns: u64,
) -> Preset {
    Preset { name, description, timing: Timing { link_bytes_per_second, link_latency_ns, engine_bytes_per_second: 0 } }
}

/// The presets. Bandwidths are those of the link's lanes after line coding, latencies orders of magnitude.
pub const PRESETS: &[Preset] = &[
    link("pcie-4-x16", "PCIe 4.0, 16 lanes of 16 GT/s", 31_500_000_000, 500),
    link("pcie-5-x16", "PCIe 5.0, 16 lanes of 32 GT/s", 63_000_000_000, 500),
    link("pcie-6-x16", "PCIe 6.0, 16 lanes of 64 GT/s", 121_000_000_000, 500),
    link("cxl-2-x8", "CXL 2.0, 8 lanes of 32 GT/s", 31_500_000_000, 200),
    link("usb-like", "a link as slow as USB 3.2 Gen 2", 1_200_000_000, 50_000),
];

/// A piece of work that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Bytes that an engine has moved.
    pub(crate) bytes: u64,
    /// Whether they went over the link.
    pub(crate) is_over_link: bool,
}

/// The time until which something is busy, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BusyUntil(u64);

impl BusyUntil {
    /// Adds work that takes this long and is there at `from`; returns when it is done.
    fn add(&mut self, from: u64, takes: u64) -> u64 {
        self.0 = self.0.max(from).saturating_add(takes);
        self.0
    }
}

/// A timing, and what is busy until when.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    pub(super) timing: Timing,
    link: BusyUntil,
    engines: [BusyUntil; 16],
}

impl Pace {
    pub(super) fn new(timing: Timing) -> Self {
        Self { timing, ..Self::default() }
    }

    /// When a piece of an engine's work that was begun at `began` is done.
    pub(super) fn done_at(&mut self, engine: u8, piece: Piece, began: u64) -> u64 {
        let Timing { link_bytes_per_second, link_latency_ns, engine_bytes_per_second } = self.timing;
        let mut done = began;
        if let Some(busy) = self.engines.get_mut(usize::from(engine)) {
            done = done.max(busy.add(began, nanoseconds(piece.bytes, engine_bytes_per_second)));
        }
        if piece.is_over_link {
            let sent = self.link.add(began, nanoseconds(piece.bytes, link_bytes_per_second));
            // Latencies overlap.
            done = done.max(sent.saturating_add(link_latency_ns));
        }
        done
    }
}

/// How long it takes to move this much, rounded up; nothing at a bandwidth of 0, which stands for the host's.
fn nanoseconds(bytes: u64, bytes_per_second: u64) -> u64 {
    let Some(per_second) = u128::from(bytes).checked_mul(1_000_000_000).filter(|_| bytes_per_second > 0) else {
        return 0;
    };
    u64::try_from(per_second.div_ceil(bytes_per_second.into())).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_takes_no_time() {
        let piece = Piece { bytes: u64::MAX, is_over_link: true };
        assert_eq!(Pace::default().done_at(0, piece, 7), 7);
    }

    #[test]
    fn work_shares_the_link_and_latencies_overlap() {
        let mut pace = Pace::new(Timing { link_bytes_per_second: 1 << 30, link_latency_ns: 10, ..Timing::default() });
        let piece = Piece { bytes: 1 << 30, is_over_link: true };
        assert_eq!([pace.done_at(0, piece, 0), pace.done_at(1, piece, 0)], [1_000_000_010, 2_000_000_010]);
        let local = Piece { is_over_link: false, ..piece };
        assert_eq!(pace.done_at(0, local, 5), 5);
    }

    proptest! {
        #[test]
        fn no_bandwidth_is_exceeded(
            pieces in prop::collection::vec((0_u64..1 << 40, 0_u64..1 << 40), 1..50),
            engine_bytes_per_second in 1_u64..1 << 40,
        ) {
            let mut pace = Pace::new(Timing { engine_bytes_per_second, ..Timing::default() });
            let (mut now, mut sum, mut first) = (0_u64, 0_u128, None);
            for (bytes, pause) in pieces {
                now += pause;
                let begin = *first.get_or_insert(now);
                let done = pace.done_at(3, Piece { bytes, is_over_link: false }, now);
                sum += u128::from(bytes);
                prop_assert!(done >= now);
                let took = u128::from(done - begin);
                prop_assert!(took * u128::from(engine_bytes_per_second) >= sum * 1_000_000_000 || sum == 0);
            }
        }

        #[test]
        fn nothing_overflows(bytes: u64, rate: u64, latency: u64, now: u64, engine: u8) {
            let timing = Timing { link_bytes_per_second: rate, link_latency_ns: latency, engine_bytes_per_second: rate };
            let mut pace = Pace::new(timing);
            let piece = Piece { bytes, is_over_link: true };
            let first = pace.done_at(engine, piece, now);
            prop_assert!(first >= now && pace.done_at(engine, piece, now) >= first);
        }
    }
}
