// SPDX-License-Identifier: GPL-2.0
//! Memory that a CPU and the device take from each other by turns does not move each time.
//!
//! A piece that is asked for soon after it was moved has been taken back in between. It stays where it is for a while then, and is used from
//! there; the while doubles as often as that happens again at once.

use kernel::{
    prelude::*,
    time::{Delta, Instant, Monotonic},
};

/// How soon is at once.
const SOON: Delta = Delta::from_millis(100);
/// The shortest and the longest while, in milliseconds.
const SHORTEST_MS: i64 = 50;
const LONGEST_MS: i64 = 3200;
/// Number of pieces that are remembered; another one takes the place of that which was moved longest ago.
const PIECES: usize = 256;

/// A piece that was moved.
#[derive(Clone, Copy)]
struct Piece {
    /// Its first address.
    start: usize,
    moved: Instant<Monotonic>,
    /// How long it stays if it comes back at once.
    stay_ms: i64,
    /// Since when it stays, and for how many milliseconds.
    stays: Option<(Instant<Monotonic>, i64)>,
}

/// The pieces of an address space that were moved, each always asked for from the same first address on.
pub(crate) struct Damping(KVec<Piece>);

impl Damping {
    /// Nothing was moved yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(KVec::with_capacity(PIECES, GFP_KERNEL)?))
    }

    fn find(&mut self, start: usize) -> Option<&mut Piece> {
        self.0.iter_mut().find(|piece| piece.start == start)
    }

    /// Whether the piece that begins at `start` may be moved now.
    pub(crate) fn permits(&mut self, start: usize) -> bool {
        let Some(piece) = self.find(start) else { return true };
        if let Some((since, ms)) = piece.stays {
            if since.elapsed() < Delta::from_millis(ms) {
                return false;
            }
            piece.stays = None;
            return true;
        }
        if piece.moved.elapsed() > SOON {
            piece.stay_ms = SHORTEST_MS;
            return true;
        }
        piece.stays = Some((Instant::now(), piece.stay_ms));
        piece.stay_ms = (piece.stay_ms * 2).min(LONGEST_MS);
        false
    }

    /// Notes that the piece that begins at `start` was moved, or that this was tried.
    pub(crate) fn note(&mut self, start: usize) {
        let moved = Instant::now();
        if let Some(piece) = self.find(start) {
            piece.moved = moved;
            return;
        }
        let new = Piece { start, moved, stay_ms: SHORTEST_MS, stays: None };
        if self.0.push_within_capacity(new).is_err() {
            if let Some(oldest) = self.0.iter_mut().max_by_key(|piece| piece.moved.elapsed().as_nanos()) {
                *oldest = new;
            }
        }
    }
}
