// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The end of a command, a driver that looks for it, and resets, in every order that the memory model allows.
//!
//! Run is the code of the device for the order in which an end is told, and for channels: turns, epochs, resets. Stood
//! in for are guest memory (a fence and GET are stored with release ordering, data without any), interrupts, and the
//! gate, by a plain lock.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use loom::sync::{Mutex, RwLock};
use loom::thread;

use super::*;
use crate::channel::{Channel, Found, ResetScope, Settled, Setup, State, Switched};

const FENCE: u64 = 7;
const DATA: u64 = 0xda7a;

struct World {
    channel: Channel<(), Mutex<State>, AtomicU64>,
    /// Open while it can be read.
    gate: RwLock<()>,
    data: AtomicU64,
    fence: AtomicU64,
    get: AtomicU32,
    interrupts: AtomicU64,
    /// The driver has seen the end of a reset: guest memory is not the device's any more.
    taken_back: AtomicBool,
}

impl World {
    fn new() -> Arc<Self> {
        let channel = Channel::with((), Mutex::new(State::INITIAL), AtomicU64::new(0));
        assert!(channel.set_up(|setup| {
            *setup = Setup { ring_base: 0x1000, control_block: 0x2000, ring_order: 4, ..Setup::default() };
        }));
        assert!(matches!(channel.switch(true, 1, |_| ()), Switched::Enabled(_)));
        Arc::new(Self {
            channel,
            gate: RwLock::new(()),
            data: AtomicU64::new(0),
            fence: AtomicU64::new(0),
            get: AtomicU32::new(0),
            interrupts: AtomicU64::new(0),
            taken_back: AtomicBool::new(false),
        })
    }

    fn take_up(&self) -> Found {
        self.channel.take_up(0)
    }

    fn access(&self) {
        assert!(!self.taken_back.load(Ordering::Relaxed), "access to memory that was taken back");
    }

    fn write_data(&self) {
        self.access();
        self.data.store(DATA, Ordering::Relaxed);
    }

    /// One command, as an engine executes it: each access with leave, and only if there was no reset.
    fn execute(&self, turn: &Turn) {
        let access = |work: &dyn Fn()| {
            let _pass = self.gate.read().unwrap();
            if self.channel.is_current(turn) {
                work();
            }
        };
        access(&|| self.write_data());
        access(&|| {
            complete(self, turn, Some(FENCE), true).unwrap();
        });
        self.channel.let_go(turn, |_| ());
    }
}

impl Completion for World {
    type Error = ();

    fn fence(&self, value: u64) -> Result<(), ()> {
        self.access();
        self.fence.store(value, Ordering::Release);
        Ok(())
    }

    fn get(&self, get: u32) -> Result<(), ()> {
        self.access();
        self.get.store(get, Ordering::Release);
        Ok(())
    }

    fn note(&self, done: &Turn) -> bool {
        self.channel.complete(done)
    }

    fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::Release);
    }
}

/// What a driver sees, whichever way it looks; how often it saw each of interrupt, GET and fence while the engine was at work.
fn look(engine: fn(&World)) -> [usize; 3] {
    let seen: Arc<[std::sync::atomic::AtomicUsize; 3]> = Arc::default();
    let count = seen.clone();
    loom::model(move || {
        let world = World::new();
        let other = world.clone();
        let engine = thread::spawn(move || engine(&other));
        let saw = |way: usize| count[way].fetch_add(1, Ordering::Relaxed);
        if world.interrupts.load(Ordering::Acquire) > 0 {
            saw(0);
            assert_eq!(world.get.load(Ordering::Relaxed), 1, "interrupted without GET");
            assert_eq!(world.channel.snapshot().get, 1, "interrupted without the register GET");
        }
        if world.get.load(Ordering::Acquire) == 1 {
            saw(1);
            assert_eq!(world.fence.load(Ordering::Relaxed), FENCE, "GET without the fence");
        }
        if world.fence.load(Ordering::Acquire) == FENCE {
            saw(2);
            assert_eq!(world.data.load(Ordering::Relaxed), DATA, "a fence without the data");
        }
        engine.join().unwrap();
        let ends = [world.interrupts.load(Ordering::Relaxed), world.fence.load(Ordering::Relaxed)];
        assert_eq!(ends, [1, FENCE]);
    });
    std::array::from_fn(|way| seen[way].load(Ordering::Relaxed))
}

fn turn(world: &World) -> Turn {
    match world.take_up() {
        Found::Turn(turn) => turn,
        found => panic!("{found:?}"),
    }
}

#[test]
fn who_sees_the_fence_sees_the_data() {
    let seen = look(|world| world.execute(&turn(world)));
    assert!(seen.iter().all(|times| *times > 0), "never seen in time: {seen:?}");
}

#[test]
#[should_panic(expected = "a fence without the data")]
fn a_fence_in_front_of_the_data_is_found() {
    look(|world| {
        complete(world, &turn(world), Some(FENCE), true).unwrap();
        world.write_data();
    });
}

/// An engine has the channel, a driver resets it in one way or another, takes its memory back, and enables it again.
fn reset(driver: fn(&World), engine: fn(&World, &Turn)) {
    loom::model(move || {
        let world = World::new();
        let other = world.clone();
        let begun = turn(&world);
        let engine = thread::spawn(move || {
            engine(&other, &begun);
            if let Found::Turn(next) = other.take_up() {
                other.channel.let_go(&next, |_| ());
            }
        });
        driver(&world);
        if !world.channel.is_resetting() {
            world.taken_back.store(true, Ordering::Relaxed);
            assert_eq!(world.channel.snapshot().get, 0);
        }
        engine.join().unwrap();
        assert!(!world.channel.is_resetting(), "a reset that does not end");
        let after = world.channel.snapshot();
        assert_eq!((after.get, after.enable), (0, false), "the end of a command from before the reset");
    });
}

#[test]
fn nothing_is_accessed_once_a_reset_by_register_reads_as_complete() {
    let driver = |world: &World| {
        world.channel.request_reset(ResetScope::Channel, || ());
    };
    reset(driver, World::execute);
}

fn function_reset(world: &World) {
    let _closed = world.gate.write().unwrap();
    world.channel.reset(ResetScope::Device);
}

#[test]
fn nothing_is_accessed_once_the_function_is_reset() {
    reset(function_reset, World::execute);
}

/// The model finds what it is there to find: an engine that does not ask again whether its channel was reset.
#[test]
#[should_panic(expected = "access to memory that was taken back")]
fn an_access_without_a_look_at_the_epoch_is_found() {
    reset(function_reset, |world, turn| {
        let _pass = world.gate.read().unwrap();
        complete(world, turn, Some(FENCE), true).unwrap();
    });
}

/// Likewise: one that lets go of the channel before it has accessed.
#[test]
#[should_panic(expected = "access to memory that was taken back")]
fn an_access_after_letting_go_is_found() {
    let driver = |world: &World| {
        world.channel.request_reset(ResetScope::Channel, || ());
    };
    reset(driver, |world, turn| {
        if world.channel.is_current(turn) {
            world.channel.let_go(turn, |_| ());
            world.write_data();
        }
    });
}

/// A turn from before a reset changes nothing in the channel behind it, which was enabled again in the meantime.
#[test]
fn the_end_of_a_command_from_before_a_reset_is_not_noted() {
    loom::model(|| {
        let world = World::new();
        let other = world.clone();
        let begun = turn(&world);
        let engine = thread::spawn(move || other.execute(&begun));
        function_reset(&world);
        assert!(world.channel.set_up(|setup| {
            *setup = Setup { ring_base: 0x1000, control_block: 0x2000, ring_order: 4, ..Setup::default() };
        }));
        assert!(matches!(world.channel.switch(true, 1, |_| ()), Switched::Enabled(_)));
        let second = turn(&world);
        engine.join().unwrap();
        assert_eq!((second.get, world.channel.snapshot().get), (0, 0));
        assert!(world.channel.is_current(&second));
        assert!(!world.channel.request_reset(ResetScope::Channel, || ()), "the second turn has the channel");
        assert_eq!(world.channel.let_go(&second, |_| ()), Some(Settled::Reset));
    });
}
