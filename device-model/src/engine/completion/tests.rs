// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The end of a command, a driver that looks for it, and resets, in every order that the memory model allows; likewise the end
//! of one that waits at any of its stages.
//!
//! Run is the code of the device for the stages of an end, and for channels: turns, epochs, resets, commands that wait. Stood
//! in for are guest memory (a fence and GET are stored with release ordering, data without any), interrupts, and the gate, by a
//! plain lock.

mod stages;

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use loom::sync::{Mutex, RwLock};
use loom::thread;

use ersatz_abi::command::{Cause, Command, Operation};

use super::*;
use crate::channel::task::Task;
use crate::channel::{Channel, ChannelSwitched, Found, ResetScope, Settled, Setup, State, Wait};

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
    /// The stage at which the first command waits once; what it waits for has come when the engine looks again.
    waits_at: Option<Stage>,
    waited: AtomicBool,
}

const STAGES: [Stage; 3] = [Stage::Fence, Stage::Get, Stage::Interrupt];

impl World {
    fn new() -> Arc<Self> {
        Self::waiting_at(None)
    }

    fn waiting_at(waits_at: Option<Stage>) -> Arc<Self> {
        let channel = Channel::with((), Mutex::new(State::INITIAL), AtomicU64::new(0));
        assert!(channel.set_up(|setup| {
            *setup = Setup { ring_base: 0x1000, control_block: 0x2000, ring_order: 4, ..Setup::default() };
        }));
        assert!(matches!(channel.switch(true, 1, |_| ()), ChannelSwitched::Enabled(_)));
        Arc::new(Self {
            channel,
            gate: RwLock::new(()),
            data: AtomicU64::new(0),
            fence: AtomicU64::new(0),
            get: AtomicU32::new(0),
            interrupts: AtomicU64::new(0),
            taken_back: AtomicBool::new(false),
            waits_at,
            waited: AtomicBool::new(false),
        })
    }

    fn take_up(&self) -> Found {
        self.channel.take_up(0, |_| true)
    }

    /// Makes the first command wait at a stage, which has had no effect so far.
    fn pass(&self, stage: Stage) -> Result<(), Wait> {
        let waits = self.waits_at == Some(stage) && !self.waited.swap(true, Ordering::Relaxed);
        if waits { Err(Wait::Acknowledgement(1)) } else { Ok(()) }
    }

    fn access(&self) {
        assert!(!self.taken_back.load(Ordering::Relaxed), "access to memory that was taken back");
    }

    fn write_data(&self) {
        self.access();
        self.data.store(DATA, Ordering::Relaxed);
    }

    /// One command, as an engine executes it: each access with a permit, and only if there was no reset.
    fn execute(&self, turn: &Turn) {
        self.proceed(turn, Task::new(command()));
        self.channel.let_go(turn, |_| ());
    }

    /// The command that the channel has kept, if it has, likewise.
    fn resume(&self) {
        if let Found::Turn(turn, resumed) = self.take_up() {
            if let Some(task) = resumed {
                self.proceed(&turn, *task);
            }
            self.channel.let_go(&turn, |_| ());
        }
    }

    fn proceed(&self, turn: &Turn, mut task: Task) {
        let mut turn = *turn;
        let is_current = || self.channel.is_current(&turn);
        if task.stage <= Stage::Work {
            let _pass = self.gate.read().unwrap();
            if is_current() {
                self.write_data();
            }
        }
        let result = {
            let _pass = self.gate.read().unwrap();
            if !is_current() {
                return;
            }
            complete(self, &mut turn, &mut task.stage, Some(FENCE), true)
        };
        if let Err(wait) = result {
            self.channel.suspend(&turn, &task, wait, || ());
        }
    }
}

fn command() -> Command {
    Command { operation: Operation::Nop, cause: Cause::Other, fence: Some(FENCE), interrupt: true, tag: 0 }
}

impl Completion for World {
    type Error = Wait;

    fn fence(&self, value: Option<u64>) -> Result<(), Wait> {
        self.pass(Stage::Fence)?;
        self.access();
        self.fence.store(value.expect("a fence"), Ordering::Release);
        Ok(())
    }

    fn get(&self, get: u32) -> Result<(), Wait> {
        self.pass(Stage::Get)?;
        self.access();
        self.get.store(get, Ordering::Release);
        Ok(())
    }

    fn note(&self, done: &Turn) -> bool {
        self.channel.complete(done)
    }

    fn interrupt(&self) -> Result<(), Wait> {
        self.pass(Stage::Interrupt)?;
        self.interrupts.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// What a driver sees, whichever way it looks; how often it saw each of interrupt, GET and fence while the engine was at work.
fn look(waits_at: Option<Stage>, engine: fn(&World)) -> [usize; 3] {
    let seen: Arc<[std::sync::atomic::AtomicUsize; 3]> = Arc::default();
    let count = seen.clone();
    loom::model(move || {
        let world = World::waiting_at(waits_at);
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
        Found::Turn(turn, None) => turn,
        found => panic!("{found:?}"),
    }
}

#[test]
fn who_sees_the_fence_sees_the_data() {
    let seen = look(None, |world| world.execute(&turn(world)));
    assert!(seen.iter().all(|times| *times > 0), "never seen in time: {seen:?}");
}

/// Likewise when the end of the command waits in between, with the channel free meanwhile.
#[test]
fn who_sees_the_fence_sees_the_data_whatever_waits() {
    for stage in STAGES {
        let seen = look(Some(stage), |world| {
            world.execute(&turn(world));
            assert!(matches!(world.channel.take_up(0, |_| false), Found::Waiting(_)));
            world.resume();
        });
        assert!(seen.iter().all(|times| *times > 0), "{stage:?}: never seen in time: {seen:?}");
    }
}

#[test]
#[should_panic(expected = "a fence without the data")]
fn a_fence_in_front_of_the_data_is_found() {
    look(None, |world| {
        let mut turn = turn(world);
        complete(world, &mut turn, &mut Stage::Work, Some(FENCE), true).unwrap();
        world.write_data();
    });
}

/// An engine has the channel, a driver resets it in one way or another, takes its memory back, and enables it again.
fn reset(driver: fn(&World), engine: fn(&World, &Turn)) {
    reset_waiting_at(None, driver, engine);
}

fn reset_waiting_at(waits_at: Option<Stage>, driver: fn(&World), engine: fn(&World, &Turn)) {
    loom::model(move || {
        let world = World::waiting_at(waits_at);
        let other = world.clone();
        let begun = turn(&world);
        let engine = thread::spawn(move || {
            engine(&other, &begun);
            other.resume();
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

fn register_reset(world: &World) {
    world.channel.request_reset(ResetScope::Channel, |_| ());
}

#[test]
fn nothing_is_accessed_once_a_reset_by_register_reads_as_complete() {
    reset(register_reset, World::execute);
}

fn function_reset(world: &World) {
    let _closed = world.gate.write().unwrap();
    world.channel.reset(ResetScope::Device);
}

#[test]
fn nothing_is_accessed_once_the_function_is_reset() {
    reset(function_reset, World::execute);
}

#[test]
fn a_reset_drops_a_command_that_waits_at_any_stage() {
    for stage in STAGES {
        reset_waiting_at(Some(stage), register_reset, World::execute);
        reset_waiting_at(Some(stage), function_reset, World::execute);
    }
}

/// A driver resets the function, enables the channel again, and has memory of its own for new fences, while an engine works.
fn enabled_again(engine: fn(&World, &Turn)) {
    loom::model(move || {
        let world = World::waiting_at(Some(Stage::Fence));
        let other = world.clone();
        let begun = turn(&world);
        let engine = thread::spawn(move || engine(&other, &begun));
        function_reset(&world);
        world.fence.store(0, Ordering::Relaxed);
        assert!(world.channel.set_up(|setup| {
            *setup = Setup { ring_base: 0x1000, control_block: 0x2000, ring_order: 4, ..Setup::default() };
        }));
        assert!(matches!(world.channel.switch(true, 1, |_| ()), ChannelSwitched::Enabled(_)));
        engine.join().unwrap();
        assert_eq!(world.fence.load(Ordering::Relaxed), 0, "a command from before the reset");
    });
}

#[test]
fn a_command_from_before_a_reset_is_not_resumed() {
    enabled_again(|world, begun| {
        world.execute(begun);
        world.resume();
    });
}

/// The model finds what it is there to find: an engine that keeps the command itself.
#[test]
#[should_panic(expected = "a command from before the reset")]
fn a_command_that_its_engine_keeps_is_found() {
    enabled_again(|world, begun| {
        world.execute(begun);
        if let Found::Turn(turn, _) = world.take_up() {
            world.proceed(&turn, Task { stage: Stage::Fence, ..Task::new(command()) });
            world.channel.let_go(&turn, |_| ());
        }
    });
}

/// The model finds what it is there to find: an engine that does not ask again whether its channel was reset.
#[test]
#[should_panic(expected = "access to memory that was taken back")]
fn an_access_without_a_look_at_the_epoch_is_found() {
    reset(function_reset, |world, turn| {
        let _pass = world.gate.read().unwrap();
        complete(world, &mut turn.clone(), &mut Stage::Work, Some(FENCE), true).unwrap();
    });
}

/// Likewise: one that lets go of the channel before it has accessed.
#[test]
#[should_panic(expected = "access to memory that was taken back")]
fn an_access_after_letting_go_is_found() {
    reset(register_reset, |world, turn| {
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
        assert!(matches!(world.channel.switch(true, 1, |_| ()), ChannelSwitched::Enabled(_)));
        let second = turn(&world);
        engine.join().unwrap();
        assert_eq!((second.get, world.channel.snapshot().get), (0, 0));
        assert!(world.channel.is_current(&second));
        assert!(!world.channel.request_reset(ResetScope::Channel, |_| ()), "the second turn has the channel");
        assert_eq!(world.channel.let_go(&second, |_| ()), Some(Settled::Reset));
    });
}
