// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands that wait, in whatever order drivers, engines and what is waited for come: a command is resumed where it stopped,
//! once, and a channel is not disabled before its command has ended or was dropped.

use proptest::prelude::*;

use super::*;
use crate::channel::task::Stage;

#[derive(Clone, Copy, Debug)]
enum Act {
    TakeUp,
    Suspend(Stage, Reason),
    Complete,
    Fail,
    LetGo,
    Acknowledge,
    EndHold,
    Tick,
    /// Into a hold, if this is set.
    Replay(bool),
    Cancel,
    Enable(bool),
    Reset,
    FunctionReset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Replay,
    Acknowledgement,
    Hold,
    Time,
}

fn any_act() -> impl Strategy<Value = Act> {
    let stage = prop::sample::select(vec![Stage::Fetched, Stage::Work, Stage::Fence, Stage::Get, Stage::Interrupt]);
    let reason = prop::sample::select(vec![Reason::Replay, Reason::Acknowledgement, Reason::Hold, Reason::Time]);
    prop_oneof![
        8 => Just(Act::TakeUp),
        6 => (stage, reason).prop_map(|(stage, reason)| Act::Suspend(stage, reason)),
        4 => Just(Act::Complete),
        1 => Just(Act::Fail),
        8 => Just(Act::LetGo),
        2 => Just(Act::Acknowledge),
        2 => Just(Act::EndHold),
        2 => Just(Act::Tick),
        2 => any::<bool>().prop_map(Act::Replay),
        1 => Just(Act::Cancel),
        4 => any::<bool>().prop_map(Act::Enable),
        1 => Just(Act::Reset),
        1 => Just(Act::FunctionReset),
    ]
}

/// What must be true, kept by simpler means.
#[derive(Debug, Default)]
struct Model {
    acknowledged: u64,
    /// Holds up to this number have ended.
    ended: u64,
    now: u64,
    /// The engine has the channel: its turn, and the command it is at.
    engine: Option<(Turn, Option<Task>)>,
    /// A reset came after the engine took the channel up.
    stale: bool,
    /// The command that the channel keeps.
    kept: Option<(Task, Option<Wait>)>,
    commands: u64,
}

impl Model {
    fn is_over(&self, wait: Wait) -> bool {
        match wait {
            Wait::Replay(..) => false,
            Wait::Acknowledgement(number) => self.acknowledged >= number,
            Wait::Hold(number) => self.ended >= number,
            Wait::Time(deadline) => self.now >= deadline,
        }
    }

    fn kept_wait(&self) -> Option<Wait> {
        self.kept.and_then(|(_, wait)| wait)
    }

    /// The command that the engine is at: the one it was given, else the next.
    fn current(&mut self) -> Option<(Turn, Task)> {
        let (turn, task) = self.engine?;
        let task = task.unwrap_or_else(|| {
            self.commands += 1;
            super::task(self.commands)
        });
        Some((turn, task))
    }
}

fn set_up(channel: &Channel) {
    channel.set_up(|setup| {
        *setup = Setup { ring_base: 0x1000, control_block: 0x2000, ring_order: 4, ..Setup::default() };
    });
}

fn play(channel: &Channel, model: &mut Model, act: Act) -> Result<(), TestCaseError> {
    match act {
        // An engine has one turn at a time.
        Act::TakeUp if model.engine.is_none() => match channel.take_up(0, |wait| model.is_over(wait)) {
            Found::Turn(turn, resumed) => {
                let expected = model.kept.take();
                prop_assert!(expected.is_none_or(|(_, wait)| wait.is_none_or(|wait| model.is_over(wait))));
                let expected = expected.map(|(task, _)| (task.command.tag, task.stage));
                prop_assert_eq!(resumed.as_ref().map(|task| (task.command.tag, task.stage)), expected);
                (model.engine, model.stale) = (Some((turn, resumed.map(|task| *task))), false);
            }
            Found::Waiting(wait) => {
                prop_assert_eq!(model.kept_wait(), Some(wait));
                prop_assert!(!model.is_over(wait));
            }
            Found::Nothing => {
                prop_assert!(matches!(model.kept_wait(), None | Some(Wait::Replay(..))) || channel.is_resetting())
            }
            Found::Elsewhere => prop_assert!(false, "there is one engine"),
        },
        Act::Suspend(stage, reason) => {
            let Some((turn, task)) = model.current() else { return Ok(()) };
            let wait = match reason {
                Reason::Replay => Wait::Replay(FAILURE, ACCESS),
                Reason::Acknowledgement => Wait::Acknowledgement(model.acknowledged + 1),
                Reason::Hold => Wait::Hold(model.ended + 1),
                Reason::Time => Wait::Time(model.now + 1),
            };
            let task = Task { stage: stage.max(task.stage), ..task };
            // A command is suspended once in a turn, which ends after that.
            if model.kept.is_none() {
                prop_assert_eq!(channel.suspend(&turn, &task, wait, || ()), !model.stale);
                if !model.stale {
                    model.kept = Some((task, Some(wait)));
                }
                let settled = channel.let_go(&turn, |_| ());
                prop_assert!(settled != Some(Settled::Stopped), "its command has not ended");
                finish_turn(model, settled);
            }
        }
        Act::Complete => {
            let Some((turn, _)) = model.current() else { return Ok(()) };
            let done = turn.completed(None);
            channel.complete(&done);
            model.engine = Some((done, None));
        }
        Act::Fail => {
            let Some((turn, _)) = model.engine else { return Ok(()) };
            prop_assert_eq!(channel.fail(&turn, FAILURE), !model.stale);
            finish_turn(model, channel.let_go(&turn, |_| ()));
        }
        Act::LetGo => {
            let Some((turn, task)) = model.engine else { return Ok(()) };
            // A command that was begun has ended or waits before its engine lets go.
            if task.is_none() || model.stale {
                finish_turn(model, channel.let_go(&turn, |_| ()));
            }
        }
        Act::Acknowledge => model.acknowledged += 1,
        Act::EndHold => model.ended += 1,
        Act::Tick => model.now += 1,
        Act::Replay(holds) => {
            let waited = matches!(model.kept_wait(), Some(Wait::Replay(..)));
            let hold = holds.then_some(model.ended + 1);
            prop_assert_eq!(channel.replay(|_, _| hold), waited);
            if let Some((_, wait)) = model.kept.as_mut().filter(|_| waited) {
                *wait = hold.map(Wait::Hold);
            }
        }
        Act::Cancel => {
            let waited = matches!(model.kept_wait(), Some(Wait::Replay(..)));
            let cancelled = channel.cancel(|cancelled| assert_eq!(cancelled.failure.code, ErrorCode::FaultCancelled));
            prop_assert_eq!(cancelled, waited && !channel.is_resetting());
            if cancelled {
                model.kept = None;
                model.stale = true;
            }
        }
        Act::Enable(enable) => {
            set_up(channel);
            let switched = channel.switch(enable, 1, |_| ());
            prop_assert!(
                switched != ChannelSwitched::Stopped || model.kept.is_none(),
                "disabled with a command that waits"
            );
        }
        Act::Reset => {
            let complete = channel.request_reset(ResetScope::Channel, |_| ());
            model.stale = true;
            if complete {
                model.kept = None;
            }
        }
        Act::FunctionReset => {
            channel.reset(ResetScope::Device);
            model.kept = None;
            model.stale = true;
        }
        Act::TakeUp => {}
    }
    Ok(())
}

fn finish_turn(model: &mut Model, settled: Option<Settled>) {
    model.engine = None;
    if settled == Some(Settled::Reset) {
        model.kept = None;
    }
}

proptest! {
    #[test]
    fn a_command_that_waits_is_resumed_once_or_dropped(acts in prop::collection::vec(any_act(), 1..200)) {
        let channel = enabled();
        let mut model = Model::default();
        for act in acts {
            play(&channel, &mut model, act)?;
            prop_assert_eq!(channel.is_faulted(), matches!(model.kept_wait(), Some(Wait::Replay(..))), "after {:?}", act);
            let state = channel.snapshot().status.state();
            prop_assert!(model.kept.is_none() || state != Some(ChannelState::Disabled), "after {:?}", act);
        }
        // Whatever has happened, a reset leaves nothing of it.
        channel.reset(ResetScope::Channel);
        set_up(&channel);
        prop_assert!(matches!(channel.switch(true, 1, |_| ()), ChannelSwitched::Enabled(_)));
        let turn = take_up(&channel);
        prop_assert_eq!(turn.get, 0);
    }
}
