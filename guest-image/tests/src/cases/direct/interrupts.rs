// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Interrupts that are held back: a process cannot be sent any, but it can see which are pending.

use std::sync::atomic::Ordering;

use ersatz_abi::command::Operation;
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::pci::{BAR_MSIX, MSIX_BAR_SIZE, MSIX_PBA_OFFSET};

use crate::config_space::{COMMAND, COMMAND_MASTER, capability};
use crate::direct::channel::{Channel, Setup};
use crate::direct::gpu::Gpu;
use crate::direct::patience::wait_until;
use crate::pattern::PAGE;
use crate::suite::test_list;

test_list! { "direct_interrupts":
    one_that_is_held_back_is_pending.direct();
}

/// Message Control: enable, and mask all vectors.
const ENABLE_MASKED: u16 = 0b11 << 14;

fn one_that_is_held_back_is_pending() {
    const VECTOR: u32 = 7;
    let gpu = Gpu::claim();
    let config = gpu.config();
    let bar = gpu.function().map_bar(BAR_MSIX, 0, MSIX_BAR_SIZE as usize / PAGE);
    let pending = || bar.atomic(MSIX_PBA_OFFSET as usize).load(Ordering::Relaxed);
    let channel = Channel::open(&gpu, Setup { vector: VECTOR, ..Setup::new(0, 0) });
    config.write16(config.capability(capability::MSIX) + 2, ENABLE_MASKED);
    assert_eq!(pending(), 0);
    gpu.expect_count(Counter::Interrupts, 1, || {
        // Some machines keep masks to themselves; what the lack of bus mastering holds back the device has on all.
        config.write16(COMMAND, config.read16(COMMAND) & !COMMAND_MASTER);
        channel.submit(Operation::Nop);
        assert_eq!(channel.wait_for_failure().error, ErrorCode::NotMaster);
        wait_until("pending bit", || pending() != 0);
    });
    assert_eq!(pending(), 1 << VECTOR);
    // Of this nothing may be left to whoever unmasks the vector next.
    gpu.reset_function();
    assert_eq!(pending(), 0);
}
