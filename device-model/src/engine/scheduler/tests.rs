// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver, a channel and engines in every order that the memory model allows, up to a number of preemptions.
//!
//! Run is the code of the device for channels, bindings, turns and commands that wait. Stood in for are event descriptors and
//! epoll sets, a clock that is set by hand, and the fetching of commands: PUT is loaded with acquire ordering, as from guest
//! memory.

mod sleeping;

use std::sync::Arc;
use std::time::Duration;

use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use ersatz_abi::command::{Cause, Command, Operation};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::{AccessKind, FaultKind};

use super::*;
use crate::channel::{Channel, ChannelFailure, FaultedAccess, Setup, State};
use crate::engine::doorbells::{bind, kick};

/// Event descriptors: the counts, and which engine waits for which. One channel.
#[derive(Default)]
struct Descriptors {
    bell: u64,
    kicks: [u64; 2],
    hears: [bool; 2],
    /// How often an engine was woken by the doorbell.
    woken: u64,
    /// A command waits at a fault.
    faulted: bool,
}

#[derive(Default)]
struct Kernel {
    descriptors: Mutex<Descriptors>,
    changed: Condvar,
}

impl Kernel {
    fn change(&self, change: impl FnOnce(&mut Descriptors)) {
        change(&mut self.descriptors.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait_until(&self, done: impl Fn(&Descriptors) -> bool) {
        let mut descriptors = self.descriptors.lock().unwrap();
        while !done(&descriptors) {
            descriptors = self.changed.wait(descriptors).unwrap();
        }
    }

    fn ring(&self) {
        self.change(|descriptors| descriptors.bell += 1);
    }
}

struct ModelSource {
    kernel: Arc<Kernel>,
    engine: usize,
}

impl WakeSource for ModelSource {
    type Bell = ();

    fn add(&self, _: u8, (): &()) -> io::Result<()> {
        self.kernel.change(|descriptors| descriptors.hears[self.engine] = true);
        Ok(())
    }

    fn remove(&self, (): &()) -> io::Result<()> {
        self.kernel.change(|descriptors| descriptors.hears[self.engine] = false);
        Ok(())
    }

    fn kick(&self) {
        self.kernel.change(|descriptors| descriptors.kicks[self.engine] += 1);
    }

    fn wait(&self, sleep: Sleep, mut tell: impl FnMut(Wake)) -> io::Result<()> {
        let mut descriptors = self.kernel.descriptors.lock().unwrap();
        let (kicked, rung) = loop {
            let kicked = std::mem::take(&mut descriptors.kicks[self.engine]) > 0;
            let rung = descriptors.hears[self.engine] && descriptors.bell > 0;
            if kicked || rung || sleep == Sleep::Never {
                break (kicked, rung);
            }
            descriptors = self.kernel.changed.wait(descriptors).unwrap();
        };
        descriptors.woken += u64::from(rung);
        drop(descriptors);
        if rung {
            self.kernel.changed.notify_all();
        }
        if kicked {
            tell(Wake::Kick);
        }
        if rung {
            tell(Wake::Doorbell(0));
        }
        Ok(())
    }
}

impl Bits for AtomicU64 {
    fn get(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    fn set(&self, bits: u64) {
        self.fetch_or(bits, Ordering::AcqRel);
    }

    fn clear(&self, bits: u64) {
        self.fetch_and(!bits, Ordering::AcqRel);
    }
}

/// What is done wrong, for the model to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// The doorbell is taken back behind the look at PUT.
    LateHearing,
    /// The engine does not care for what is another one's.
    NoHandover,
    /// The driver stores PUT without release ordering.
    RelaxedPut,
    /// The engine is kicked before what its command waits for has come.
    EarlyKick,
}

struct World {
    mistake: Mistake,
    kernel: Arc<Kernel>,
    channel: Channel<(), Mutex<State>, AtomicU64>,
    engines: Vec<Doorbells<ModelSource, AtomicU64>>,
    put: AtomicU32,
    slots: [AtomicU64; 2],
    executed: Mutex<Vec<u64>>,
    progress: Condvar,
    leaving: AtomicBool,
    /// What each command waits for.
    wait: Option<Wait>,
    /// Invalidations up to this number are acknowledged.
    acknowledged: AtomicU64,
    /// Holds up to this number have ended.
    ended: AtomicU64,
    /// What the clock reads.
    time: AtomicU64,
}

/// An engine of the world.
struct Worker {
    world: Arc<World>,
    number: u8,
}

impl EngineOps for Worker {
    type WakeSource = ModelSource;
    type Bits = AtomicU64;

    fn doorbells(&self) -> &Doorbells<ModelSource, AtomicU64> {
        &self.world.engines[usize::from(self.number)]
    }

    fn channel_count(&self) -> u8 {
        1
    }

    fn acknowledge(&self, _: u8) {
        if self.world.mistake != Mistake::LateHearing {
            self.world.kernel.descriptors.lock().unwrap().bell = 0;
        }
    }

    fn is_leaving(&self) -> bool {
        self.world.leaving.load(Ordering::Acquire)
    }

    fn priority(&self, _: u8) -> Priority {
        self.world.channel.priority()
    }

    fn take_up(&self, _: u8) -> Found {
        self.world.channel.take_up(self.number, |wait| self.world.is_over(wait))
    }

    fn work(&mut self, _: u8, turn: Turn, resumed: Option<Box<Task>>) -> Next {
        let World { channel, put, slots, executed, progress, kernel, mistake, .. } = &*self.world;
        let waiting = turn.setup.ring.waiting(turn.get, put.load(Ordering::Acquire)).expect("a PUT that can be");
        if *mistake == Mistake::LateHearing {
            kernel.descriptors.lock().unwrap().bell = 0;
        }
        channel.set_busy(&turn, waiting > 0);
        // As the device does: a command waits for nothing that has come.
        let wait = self.world.wait.filter(|wait| waiting > 0 && resumed.is_none() && !self.world.is_over(*wait));
        if let Some(wait) = wait {
            let is_fault = matches!(wait, Wait::Replay(..));
            channel.suspend(&turn, &task(), wait, || kernel.change(|descriptors| descriptors.faulted = is_fault));
            channel.let_go(&turn, |_| ());
            return Next::waiting(wait);
        }
        if waiting > 0 {
            let command = slots[turn.get as usize].load(Ordering::Relaxed);
            executed.lock().unwrap().push(command);
            channel.complete(&turn.completed(None));
            progress.notify_all();
        }
        if channel.let_go(&turn, |_| ()).is_none() && waiting > 0 { Next::Again } else { Next::Idle }
    }

    fn kick(&self, channel: u8) {
        if self.world.mistake != Mistake::NoHandover {
            kick(&self.world.engines, channel);
        }
    }

    fn now(&self) -> u64 {
        self.world.time.load(Ordering::Acquire)
    }

    fn sleep_until(&self, deadline: u64) -> Sleep {
        Sleep::lasting((self.now() >= deadline).then_some(Duration::ZERO))
    }
}

fn task() -> Task {
    Task::new(Command { operation: Operation::Nop, cause: Cause::Other, fence: None, interrupt: false, tag: 0 })
}

impl World {
    /// One channel, disabled, whose doorbell wakes the first engine.
    fn new(mistake: Mistake, engines: usize) -> Arc<Self> {
        Self::waiting(mistake, engines, None)
    }

    /// Likewise; each of its commands waits for this once.
    fn waiting(mistake: Mistake, engines: usize, wait: Option<Wait>) -> Arc<Self> {
        let kernel = Arc::new(Kernel::default());
        let source = (0..engines).map(|engine| ModelSource { kernel: kernel.clone(), engine });
        let engines: Vec<_> = source.map(|source| Doorbells::with(source, AtomicU64::new(0))).collect();
        engines[0].bind(0, &()).unwrap();
        let channel = Channel::with((), Mutex::new(State::INITIAL), AtomicU64::new(0));
        assert!(channel.set_up(|setup| {
            *setup = Setup { ring_base: 0x1000, control_block: 0x2000, ring_order: 4, ..Setup::default() };
        }));
        Arc::new(Self {
            mistake,
            kernel,
            channel,
            engines,
            put: AtomicU32::new(0),
            slots: Default::default(),
            executed: Mutex::default(),
            progress: Condvar::new(),
            leaving: AtomicBool::new(false),
            wait,
            acknowledged: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            time: AtomicU64::new(0),
        })
    }

    fn is_over(&self, wait: Wait) -> bool {
        match wait {
            Wait::Replay(..) => false,
            Wait::Acknowledgement(number) => self.acknowledged.load(Ordering::Acquire) >= number,
            Wait::Hold(number) => self.ended.load(Ordering::Acquire) >= number,
            Wait::Time(deadline) => self.time.load(Ordering::Acquire) >= deadline,
        }
    }

    /// What the commands wait for comes, or the wait is ended.
    fn end_wait(&self) {
        let kick_all = || self.engines.iter().for_each(Doorbells::kick);
        let early = self.mistake == Mistake::EarlyKick;
        if early {
            kick_all();
        }
        match self.wait {
            Some(Wait::Acknowledgement(number)) => self.acknowledged.store(number, Ordering::Release),
            Some(Wait::Hold(number)) => self.ended.store(number, Ordering::Release),
            Some(Wait::Time(deadline)) => self.time.store(deadline, Ordering::Release),
            Some(Wait::Replay(..)) => {
                self.kernel.wait_until(|descriptors| descriptors.faulted);
                assert!(self.channel.replay(|_, _| None));
            }
            None => {}
        }
        if !early {
            kick_all();
        }
    }

    /// As the register does it.
    fn switch(&self, enable: bool) {
        use crate::channel::ChannelSwitched::{Enabled, Stopped, Stopping};
        let engines = self.engines.len() as u8;
        let switched = self.channel.switch(enable, engines, |switched| {
            if let Enabled(setup) = switched {
                bind(&self.engines, setup.engine, 0, &self.channel.doorbell).unwrap();
            }
        });
        match switched {
            Enabled(_) => kick(&self.engines, 0),
            Stopped | Stopping => {}
            other => panic!("{other:?}"),
        }
    }

    /// The driver has one more command executed, by the number of its slot from 1.
    fn submit(&self, number: u32) {
        self.slots[number as usize - 1].store(number.into(), Ordering::Relaxed);
        let order = if self.mistake == Mistake::RelaxedPut { Ordering::Relaxed } else { Ordering::Release };
        self.put.store(number, order);
        self.kernel.ring();
    }

    /// Runs the engines and the driver; then all commands must be executed, each once, in order.
    fn play(self: &Arc<Self>, commands: u64, driver: impl FnOnce(&Self)) {
        let run = |number| {
            let mut worker = Worker { world: self.clone(), number };
            thread::spawn(move || Scheduler::default().run(&mut worker).unwrap())
        };
        let engines: Vec<_> = (0..self.engines.len() as u8).map(run).collect();
        driver(self);
        let mut executed = self.executed.lock().unwrap();
        while (executed.len() as u64) < commands {
            executed = self.progress.wait(executed).unwrap();
        }
        drop(executed);
        self.leaving.store(true, Ordering::Release);
        self.engines.iter().for_each(Doorbells::kick);
        engines.into_iter().for_each(|engine| engine.join().unwrap());
        assert_eq!(*self.executed.lock().unwrap(), (1..=commands).collect::<Vec<_>>());
    }
}

fn model(preemptions: usize, scenario: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(scenario);
}

/// An engine that sleeps is woken, one that is awake comes back, and the commands it reads are those that were written.
fn two_rings(mistake: Mistake) {
    model(3, move || {
        let world = World::new(mistake, 1);
        world.switch(true);
        world.play(2, |world| (1..=2).for_each(|number| world.submit(number)));
    });
}

#[test]
fn no_ring_is_lost() {
    two_rings(Mistake::None);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_doorbell_taken_back_too_late_is_found() {
    two_rings(Mistake::LateHearing);
}

#[test]
#[should_panic(expected = "assertion")]
fn a_put_that_does_not_publish_is_found() {
    two_rings(Mistake::RelaxedPut);
}

/// The first engine was woken by a ring, and takes it back while the channel moves to the second one.
fn moved_while_rung(mistake: Mistake) {
    model(2, move || {
        let world = World::new(mistake, 2);
        world.kernel.ring();
        world.play(1, |world| {
            world.kernel.wait_until(|descriptors| descriptors.woken > 0);
            assert!(world.channel.set_up(|setup| setup.engine = 1));
            world.switch(true);
            world.submit(1);
        });
    });
}

#[test]
fn a_ring_that_the_wrong_engine_hears_is_handed_over() {
    moved_while_rung(Mistake::None);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_ring_that_is_not_handed_over_is_found() {
    moved_while_rung(Mistake::NoHandover);
}

/// A driver disables the channel while its command is executed, takes another engine if the channel is disabled by
/// then, and enables it again: what waits is executed, once, by whichever engine.
#[test]
fn disabled_moved_and_enabled_while_a_command_is_completed() {
    model(2, || {
        let world = World::new(Mistake::None, 2);
        world.switch(true);
        world.play(2, |world| {
            world.submit(1);
            world.switch(false);
            world.channel.set_up(|setup| setup.engine = 1);
            world.switch(true);
            world.submit(2);
        });
    });
}

const FAILURE: ChannelFailure = ChannelFailure { code: ErrorCode::MmuFault, entry: 0, address: 0 };
const ACCESS: FaultedAccess = FaultedAccess { access: AccessKind::Write, kind: FaultKind::NotPresent };
const WAITS: [Wait; 4] = [Wait::Replay(FAILURE, ACCESS), Wait::Acknowledgement(1), Wait::Hold(1), Wait::Time(5)];

/// A command waits, and what it waits for comes at any moment: before it waits, while its engine lets go of it, or behind that.
fn waits_once(mistake: Mistake, wait: Wait) {
    model(3, move || {
        let world = World::waiting(mistake, 1, Some(wait));
        world.switch(true);
        world.play(1, |world| {
            world.submit(1);
            world.end_wait();
        });
    });
}

#[test]
fn a_command_that_waits_is_resumed_whenever_its_wait_ends() {
    WAITS.into_iter().for_each(|wait| waits_once(Mistake::None, wait));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_kick_before_an_acknowledgement_is_found() {
    waits_once(Mistake::EarlyKick, Wait::Acknowledgement(1));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_kick_before_a_hold_ends_is_found() {
    waits_once(Mistake::EarlyKick, Wait::Hold(1));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_kick_before_the_clock_is_set_is_found() {
    waits_once(Mistake::EarlyKick, Wait::Time(5));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_kick_before_a_replay_is_found() {
    waits_once(Mistake::EarlyKick, Wait::Replay(FAILURE, ACCESS));
}
