// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fits the windows of root ports into a window of the host bridge, and BARs into them.
//!
//! Blocks of a larger alignment come first, and smaller ones go into the gaps that they leave.

use std::cmp::Reverse;
use std::ops::Range;

use ersatz_device_model::bus::BarInfo;

use super::window::GRANULE;

/// What a port's window must hold: BARs, and room for BARs to come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The BARs, whose sizes are powers of two.
    pub bars: Vec<BarInfo>,
    /// The least size of the window, and its least alignment: a power of two, or zero.
    pub share: u64,
}

/// Where a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedBlock {
    /// The port's window; empty if the block is.
    pub window: Range<u64>,
    /// The BARs, each with its address.
    pub bars: Vec<(BarInfo, u64)>,
}

impl Block {
    /// The BARs in the order in which they lie, and the size and alignment of the window. `None` if there is no such size.
    fn measure(&self) -> Option<(Vec<BarInfo>, u64, u64)> {
        let mut bars = self.bars.clone();
        bars.sort_by_key(|info| Reverse(info.size));
        let sum = bars.iter().try_fold(0u64, |sum, info| sum.checked_add(info.size))?;
        let size = sum.checked_next_multiple_of(GRANULE)?.max(self.share);
        let largest = bars.first().map_or(0, |info| info.size);
        Some((bars, size, largest.max(self.share).max(GRANULE)))
    }
}

/// Places all blocks in a window; the answer has their order.
///
/// # Errors
///
/// The number of a block that does not fit.
pub fn fit(window: &Range<u64>, blocks: &[Block]) -> Result<Vec<PlacedBlock>, usize> {
    let mut measured = Vec::new();
    for (number, block) in blocks.iter().enumerate() {
        measured.push((number, block.measure().ok_or(number)?));
    }
    measured.sort_by_key(|(_, (_, size, alignment))| Reverse((*alignment, *size)));
    let mut placed = vec![PlacedBlock { window: 0..0, bars: Vec::new() }; blocks.len()];
    // In the order of their addresses.
    let mut taken: Vec<Range<u64>> = Vec::new();
    for (number, (bars, size, alignment)) in measured {
        if size == 0 {
            continue;
        }
        let (index, range) = first_gap(window, &taken, size, alignment).ok_or(number)?;
        // From the largest to the smallest they need no gaps: each is a multiple of all that follow.
        let mut address = range.start;
        for info in bars {
            placed[number].bars.push((info, address));
            address += info.size;
        }
        placed[number].window = range.clone();
        taken.insert(index, range);
    }
    Ok(placed)
}

/// The lowest free range of a size and alignment, and its index among those that are taken.
fn first_gap(window: &Range<u64>, taken: &[Range<u64>], size: u64, alignment: u64) -> Option<(usize, Range<u64>)> {
    let starts = [window.start].into_iter().chain(taken.iter().map(|range| range.end));
    let ends = taken.iter().map(|range| range.start).chain([window.end]);
    starts.zip(ends).enumerate().find_map(|(index, (start, end))| {
        let start = start.checked_next_multiple_of(alignment)?;
        let range = start..start.checked_add(size)?;
        (range.end <= end).then_some((index, range))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(sizes: &[u64], share: u64) -> Block {
        let bar = |size: &u64| BarInfo { bar: 0, size: *size, is_64bit: false, prefetchable: false };
        Block { bars: sizes.iter().map(bar).collect(), share }
    }

    #[test]
    fn smaller_blocks_go_where_larger_ones_leave_room() {
        let blocks = [block(&[4096, 16 << 20], 0), block(&[], 0), block(&[1 << 30], 0), block(&[], 64 << 20)];
        let placed = fit(&(0x1000_0000..1 << 32), &blocks).unwrap();
        assert_eq!(placed[2].window, 0x4000_0000..0x8000_0000);
        assert_eq!(placed[3].window, 0x1000_0000..0x1400_0000, "in the gap before it");
        assert_eq!(placed[0].window, 0x1400_0000..0x1510_0000);
        assert_eq!(placed[0].bars.iter().map(|bar| bar.1).collect::<Vec<_>>(), [0x1400_0000, 0x1500_0000]);
        assert!(placed[1].window.is_empty());
    }

    #[test]
    fn says_which_block_does_not_fit() {
        assert_eq!(fit(&(0..1 << 20), &[block(&[], 1 << 20), block(&[16], 0)]), Err(1));
        assert_eq!(fit(&(0..u64::MAX), &[block(&[1 << 63, 1 << 63], 0)]), Err(0));
    }

    proptest! {
        #[test]
        fn nothing_overlaps_and_all_is_aligned(
            start in 0u64..1 << 24,
            length in 0u64..1 << 34,
            blocks in prop::collection::vec((prop::collection::vec(4u32..=36, 0..4), prop::option::of(20u32..=34)), 0..8),
        ) {
            let host = start * 4096..start * 4096 + length;
            let blocks: Vec<_> = blocks
                .iter()
                .map(|(orders, share)| {
                    let sizes: Vec<_> = orders.iter().map(|order| 1 << order).collect();
                    block(&sizes, share.map_or(0, |order| 1 << order))
                })
                .collect();
            let Ok(placed) = fit(&host, &blocks) else { return Ok(()) };
            let mut ranges = Vec::new();
            for (block, PlacedBlock { window, bars }) in blocks.iter().zip(&placed) {
                prop_assert_eq!((window.start % GRANULE, window.end % GRANULE), (0, 0));
                prop_assert!(window.end - window.start >= block.share);
                prop_assert!(block.share == 0 || window.start % block.share == 0);
                prop_assert_eq!(bars.len(), block.bars.len());
                prop_assert!(window.is_empty() || (host.start <= window.start && window.end <= host.end));
                ranges.push((window.start, window.end));
                let mut inside = Vec::new();
                for (info, address) in bars {
                    prop_assert_eq!(address % info.size, 0);
                    prop_assert!(window.start <= *address && address + info.size <= window.end);
                    inside.push((*address, address + info.size));
                }
                prop_assert!(disjoint(inside));
            }
            prop_assert!(disjoint(ranges));
        }
    }

    fn disjoint(mut ranges: Vec<(u64, u64)>) -> bool {
        ranges.retain(|range| range.0 < range.1);
        ranges.sort_unstable();
        ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0)
    }
}
