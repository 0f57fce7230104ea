// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! List entries at the edges of what there is: the end of VRAM, of memory, of 64-bit addresses. Such an entry is executed, or it is
//! an error that names the right place; nothing is accessed elsewhere.

use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::{LIST_ENTRY_BYTES, List, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::list::{Aperture, Location};
use ersatz_abi::regs;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use ersatz_device_testing::{DATA, Host, LISTS, RAM, command, entry, reg};

const VRAM: u64 = 64 << 20;

/// An address at or near an edge, a multiple of 8.
fn address() -> impl Strategy<Value = u64> {
    let edges = prop_oneof![Just(0_u64), Just(VRAM), Just(RAM), Just(1 << 32), Just(1 << 52), Just(0)];
    (edges, -3_i64..=3, prop_oneof![Just(8_i64), Just(4096), Just(65_536)])
        .prop_map(|(edge, steps, size)| edge.wrapping_add_signed(steps * size))
}

fn location() -> impl Strategy<Value = Location> {
    (any::<bool>(), address()).prop_map(|(system, address)| match system {
        true => Location::system(address),
        false => Location::vram(address),
    })
}

/// The error that a copy must end in, with its address; none if it is to be executed.
fn expected(source: Location, destination: Location, length: u64) -> Option<(ErrorCode, u64)> {
    let place = LISTS;
    if [source, destination].iter().any(|at| at.address.checked_add(length).is_none()) {
        return Some((ErrorCode::BadLength, place));
    }
    for at in [source, destination] {
        if at.aperture == Aperture::Vram && at.address + length > VRAM {
            return Some((ErrorCode::VramRange, at.address));
        }
    }
    if source.aperture == destination.aperture && source.address.abs_diff(destination.address) < length {
        return Some((ErrorCode::Overlap, destination.address));
    }
    let refused = |at: Location| {
        let beyond = at.aperture == Aperture::System && at.address + length > RAM;
        beyond.then_some(at.address.max(RAM))
    };
    refused(source)
        .map(|address| (ErrorCode::DmaRead, address))
        .or_else(|| refused(destination).map(|address| (ErrorCode::DmaWrite, address)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn an_entry_is_executed_or_refused_for_the_right_reason(
        source in location(),
        destination in location(),
        length in prop_oneof![Just(8_u32), Just(4096), Just(12_288), Just(65_536)],
    ) {
        // What a copy of these may write must not be what the test needs.
        let reserved = |at: Location| at.aperture == Aperture::System && at.address < DATA;
        prop_assume!(!reserved(destination));
        let mut host = Host::new();
        host.enable(0, 1);
        host.list(LISTS, &[entry(source, destination, length)]);
        host.submit(command(Operation::Copy(List { address: LISTS, count: 1 })));
        host.wait_until("the end", |host| host.status(0).state() == Some(ChannelState::Error) || host.get() == 1);
        let found = host.status(0).error().filter(|error| *error != ErrorCode::None);
        let found = found.map(|error| (error, host.read64(reg(0, regs::ERROR_ADDRESS))));
        prop_assert_eq!(found, expected(source, destination, length.into()));
        prop_assert_eq!(host.counter(Counter::CopyEntries), u64::from(found.is_none()));
    }
}

/// The error of a copy over a list, with its address and entry.
fn refusal(address: u64, count: u32, prepare: impl FnOnce(&Host)) -> (Option<ErrorCode>, u64, u64) {
    let mut host = Host::new();
    prepare(&host);
    host.enable(0, 1);
    host.submit(command(Operation::Copy(List { address, count })));
    host.wait_until("the error", |host| host.status(0).state() == Some(ChannelState::Error));
    (host.status(0).error(), host.read64(reg(0, regs::ERROR_ADDRESS)), host.read64(reg(0, regs::ERROR_POSITION)) >> 32)
}

#[test]
fn lists_may_come_close_to_the_end_of_addresses_but_not_reach_it() {
    let last = u64::MAX - 31;
    assert_eq!(refusal(last, 1, |_| ()), (Some(ErrorCode::BadListAddress), last, 0));
    assert_eq!(refusal(last - 32, 2, |_| ()), (Some(ErrorCode::BadListAddress), last - 32, 0));
    assert_eq!(refusal(last - 32, 1, |_| ()), (Some(ErrorCode::DmaRead), last - 32, 0));
    let most = 65_536 * LIST_ENTRY_BYTES;
    assert_eq!(refusal(0_u64.wrapping_sub(most), 65_536, |_| ()).0, Some(ErrorCode::BadListAddress));
    assert_eq!(refusal(0_u64.wrapping_sub(most) - 32, 65_536, |_| ()).0, Some(ErrorCode::DmaRead));
}

/// The last entry that is in memory is executed, the first that is not is the error, though both were fetched at once.
#[test]
fn a_list_may_end_where_memory_does() {
    let good = [entry(Location::vram(0), Location::vram(4096), 8), entry(Location::vram(0), Location::vram(8192), 8)];
    let write = |host: &Host| {
        host.list(RAM - 2 * LIST_ENTRY_BYTES, &good);
        host.memory.write_obj(0_u64, GuestAddress(DATA)).unwrap();
    };
    let begin = RAM - 2 * LIST_ENTRY_BYTES;
    assert_eq!(refusal(begin, 3, write), (Some(ErrorCode::DmaRead), RAM, 2));
}
