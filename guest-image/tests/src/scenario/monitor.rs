// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Watches the processes of an attempt from outside: tells of steps as they end, keeps holds, finds hangs.

use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ersatz_scenario::call::Call;
use ersatz_scenario::report::{Entry, Ground, StepOutcome};
use ersatz_scenario::{Sequence, Symptom};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::board::{Phase, now_ns};
use super::context::{Context, children};
use super::held_point::Holders;
use super::keeper::Keeper;
use super::report::Reporter;
use super::trial::Trial;
use crate::stuck;

/// How often the monitor looks.
const TICK: Duration = Duration::from_micros(200);
/// How long killed processes may take to end.
const DYING: Duration = Duration::from_secs(3);
/// The longest that an attempt may take on one ground.
const LIMIT: Duration = Duration::from_secs(180);

/// Watches an attempt.
#[derive(Debug)]
pub struct Monitor<'a> {
    context: &'a Context<'a>,
    reporter: &'a mut Reporter,
    keeper: Keeper<'a>,
    /// The first process, which leads the group of all.
    first: Pid,
    first_end: Option<String>,
    /// For each sequence, for each step, what was told of it.
    outcomes: Vec<Vec<Option<StepOutcome>>>,
    last_event: Instant,
}

impl<'a> Monitor<'a> {
    /// A monitor of processes that have just been started.
    pub fn new(context: &'a Context<'a>, holders: &'a Holders, reporter: &'a mut Reporter, first: Pid) -> Self {
        let outcomes = context.scenario.sequences().map(|sequence| vec![None; sequence.steps.len()]).collect();
        let keeper = Keeper::new(context, holders);
        Self { context, reporter, keeper, first, first_end: None, outcomes, last_event: Instant::now() }
    }

    /// Watches until all processes are over, or a step does not end; then no process is left.
    pub fn watch(mut self) -> Trial {
        let begin = Instant::now();
        let mut hung = false;
        while !self.reap() {
            for entry in self.keeper.poll() {
                self.reporter.tell(&entry);
            }
            self.tell_ended();
            if let Some((thread, line, text)) = self.hang(begin) {
                self.tell_hang(thread, line, &text);
                hung = true;
                break;
            }
            sleep(TICK);
        }
        for entry in self.keeper.end_all() {
            self.reporter.tell(&entry);
        }
        let _ = killpg(self.first, Signal::SIGKILL);
        let deadline = Instant::now() + DYING;
        while !self.reap() && Instant::now() < deadline {
            sleep(TICK);
        }
        self.tell_ended();
        self.tell_unfinished();
        let first = self.first_end.unwrap_or_else(|| "nothing: it does not end".into());
        let number = children(self.context.scenario).count();
        let ends = self.context.board.children.iter().take(number);
        let ends = ends.map(|child| child.end().unwrap_or_else(|| "nothing that its parent saw".into()));
        Trial { outcomes: self.outcomes, ends: std::iter::once(first).chain(ends).collect(), hung }
    }

    /// Takes note of processes that are over; true if none is left.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::EINTR) => {}
                Err(_) => return true,
                Ok(WaitStatus::StillAlive) => return false,
                Ok(status) if status.pid() == Some(self.first) => {
                    self.first_end = match status {
                        WaitStatus::Exited(_, code) => Some(format!("exit status {code}")),
                        WaitStatus::Signaled(_, signal, _) => Some(format!("signal {}", signal as i32)),
                        _ => None,
                    };
                }
                // One that lost its parent.
                Ok(_) => {}
            }
        }
    }

    fn tell_ended(&mut self) {
        for (index, sequence) in self.context.scenario.sequences().enumerate() {
            for number in 0..sequence.steps.len() {
                if self.outcomes[index][number].is_some() {
                    continue;
                }
                let board = &self.context.board.sequences[index].steps[number];
                // Steps are done in order.
                let Some((ended, outcome)) = board.ended() else { break };
                self.last_event = Instant::now();
                self.tell_step(index, &sequence, number, (board.began().unwrap_or(ended), ended), outcome);
            }
        }
    }

    fn tell_step(
        &mut self,
        index: usize,
        sequence: &Sequence<'_>,
        number: usize,
        times: (u64, u64),
        outcome: StepOutcome,
    ) {
        let step = &sequence.steps[number];
        self.reporter.tell(&Entry::Step {
            thread: sequence.name.to_owned(),
            step: number as u16,
            line: step.line,
            text: step.call.to_string(),
            began_ns: times.0,
            ended_ns: times.1,
            outcome: outcome.clone(),
        });
        if let StepOutcome::Failed(reason) = &outcome {
            let is_expectation = matches!(step.call, Call::Expect(_));
            let (symptom, on) = match (is_expectation, self.context.ground) {
                (true, _) => (Symptom::Oracle, ""),
                (false, Ground::Gpu) => (Symptom::Order, ""),
                (false, Ground::Plain) => (Symptom::Order, ", on plain memory"),
            };
            let text = format!("{}{on}: {reason}", step.call);
            self.reporter.find(symptom, Some(sequence.name), Some(step.line), text);
        }
        self.outcomes[index][number] = Some(outcome);
    }

    /// Steps that began and did not end, now that nobody is left to end them.
    fn tell_unfinished(&mut self) {
        for (index, sequence) in self.context.scenario.sequences().enumerate() {
            for (number, step) in sequence.steps.iter().enumerate() {
                let board = &self.context.board.sequences[index].steps[number];
                let Some(began) = board.began().filter(|_| board.ended().is_none()) else { continue };
                let (ended, outcome) = if step.call.is_end() {
                    (now_ns(), StepOutcome::Done { detail: None })
                } else {
                    (0, StepOutcome::Unfinished)
                };
                self.tell_step(index, &sequence, number, (began, ended), outcome);
            }
        }
    }

    /// A step, or an end, that takes too long.
    fn hang(&self, begin: Instant) -> Option<(Option<String>, Option<u32>, String)> {
        let scenario = self.context.scenario;
        let now = now_ns();
        let mut running = false;
        for (index, sequence) in scenario.sequences().enumerate() {
            let board = &self.context.board.sequences[index];
            running |= board.phase() == Phase::Running;
            for (number, step) in sequence.steps.iter().enumerate() {
                let slot = &board.steps[number];
                let Some(began) = slot.began() else { break };
                let waits = step.call.is_synchronisation() || slot.ended().is_some();
                let since = Duration::from_nanos(now.saturating_sub(began));
                if !waits && since > self.context.patience() {
                    let text = format!("{}: not done after {:.1} s", step.call, since.as_secs_f32());
                    return Some((Some(sequence.name.to_owned()), Some(step.line), text));
                }
            }
        }
        let whole = begin.elapsed() > LIMIT;
        let end = !running && self.last_event.elapsed() > self.context.patience();
        let gate = self.context.board.gate.load(Ordering::Acquire);
        (whole || end).then(|| {
            let text =
                if gate == 0 { "setup does not come to its end" } else { "the processes do not come to their ends" };
            (None, None, text.to_owned())
        })
    }

    fn tell_hang(&mut self, thread: Option<String>, line: Option<u32>, text: &str) {
        let symptom = if self.context.ground == Ground::Gpu { Symptom::Hang } else { Symptom::Order };
        let on = if self.context.ground == Ground::Gpu { "" } else { " on plain memory" };
        let stacks = stuck::describe(self.first);
        self.reporter.find(symptom, thread.as_deref(), line, format!("{text}{on}\n{stacks}"));
    }
}
