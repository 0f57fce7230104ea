// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A channel at work: commands in, data moved, fences and interrupts out.

mod host;

use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::Operation;
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use vm_memory::{Bytes, GuestAddress};

use host::{DATA, Host, LISTS, entry, system, vram};

fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed).wrapping_add((at >> 8) as u8)).collect()
}

#[test]
fn pages_go_to_vram_and_come_back() {
    let mut host = Host::new();
    host.enable(0, 3);
    let data = pattern(7, 3 * 4096);
    host.memory.write_slice(&data, GuestAddress(DATA)).unwrap();
    let to: Vec<_> = (0..3).map(|page| entry(system(DATA + page * 4096), vram((2 - page) * 4096), 4096)).collect();
    let list = host.list(LISTS, &to);
    host.execute(Operation::Copy(list), 1);
    let back: Vec<_> =
        (0..3).map(|page| entry(vram(page * 4096), system(DATA + 0x10_0000 + page * 4096), 4096)).collect();
    let list = host.list(LISTS, &back);
    host.execute(Operation::Copy(list), 2);
    for page in 0..3 {
        let mut found = vec![0; 4096];
        host.memory.read_slice(&mut found, GuestAddress(DATA + 0x10_0000 + (2 - page as u64) * 4096)).unwrap();
        assert_eq!(found, data[page * 4096..][..4096]);
    }
    assert_eq!(host.counter(Counter::BytesToVram), 3 * 4096);
    assert_eq!(host.counter(Counter::BytesToSystem), 3 * 4096);
    assert_eq!(host.counter(Counter::CopyEntries), 6);
    assert_eq!(host.interrupts.seen(), [3, 3]);
    host.wait_until("idle", |host| host.status(0).state() == Some(ChannelState::Idle));
    assert_eq!(host.status(0).error(), Some(ErrorCode::None));
}
