// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Nodes of memory: which there are, which a region is to use, and which its pages are on.

use std::fs;

use nix::errno::Errno;
use nix::libc::{SYS_mbind, c_int, c_long, c_ulong, syscall};

use crate::region::Region;

/// A policy of memory (`linux/mempolicy.h`).
#[derive(Clone, Copy, Debug)]
pub enum Policy {
    /// These nodes first.
    Preferred,
    /// No other nodes.
    Bind,
    /// A page on each in turn.
    Interleave,
}

/// Number of nodes, which are 0 and up.
pub fn nodes() -> usize {
    let is_node = |name: &str| name.strip_prefix("node").is_some_and(|rest| rest.parse::<u32>().is_ok());
    let entries = fs::read_dir("/sys/devices/system/node").into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_node)).count().max(1)
}

/// Sets the policy by which pages of a region are made from now on.
pub fn set_policy(region: &Region, policy: Policy, nodes: &[usize]) {
    let mode: c_int = match policy {
        Policy::Preferred => 1,
        Policy::Bind => 2,
        Policy::Interleave => 3,
    };
    let mask: c_ulong = nodes.iter().fold(0, |mask, node| mask | 1 << node);
    let (span, bits) = (region.span(), c_ulong::BITS as c_ulong);
    // SAFETY: The range is the region's own, and a policy changes no content; the mask has the bits that are said.
    let result: c_long =
        unsafe { syscall(SYS_mbind, span.address as c_ulong, span.length as c_ulong, mode, &raw const mask, bits, 0) };
    Errno::result(result).expect("mbind");
}

/// Number of pages, small ones or parts of huge ones, that a region has on each node. Pages on the device are on none.
pub fn pages_by_node(region: &Region) -> Vec<usize> {
    let mut counts = vec![0; nodes()];
    let maps = fs::read_to_string("/proc/self/numa_maps").expect("/proc/self/numa_maps");
    let start = format!("{:08x} ", region.span().address);
    let line = maps.lines().find(|line| line.starts_with(&start)).expect("a line of the region's own in numa_maps");
    for field in line.split(' ') {
        let Some((node, pages)) = field.strip_prefix('N').and_then(|field| field.split_once('=')) else { continue };
        counts[node.parse::<usize>().expect("a node's number")] = pages.parse().expect("a number of pages");
    }
    counts
}
