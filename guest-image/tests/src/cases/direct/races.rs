// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Races between a driver and its device that come out the same way every time, because the device is held where they are decided.

use std::time::Duration;

use ersatz_abi::command::Operation;
use ersatz_abi::counter::Counter;
use ersatz_abi::fault::FaultRecord;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::mmu::PageSize;
use ersatz_abi::regs;
use serde_json::json;

use super::faults::{ASID, BASE, FaultBuffer, PAGE, compute};
use crate::control_window::ControlWindow;
use crate::direct::address_space::{AddressSpace, REPLAYABLE, Rights};
use crate::direct::buffer::Buffer;
use crate::direct::channel::Channel;
use crate::direct::gpu::Gpu;
use crate::suite::{Need, test_list};

test_list! { "direct_races":
    a_page_that_goes_during_a_replay_is_missed_again.direct().needs(NEEDS).patience(2);
    a_page_that_is_replaced_during_a_replay_is_not_written.direct().needs(NEEDS).patience(2);
    a_late_acknowledgement_comes_behind_the_last_old_access.direct().needs(NEEDS).patience(2);
    a_replay_before_the_answer_faults_again.direct().needs(NEEDS);
    a_record_is_waited_for_behind_put.direct().needs(NEEDS).patience(2);
}

const NEEDS: &[Need] = &[Need::ControlWindow];
/// How often each race is run.
const ROUNDS: u64 = 100;
/// How long a hold may take to come, and lasts at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// The name of the breakpoint or rule.
const NAME: &str = "race";

/// A channel that writes to a page that can go and come, and whatever holds it.
struct World<'a> {
    gpu: &'a Gpu,
    window: ControlWindow,
    space: AddressSpace<'a>,
    faults: FaultBuffer<'a>,
    channel: Channel<'a>,
    pages: [Buffer<'a>; 2],
}

impl<'a> World<'a> {
    fn new(gpu: &'a Gpu) -> Self {
        Self {
            gpu,
            window: ControlWindow::open(gpu.function()).expect("the test needs a control window"),
            space: AddressSpace::new(gpu, ASID, REPLAYABLE, gpu.system()),
            faults: FaultBuffer::enable(gpu),
            channel: compute(gpu, 4),
            pages: [gpu.vram().take(PAGE as usize), gpu.system().take(PAGE as usize)],
        }
    }

    /// Begins to write a word of the page. Returns the fence.
    fn write(&self, value: u64) -> u64 {
        let kernel = Kernel::Set { destination: BASE, length: 8, pattern: value };
        self.channel.submit(Operation::Kernel(kernel))
    }

    /// Waits for the one fault that there is.
    fn fault(&self) -> FaultRecord {
        let records = self.faults.wait();
        assert_eq!(records.len(), 1, "{records:x?}");
        self.channel.wait_for_fault();
        records[0]
    }

    fn map(&self, page: usize) {
        self.space.map(BASE, &self.pages[page], PageSize::Small, Rights::Write);
    }

    /// Takes the page away, and has it forgotten.
    fn take_away(&self) {
        self.space.unmap(BASE, PageSize::Small);
        self.gpu.invalidate(self.space.range(BASE, PAGE));
    }

    /// Does `work` while what comes next at a step is held.
    fn while_held(&self, step: &str, begin: impl FnOnce(), work: impl FnOnce()) {
        self.window.hold(NAME, step, &json!({ "channels": [4] }), 1, PATIENCE).expect("a breakpoint");
        begin();
        assert!(self.window.wait_held(NAME, PATIENCE), "nothing is held at {step}");
        work();
        assert!(self.window.resume(NAME), "the hold at {step} has ended by itself");
        self.window.clear(NAME);
    }
}

fn a_page_that_goes_during_a_replay_is_missed_again() {
    let gpu = Gpu::claim();
    let world = World::new(&gpu);
    for round in 1..=ROUNDS {
        let fence = world.write(round);
        let first = world.fault();
        world.map(0);
        world.while_held("before-replay", || gpu.replay(), || world.take_away());
        let second = world.fault();
        assert_eq!((second.address, second.number), (BASE, first.number + 1), "round {round}");
        assert_eq!(world.pages[0].read(0), 0, "round {round}: written by a mapping that was gone");
        world.map(1);
        gpu.replay();
        world.channel.wait(fence);
        assert_eq!(world.pages[1].read(0), round);
        world.take_away();
    }
}

fn a_page_that_is_replaced_during_a_replay_is_not_written() {
    let gpu = Gpu::claim();
    let world = World::new(&gpu);
    for round in 1..=ROUNDS {
        let fence = world.write(round);
        world.fault();
        world.map(0);
        world.while_held(
            "before-replay",
            || gpu.replay(),
            || {
                world.take_away();
                world.map(1);
            },
        );
        world.channel.wait(fence);
        assert_eq!(world.pages.map(|page| page.read(0)), [0, round]);
        world.take_away();
    }
}

fn a_late_acknowledgement_comes_behind_the_last_old_access() {
    let gpu = Gpu::claim();
    let world = World::new(&gpu);
    let acknowledged = || gpu.registers().read64(regs::INVALIDATE_ACKNOWLEDGED);
    world.map(0);
    for round in 1..=ROUNDS {
        let (old, new) = ((round as usize + 1) % 2, round as usize % 2);
        world.channel.wait(world.write(round));
        assert_eq!(world.pages[old].read(0), round);
        world.map(new);
        world
            .window
            .hold(NAME, "before-invalidation-ack", &serde_json::Value::Null, 1, PATIENCE)
            .expect("a breakpoint");
        let number = gpu.ask_to_invalidate(world.space.range(BASE, PAGE));
        assert!(world.window.wait_held(NAME, PATIENCE), "no acknowledgement is held");
        assert!(acknowledged() < number, "round {round}: acknowledged while it is held");
        // It was carried out: what is written meanwhile goes to the new page, and the old one is the driver's once it hears of it.
        world.channel.wait(world.write(1000 + round));
        assert_eq!(world.pages[new].read(0), 1000 + round);
        assert_eq!(world.pages[old].read(0), round);
        assert!(world.window.resume(NAME));
        gpu.wait_for_acknowledgement(number);
        world.window.clear(NAME);
    }
}

fn a_replay_before_the_answer_faults_again() {
    let gpu = Gpu::claim();
    let world = World::new(&gpu);
    for round in 1..=ROUNDS {
        let counted = gpu.count([Counter::Faults, Counter::Replays], || {
            let fence = world.write(round);
            let first = world.fault();
            gpu.replay();
            let again = world.fault();
            assert_eq!((again.address, again.number), (BASE, first.number + 1), "round {round}");
            world.map(0);
            gpu.replay();
            world.channel.wait(fence);
        });
        assert_eq!(counted, [2, 2], "round {round}");
        assert_eq!(world.pages[0].read(0), round);
        world.take_away();
    }
}

fn a_record_is_waited_for_behind_put() {
    let gpu = Gpu::claim();
    let world = World::new(&gpu);
    let rule = json!({
        "name": NAME,
        "on": { "event": { "kinds": ["fault-recorded"] } },
        "action": { "kind": "announce-early", "ns": 1_000_000 },
    });
    world.window.must("add-rule", &rule);
    for round in 1..=ROUNDS {
        let counted = gpu.count([Counter::Faults], || {
            let fence = world.write(round);
            // Takes what PUT announces, and waits for the valid bit.
            let record = world.fault();
            assert_eq!((record.address, record.asid), (BASE, ASID), "round {round}");
            world.map(0);
            gpu.replay();
            world.channel.wait(fence);
        });
        assert_eq!(counted, [1], "round {round}");
        assert_eq!(world.pages[0].read(0), round);
        world.take_away();
    }
    world.window.must("remove-rule", &json!({ "name": NAME }));
}
