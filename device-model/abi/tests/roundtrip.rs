// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! Encoding and decoding are each other's inverse, and decoding refuses all that encoding cannot make.

use ersatz_abi::command::{
    Aperture, Cause, Command, CommandError, EntryError, Header, List, ListEntry, Location, Opcode, Operation,
    ENTRY_ALIGNMENT, LIST_ENTRY_BYTES, MAX_ENTRY_BYTES, MAX_LIST_ENTRIES,
};
use ersatz_abi::counter::Counter;
use ersatz_abi::kernel::{Kernel, KernelError, KernelWords, MAX_KERNEL_COUNT};
use ersatz_abi::list::{EntryShape, ListError};
use ersatz_abi::mmu::{InvalidateScope, InvalidateTarget, Invalidation, ADDRESS_SPACES, MAX_PEERS};
use ersatz_abi::regs::{
    self, AddressSpaceRegister, ChannelRegister, ChannelStatus, Configuration, DeviceRegister, HandOver,
    NotificationRegister, Register,
};
use proptest::prelude::*;

fn list() -> impl Strategy<Value = List> {
    (1..=MAX_LIST_ENTRIES, 0..u64::MAX / LIST_ENTRY_BYTES).prop_map(|(count, slot)| {
        let last = u64::MAX / LIST_ENTRY_BYTES - u64::from(count);
        List { address: slot.min(last) * LIST_ENTRY_BYTES, count }
    })
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    (0..=u64::MAX / 8 - MAX_KERNEL_COUNT / 8, 1..=MAX_KERNEL_COUNT / 8)
        .prop_map(|(address, words)| (address * 8, words * 8))
}

fn word() -> impl Strategy<Value = u64> {
    (0..u64::MAX / 8).prop_map(|slot| slot * 8)
}

fn invalidation() -> impl Strategy<Value = Invalidation> {
    prop_oneof![
        Just(Invalidation::All),
        any::<u8>().prop_map(Invalidation::AddressSpace),
        (any::<u8>(), range()).prop_map(|(asid, (address, length))| Invalidation::Range { asid, address, length }),
    ]
}

fn kernel() -> impl Strategy<Value = Kernel> {
    let value = any::<u64>();
    prop_oneof![
        range().prop_map(|(source, length)| Kernel::Read { source, length }),
        (range(), value).prop_map(|((destination, length), seed)| Kernel::Write { destination, length, seed }),
        (range(), value).prop_map(|((destination, length), pattern)| Kernel::Set { destination, length, pattern }),
        (range(), word()).prop_map(|((source, length), result)| Kernel::Sum { source, length, result }),
        (range(), any::<u32>()).prop_map(|((x, length), factor)| Kernel::Saxpy { x, y: x, length, factor }),
        (range(), value).prop_map(|((target, length), addend)| Kernel::AtomicAdd { target, length, addend }),
        (word(), value, value, word()).prop_map(|(target, expected, replacement, result)| {
            Kernel::CompareAndSwap { target, expected, replacement, result }
        }),
        (word(), 1..=MAX_KERNEL_COUNT, word()).prop_map(|(start, steps, result)| Kernel::Chase {
            start,
            steps,
            result
        }),
        (range(), 3..40_u32, 1..=u64::MAX, 1..=MAX_KERNEL_COUNT).prop_map(|((table, _), order, seed, updates)| {
            Kernel::RandomUpdate { table, length: 1 << order, seed, updates }
        }),
        range().prop_map(|(address, length)| Kernel::Prefetch { address, length }),
        (range(), word()).prop_filter_map("ranges that overlap or wrap", |((source, length), destination)| {
            let is_apart = source.abs_diff(destination) >= length && destination.checked_add(length).is_some();
            is_apart.then_some(Kernel::Copy { source, destination, length })
        }),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        Just(Operation::Nop),
        list().prop_map(Operation::Copy),
        (list(), any::<u64>()).prop_map(|(list, pattern)| Operation::Fill(list, pattern)),
        list().prop_map(Operation::Digest),
        invalidation().prop_map(Operation::Invalidate),
        kernel().prop_map(Operation::Kernel),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let cause = proptest::sample::select(Cause::ALL);
    (operation(), cause, any::<Option<u64>>(), any::<bool>(), any::<u64>())
        .prop_map(|(operation, cause, fence, interrupt, tag)| Command { operation, cause, fence, interrupt, tag })
}

fn location(limit: u64) -> impl Strategy<Value = Location> {
    (proptest::sample::select(Aperture::ALL), 0..MAX_PEERS, 0..limit / ENTRY_ALIGNMENT).prop_map(
        |(aperture, peer, slot)| {
            let peer = if aperture == Aperture::Peer { peer } else { 0 };
            Location { aperture, peer, address: slot * ENTRY_ALIGNMENT }
        },
    )
}

fn entry() -> impl Strategy<Value = ListEntry> {
    let limit = u64::MAX - u64::from(MAX_ENTRY_BYTES);
    (location(limit), location(limit), 1..=MAX_ENTRY_BYTES / 8, any::<u64>())
        .prop_map(|(source, destination, words, tag)| ListEntry { source, destination, length: words * 8, tag })
}

proptest! {
    #[test]
    fn commands(command in command()) {
        prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
    }

    #[test]
    fn entries(entry in entry()) {
        prop_assert_eq!(ListEntry::decode(&entry.encode()), Ok(entry));
    }

    /// What decodes, encodes to the very same words: no bit is ignored.
    #[test]
    fn no_bit_of_a_command_is_ignored(command in command(), word in 0..8_usize, bit in 0..64_u32) {
        let mut words = command.encode();
        words[word] ^= 1_u64 << bit;
        if let Ok(other) = Command::decode(&words) {
            prop_assert_eq!(other.encode(), words);
        }
    }

    #[test]
    fn no_bit_of_an_entry_is_ignored(entry in entry(), word in 0..4_usize, bit in 0..64_u32) {
        let mut words = entry.encode();
        words[word] ^= 1_u64 << bit;
        if let Ok(other) = ListEntry::decode(&words) {
            prop_assert_eq!(other.encode(), words);
        }
    }

    #[test]
    fn arbitrary_words_decode_to_what_they_say_or_not_at_all(command in any::<[u64; 8]>(), entry in any::<[u64; 4]>()) {
        if let Ok(decoded) = Command::decode(&command) {
            prop_assert_eq!(decoded.encode(), command);
        }
        if let Ok(decoded) = ListEntry::decode(&entry) {
            prop_assert_eq!(decoded.encode(), entry);
        }
    }

    #[test]
    fn fields_do_not_touch_each_other(raw in any::<u64>(), count in any::<u32>(), fence in any::<bool>()) {
        let header = Header(raw).with_count(count.into()).with_fence(fence);
        prop_assert_eq!((header.count(), header.fence()), (count.into(), fence));
        prop_assert_eq!(header.raw_opcode(), Header(raw).raw_opcode());
        prop_assert_eq!(header.raw_cause(), Header(raw).raw_cause());
        prop_assert_eq!(header.interrupt(), Header(raw).interrupt());
        prop_assert_eq!(header.0 & Header::RESERVED, raw & Header::RESERVED);
    }
}

#[test]
fn each_way_a_command_can_be_wrong() {
    let list = List { address: 0x1000, count: 1 };
    let good = Command { operation: Operation::Copy(list), cause: Cause::Other, fence: None, interrupt: false, tag: 0 };
    let with = |at: usize, value: u64| {
        let mut words = good.encode();
        words[at] = value;
        Command::decode(&words)
    };
    let header = good.encode()[0];
    assert_eq!(with(0, header | 0xe0), Err(CommandError::Unknown));
    let beyond = Cause::ALL.len() as u64;
    assert_eq!(with(0, header | beyond << 16), Err(CommandError::Unknown));
    for bit in (10..16).chain(24..32) {
        assert_eq!(with(0, header | 1 << bit), Err(CommandError::Reserved), "bit {bit}");
    }
    assert_eq!(with(1, 1), Err(CommandError::Reserved), "a fence value with no fence");
    assert_eq!(with(3, 1), Err(CommandError::Reserved), "a pattern for a copy");
    for word in 5..8 {
        assert_eq!(with(word, 1 << 63), Err(CommandError::Reserved), "word {word}");
    }
    assert_eq!(with(0, Header(header).with_count(0).0), Err(CommandError::List(ListError::Count)));
    assert_eq!(
        with(0, Header(header).with_count(u64::from(MAX_LIST_ENTRIES) + 1).0),
        Err(CommandError::List(ListError::Count))
    );
    assert_eq!(with(2, 0x1010), Err(CommandError::List(ListError::Address)));
    assert_eq!(with(2, LIST_ENTRY_BYTES.wrapping_neg()), Err(CommandError::List(ListError::Address)));
}

#[test]
fn each_way_an_entry_can_be_wrong() {
    let place = |aperture| Location { aperture, peer: 0, address: 0x1000 };
    let good = ListEntry { source: place(Aperture::Vram), destination: place(Aperture::System), length: 4096, tag: 0 }
        .encode();
    let with = |at: usize, value: u64| {
        let mut words = good;
        words[at] = value;
        ListEntry::decode(&words)
    };
    assert_eq!(with(2, good[2] | 1 << 48), Err(EntryError::Reserved));
    assert_eq!(with(2, EntryShape(good[2]).with_raw_source(4).0), Err(EntryError::Aperture));
    assert_eq!(with(2, EntryShape(good[2]).with_source_peer(1).0), Err(EntryError::Aperture), "a peer for VRAM");
    let peer = EntryShape(good[2]).with_raw_source(2).with_source_peer(MAX_PEERS.into());
    assert_eq!(with(2, peer.0), Err(EntryError::Aperture), "no such peer");
    assert_eq!(with(2, EntryShape(good[2]).with_raw_destination(15).0), Err(EntryError::Aperture));
    assert_eq!(with(0, 0x1004), Err(EntryError::Alignment));
    assert_eq!(with(1, 0x1001), Err(EntryError::Alignment));
    assert_eq!(with(2, EntryShape(good[2]).with_length(12).0), Err(EntryError::Alignment));
    assert_eq!(with(2, EntryShape(good[2]).with_length(0).0), Err(EntryError::Length));
    assert_eq!(with(2, EntryShape(good[2]).with_length(u64::from(MAX_ENTRY_BYTES) + 8).0), Err(EntryError::Length));
    assert_eq!(with(0, 8_u64.wrapping_neg()), Err(EntryError::Length));
    assert_eq!(with(1, 8_u64.wrapping_neg()), Err(EntryError::Length));
}

#[test]
fn numbers_and_variants_agree() {
    for opcode in Opcode::ALL {
        assert_eq!(Opcode::from_raw(*opcode as u8), Some(*opcode));
    }
    for raw in (5..16).chain(27..=u8::MAX) {
        assert_eq!(Opcode::from_raw(raw), None);
    }
    for (raw, counter) in (0..).zip(Counter::ALL) {
        assert_eq!((Counter::from_raw(raw), *counter as u8), (Some(*counter), raw), "counters are without gaps");
    }
    assert_eq!(Cause::from_raw(u8::MAX), None);
}

#[test]
fn registers_decode_what_they_hold() {
    use ersatz_abi::channel::ChannelState;
    use ersatz_abi::error::ErrorCode;

    for state in ChannelState::ALL {
        for error in ErrorCode::ALL {
            let status = ChannelStatus::new(*state, *error);
            assert_eq!((status.state(), status.error()), (Some(*state), Some(*error)));
            assert_eq!(status.0 & ChannelStatus::RESERVED, 0);
        }
    }
    assert_eq!(ChannelStatus(0xff0f).state(), None);
    assert_eq!(ChannelStatus(0xff0f).error(), None);
    assert_eq!(Configuration(0).with_vectors(32).with_channels(64).0, 32 << 16 | 64);
    assert_eq!(Configuration(0).with_channels(256).0, 0, "what does not fit is dropped");
}

#[test]
fn every_register_is_found_at_its_offset_alone() {
    type Find = fn(u32) -> Option<&'static Register>;
    let blocks: [(&[Register], Find); 4] = [
        (regs::DEVICE_REGISTERS, |offset| DeviceRegister::from_offset(offset).map(DeviceRegister::register)),
        (regs::CHANNEL_REGISTERS, |offset| ChannelRegister::from_offset(offset).map(ChannelRegister::register)),
        (regs::NOTIFICATION_REGISTERS, |offset| {
            NotificationRegister::from_offset(offset).map(NotificationRegister::register)
        }),
        (regs::ADDRESS_SPACE_REGISTERS, |offset| {
            AddressSpaceRegister::from_offset(offset).map(AddressSpaceRegister::register)
        }),
    ];
    for (table, find) in blocks {
        for offset in 0..0x1000 {
            let row = table.iter().find(|row| row.offset == offset);
            assert_eq!(find(offset).map(|found| found.name), row.map(|row| row.name), "{offset:#x}");
        }
    }
}

#[test]
fn each_way_a_kernel_can_be_wrong() {
    let words = KernelWords { first: 0x1000, value: 1, second: 0x800, count: 0x100, result: 0x2000 };
    let operand = |value| Some(Err(KernelError::Operand(value)));
    let with = |opcode, change: fn(&mut KernelWords)| {
        let mut words = words;
        change(&mut words);
        Kernel::decode(opcode, &words)
    };
    assert_eq!(with(Opcode::Sum, |_| {}), Some(Err(KernelError::Reserved)), "a sum has no value and no second operand");
    assert_eq!(with(Opcode::Nop, |_| {}), None);
    assert_eq!(with(Opcode::Saxpy, |words| words.value = 1 << 32), Some(Err(KernelError::Reserved)));
    let random = |change| with(Opcode::RandomUpdate, change);
    assert_eq!(random(|words| words.result = 0).map(|kernel| kernel.is_ok()), Some(true));
    assert_eq!(random(|words| (words.result, words.second) = (0, 0x808)), operand(0x808), "no power of two");
    assert_eq!(random(|words| (words.result, words.value) = (0, 0)), operand(0), "a sequence that never moves");
    assert_eq!(random(|words| (words.result, words.count) = (0, 0)), operand(0), "no updates");
    let saxpy = |change| with(Opcode::Saxpy, change);
    assert_eq!(saxpy(|words| (words.result, words.second) = (0, 0x1008)), operand(0x1008), "overlapping arrays");
    assert_eq!(saxpy(|words| (words.result, words.second) = (0, 0x1100)).map(|kernel| kernel.is_ok()), Some(true));
    let copy = |change| with(Opcode::KernelCopy, change);
    let is_good = |kernel: Option<Result<Kernel, KernelError>>| kernel.map(|kernel| kernel.is_ok()) == Some(true);
    assert_eq!(copy(|words| words.result = 0), Some(Err(KernelError::Reserved)), "a copy has no value");
    assert_eq!(copy(|words| words.value = 0), Some(Err(KernelError::Reserved)), "a copy has no result");
    assert!(is_good(copy(|words| (words.value, words.result) = (0, 0))));
    assert!(is_good(copy(|words| (words.value, words.result, words.second) = (0, 0, 0xf00))), "just below");
    assert!(is_good(copy(|words| (words.value, words.result, words.second) = (0, 0, 0x1100))), "just behind");
    for (second, refused) in [(0x1000, "onto itself"), (0xf08, "from below"), (0x10f8, "from above")] {
        let words = KernelWords { value: 0, second, result: 0, ..words };
        assert_eq!(Kernel::decode(Opcode::KernelCopy, &words), operand(second), "{refused}");
    }
    for (first, second, count, refused) in [
        (0x1004, 0x800, 0x100, 0x1004),
        (0x1000, 0x804, 0x100, 0x804),
        (0x1000, 0x800, 0x104, 0x104),
        (0x1000, 0x800, 0, 0),
        (0, 1 << 50, MAX_KERNEL_COUNT + 8, MAX_KERNEL_COUNT + 8),
        (u64::MAX - 7, 0x800, 8, u64::MAX - 7),
        (0x1000, u64::MAX - 7, 8, u64::MAX - 7),
    ] {
        let words = KernelWords { first, second, count, ..KernelWords::default() };
        assert_eq!(Kernel::decode(Opcode::KernelCopy, &words), operand(refused), "{words:x?}");
    }
    let add = |first, count| {
        Kernel::decode(Opcode::AtomicAdd, &KernelWords { first, value: 1, count, ..KernelWords::default() })
    };
    assert_eq!(add(0x1004, 8), operand(0x1004));
    assert_eq!(add(0x1000, 12), operand(12));
    assert_eq!(add(0x1000, 0), operand(0));
    assert_eq!(add(0, MAX_KERNEL_COUNT + 8), operand(MAX_KERNEL_COUNT + 8));
    assert_eq!(add(u64::MAX - 7, 8), operand(u64::MAX - 7));
}

#[test]
fn each_way_an_invalidation_can_be_wrong() {
    let target = |asid, scope| InvalidateTarget(0).with_asid(asid).with_raw_scope(scope);
    let range = InvalidateScope::Range as u64;
    assert_eq!(Invalidation::decode(target(1, InvalidateScope::All as u64), 0, 0), None, "all, and yet of one");
    assert_eq!(Invalidation::decode(target(1, InvalidateScope::AddressSpace as u64), 0x1000, 0), None);
    assert_eq!(Invalidation::decode(target(256, 1), 0, 0), None);
    assert_eq!(Invalidation::decode(target(0, 3), 0, 0), None);
    assert_eq!(Invalidation::decode(InvalidateTarget(1 << 18), 0, 0), None);
    assert_eq!(Invalidation::decode(target(1, range), 0, 0), None);
    assert_eq!(Invalidation::decode(target(1, range), u64::MAX, 2), None);
    let last = Invalidation::Range { asid: 1, address: u64::MAX, length: 1 };
    assert_eq!(Invalidation::decode(target(1, range), u64::MAX, 1), Some(last));
}

#[test]
fn what_is_handed_over_is_aligned_to_its_size() {
    let value = |page, order| HandOver(0).with_page(page).with_order(order);
    assert_eq!(value(5, 0).0, 0x5000);
    assert_eq!(value(512, 9).pages(), Some((512, 512)));
    assert_eq!(value(0, 39).pages(), Some((0, 1 << 39)));
    for wrong in [value(5, 1), value(256, 9), value(0, 40), value(0, 63), HandOver(1 << 6), HandOver(1 << 52)] {
        assert_eq!(wrong.pages(), None, "{wrong:x?}");
    }
}

#[test]
fn channels_have_room() {
    assert_eq!(regs::channel_register(regs::MAX_CHANNELS, regs::GET), None);
    assert_eq!(regs::doorbell(regs::MAX_CHANNELS), None);
    let last = regs::channel_register(regs::MAX_CHANNELS - 1, regs::GET).unwrap();
    assert!(last + 4 <= regs::COUNTER_BASE);
    assert!(regs::COUNTER_BASE + 8 * Counter::ALL.len() as u32 <= regs::ADDRESS_SPACE_BASE);
    let last = regs::address_space_register(ADDRESS_SPACES - 1, regs::ADDRESS_SPACE_CONTROL).unwrap();
    assert!(last + 4 <= regs::DOORBELL_BASE);
    assert_eq!(regs::address_space_register(ADDRESS_SPACES, regs::ADDRESS_SPACE_ROOT), None);
    let last = regs::doorbell(regs::MAX_CHANNELS - 1).unwrap();
    assert!(u64::from(last + regs::DOORBELL_STRIDE) <= ersatz_abi::pci::REGISTERS_BAR_SIZE);
}
