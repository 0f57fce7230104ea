// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Several guests side by side, with their results in the order of the list.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use super::guest_run::Plan;
use super::trial::Trial;
use crate::threads::{Role, spawn_scoped};

/// How a list of guests was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of them.
    Complete,
    /// The user interrupted it.
    Interrupted,
}

impl End {
    /// Whether the user interrupted it.
    pub fn is_interrupted(self) -> bool {
        self == Self::Interrupted
    }
}

/// Runs guests, `workers` at a time, and passes each result to `show` as soon as those before it have been.
///
/// # Errors
///
/// Fails if a thread cannot be started, or with the first error of `show`: guests that run then are run to their end.
pub fn run(plans: Vec<Plan<'_>>, workers: usize, show: &mut dyn FnMut(Trial) -> io::Result<()>) -> io::Result<End> {
    let workers = u8::try_from(workers.min(plans.len())).unwrap_or(u8::MAX);
    let queue = Mutex::new(plans.into_iter().enumerate());
    let stopped = AtomicBool::new(false);
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for number in 0..workers {
            let (sender, queue, stopped) = (sender.clone(), &queue, &stopped);
            spawn_scoped(scope, Role::TestWorker(number), move || {
                while !stopped.load(Ordering::Relaxed) {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((index, plan)) = next else { return };
                    let trial = plan.run();
                    if trial.is_none() {
                        stopped.store(true, Ordering::Relaxed);
                    }
                    // The other end is gone if a result could not be shown.
                    let _ = sender.send((index, trial));
                }
            })?;
        }
        drop(sender);
        let shown = in_order(results, show);
        stopped.store(true, Ordering::Relaxed);
        shown
    })
}

/// Shows results in their order.
fn in_order(
    results: impl IntoIterator<Item = (usize, Option<Trial>)>,
    show: &mut dyn FnMut(Trial) -> io::Result<()>,
) -> io::Result<End> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (index, trial) in results {
        let Some(trial) = trial else { return Ok(End::Interrupted) };
        early.insert(index, trial);
        while let Some(trial) = early.remove(&next) {
            show(trial)?;
            next += 1;
        }
    }
    Ok(End::Complete)
}

#[cfg(test)]
mod tests {
    use super::super::sample::well;
    use super::*;

    fn shown(results: Vec<(usize, bool)>) -> (Vec<u32>, io::Result<End>) {
        let mut seen = Vec::new();
        let trial = |(index, ran): (usize, bool)| {
            let mut trial = well();
            trial.subject.attempts = u32::try_from(index).unwrap();
            (index, ran.then_some(trial))
        };
        let end = in_order(results.into_iter().map(trial), &mut |trial| {
            seen.push(trial.subject.attempts);
            Ok(())
        });
        (seen, end)
    }

    #[test]
    fn results_are_shown_in_the_order_of_the_list() {
        let (seen, end) = shown(vec![(2, true), (0, true), (1, true), (3, true)]);
        assert_eq!((seen, end.unwrap()), (vec![0, 1, 2, 3], End::Complete));
    }

    #[test]
    fn an_interrupted_guest_ends_the_list() {
        let (seen, end) = shown(vec![(0, true), (1, false), (2, true)]);
        assert_eq!((seen, end.unwrap()), (vec![0], End::Interrupted));
    }
}
