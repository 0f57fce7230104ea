// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Many scenarios in few guests, each in fresh processes of a guest that others have used before.
//!
//! The runner in the guest stops behind a scenario in which something hangs or the kernel complains, or goes down with its guest. The
//! scenarios behind that one go on in a fresh guest, so that no scenario pays for another.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use ersatz_guest_image::error_chain::chain;
use ersatz_guest_image::run::SCENARIOS_FOLDER;

use super::evidence::Collected;
use super::guest_run::{Errand, Ran, Testbed, TryGuest};
use super::pool::End;
use super::source::Source;
use super::trial::{Subject, Trial};
use crate::cli::CommandError;
use crate::outcome::Outcome;
use crate::threads::{Role, spawn_scoped};

/// How long a guest may run, and how much longer for each scenario. The runner has deadlines of its own, and has the kernel panic at a soft
/// lockup; this is for a kernel that hangs in another way, and long enough for a host that has much else to do.
const GUEST: Duration = Duration::from_secs(120);
const SCENARIO: Duration = Duration::from_secs(2);

/// A scenario of a batch.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it is.
    pub source: Source,
    /// What is to be judged. The kernel and the memory type are the same in all items of a batch.
    pub subject: Subject,
}

/// Tries scenarios, `workers` guests at a time with at most `most` scenarios each, and passes each result to `show`, with the item's
/// number, in no particular order. What the scenarios need of the guest is that of the first.
///
/// # Errors
///
/// Fails if a thread cannot be started, or with the first error of `show`.
pub fn run(
    testbed: &Testbed<'_>,
    items: &[Item],
    (workers, most): (usize, usize),
    show: &mut dyn FnMut(usize, Trial) -> io::Result<()>,
) -> io::Result<End> {
    let most = most.min(items.len().div_ceil(workers.max(1))).max(1);
    let parts = (0..items.len()).step_by(most).map(|first| first..items.len().min(first + most)).collect();
    drive(parts, workers, &|part| in_one_guest(testbed, items, part), show)
}

/// Passes ranges to `run` until each has been run to its end. `run` returns the results of the first items of its range, at least one;
/// or `None` to stop everything.
fn drive(
    parts: VecDeque<Range<usize>>,
    workers: usize,
    run: &(dyn Fn(Range<usize>) -> Option<Vec<Trial>> + Sync),
    show: &mut dyn FnMut(usize, Trial) -> io::Result<()>,
) -> io::Result<End> {
    let workers = u8::try_from(workers.min(parts.len())).unwrap_or(u8::MAX);
    let queue = Mutex::new(parts);
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for number in 0..workers {
            let sender = sender.clone();
            let lock = &lock;
            spawn_scoped(scope, Role::TestWorker(number), move || {
                loop {
                    let next = lock().pop_front();
                    let Some(part) = next else { return };
                    let first = part.start;
                    let trials = run(part.clone());
                    match &trials {
                        None => lock().clear(),
                        Some(trials) => {
                            let rest = first.saturating_add(trials.len().max(1))..part.end;
                            if !rest.is_empty() {
                                lock().push_front(rest);
                            }
                        }
                    }
                    // The other end is gone if a result could not be shown.
                    let _ = sender.send((first, trials));
                }
            })?;
        }
        drop(sender);
        for (first, trials) in results {
            let Some(trials) = trials else { return Ok(End::Interrupted) };
            let shown = trials.into_iter().zip(first..).try_for_each(|(trial, number)| show(number, trial));
            if let Err(error) = shown {
                lock().clear();
                return Err(error);
            }
        }
        Ok(End::Complete)
    })
}

/// Runs one guest for some items. `None` if the user interrupts it.
fn in_one_guest(testbed: &Testbed<'_>, items: &[Item], part: Range<usize>) -> Option<Vec<Trial>> {
    let items = items.get(part.clone()).unwrap_or_default();
    let name = items.first().map(|item| item.subject.file_name()).unwrap_or_default();
    match try_one_guest(testbed, items, &name) {
        Ok(Some(ran)) => Some(match ran.why_nothing().or_else(|| ran.shown.unavailable.clone()) {
            Some(reason) => not_run(items, &reason),
            None => trials(items, ran),
        }),
        Ok(None) => None,
        Err(error) => Some(not_run(items, &chain(error.as_ref()).to_string())),
    }
}

fn try_one_guest(testbed: &Testbed<'_>, items: &[Item], name: &str) -> Result<Option<Ran>, CommandError> {
    let Some(first) = items.first() else { return Err("a batch of nothing".into()) };
    let path = |index: usize, item: &Item| {
        format!("{SCENARIOS_FOLDER}/{index:05}-{}.scenario", item.subject.scenario.replace('/', "_"))
    };
    let files = items.iter().enumerate().map(|(index, item)| (path(index, item), item.source.text.as_str()));
    let errand = Errand {
        memory: first.subject.memory,
        arguments: ["--batch", SCENARIOS_FOLDER].map(str::to_owned).into(),
        files: files.collect(),
        holds_device: items.iter().any(|item| item.source.scenario.holds_device()),
        limit: GUEST.saturating_add(SCENARIO.saturating_mul(u32::try_from(items.len()).unwrap_or(u32::MAX))),
    };
    TryGuest::new(testbed, &first.source.scenario.guest, &errand)?.run(name)
}

fn not_run(items: &[Item], reason: &str) -> Vec<Trial> {
    items.iter().map(|item| Trial::not_run(item.subject.clone(), reason.to_owned())).collect()
}

/// Judges the scenarios that a guest has begun, one by one.
fn trials(items: &[Item], ran: Ran) -> Vec<Trial> {
    let Ran { outcome, shown, mut traced, took, .. } = ran;
    let count = shown.attempts.len();
    let share = took / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let mut trials = Vec::new();
    for (index, (attempt, item)) in shown.attempts.into_iter().zip(items).enumerate() {
        let own = traced.take(attempt.number);
        // Attempts are numbered by the runner; what a guest says is not trusted to be in order.
        let alone = Collected { attempts: vec![attempt], ..Collected::default() };
        let is_last = index + 1 == count;
        let end = if is_last { &outcome } else { &Outcome::Exited(0) };
        let mut trial = Trial::new(item.subject.clone(), alone, end, own, share);
        if trial.with_findings() == 0 {
            // The order of events is long, and of interest where something is wrong.
            trial.attempts.iter_mut().for_each(|tried| tried.interleaving.clear());
        }
        trials.push(trial);
    }
    trials
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::sample::well;
    use super::*;

    /// Drives ten items in parts of four, in guests that go down behind the items given.
    fn driven(down: &[usize], workers: usize) -> (BTreeMap<usize, u32>, Vec<Range<usize>>, End) {
        let ran = Mutex::new(Vec::new());
        let mut seen = BTreeMap::new();
        let run = |part: Range<usize>| {
            ran.lock().unwrap().push(part.clone());
            let end = part.clone().find(|item| down.contains(item)).map_or(part.end, |item| item + 1);
            let trial = |item: usize| {
                let mut trial = well();
                trial.subject.attempts = u32::try_from(item).unwrap();
                trial
            };
            Some((part.start..end).map(trial).collect())
        };
        let parts = [0..4, 4..8, 8..10].into();
        let end = drive(parts, workers, &run, &mut |number, trial| {
            seen.insert(number, trial.subject.attempts);
            Ok(())
        });
        (seen, ran.into_inner().unwrap(), end.unwrap())
    }

    #[test]
    fn what_is_behind_a_guest_that_went_down_goes_on_in_a_fresh_one() {
        let (seen, ran, end) = driven(&[1, 7, 8], 1);
        assert_eq!(seen, (0..10).map(|item| (item, u32::try_from(item).unwrap())).collect());
        assert_eq!(ran, [0..4, 2..4, 4..8, 8..10, 9..10]);
        assert_eq!(end, End::Complete);
        assert_eq!(driven(&[1, 2, 5], 3).0.len(), 10);
    }

    #[test]
    fn an_interruption_ends_the_batch() {
        let end = drive([0..2, 2..4].into(), 1, &|_| None, &mut |_, _| Ok(()));
        assert_eq!(end.unwrap(), End::Interrupted);
    }
}
