// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz try --explore`: all orders of the steps of a scenario's threads.
//!
//! [`program`] takes the scenario apart and makes one of each order, [`order`] finds the orders, [`reduce`] makes one that fails short.

mod order;
mod program;
mod reduce;

use std::io;
use std::time::{Duration, Instant};

use ersatz_scenario::{Scenario, Symptom};

use self::program::Program;
use super::batch::{self, Item};
use super::finding::symptoms;
use super::guest_run::Testbed;
use super::script::Script;
use super::source::{self, Source};
use super::trial::{Subject, Trial};
use super::verdict::listed;
use crate::cli::guest::Mode;

/// Most orders of one guest.
const ORDERS: usize = 200;
/// Most failing orders that are listed.
const LISTED: usize = 10;

/// What a scenario is explored with.
#[derive(Clone, Copy, Debug)]
pub struct Exploration<'a> {
    /// What the guests are.
    pub testbed: Testbed<'a>,
    /// The kernel, as the command line names it.
    pub kernel: &'a str,
    /// How VRAM is registered.
    pub memory: Mode,
    /// Most orders that are tried.
    pub bound: usize,
    /// How many guests run side by side.
    pub workers: usize,
}

/// What became of the orders.
#[derive(Debug)]
pub struct Explored {
    /// The orders that were tried, in their order.
    pub trials: Vec<Trial>,
    /// Whether there are more than the bound permits.
    pub cut: bool,
    /// Orders with more changes between threads than a scenario can have.
    pub too_long: usize,
    /// The shortest scenario that still fails as the first failing order does.
    pub shortest: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Tries all orders of a scenario, and makes the first one that fails short. `None` if the user interrupts it.
///
/// # Errors
///
/// Fails if the scenario has nothing to order, or a thread cannot be started.
pub fn run(exploration: &Exploration<'_>, source: &Source) -> Result<Option<Explored>, ExploreError> {
    let started = Instant::now();
    let program = Program::of(&source.scenario).map_err(ExploreError::NoOrders)?;
    let orders = order::all(&program, exploration.bound);
    let possible: Vec<_> = orders.orders.iter().filter_map(|order| Some((order, program.in_order(order)?))).collect();
    let too_long = orders.orders.len() - possible.len();
    let scenarios = possible.iter().map(|(_, scenario)| scenario.clone()).collect();
    let Some(trials) = exploration.tried(scenarios)? else { return Ok(None) };
    let failing = trials.iter().zip(&possible).find_map(|(trial, (order, _))| Some((failure(trial)?, *order)));
    let mut shortest = None;
    if let Some((symptom, order)) = failing {
        let mut failure = None;
        let mut attempt = |scenarios: Vec<Scenario>| match exploration.tried(scenarios) {
            Ok(trials) => trials.map(|trials| trials.iter().map(found).collect()),
            Err(error) => {
                failure = Some(error);
                None
            }
        };
        let scenario = reduce::shortest(&program, order, symptom, &mut attempt);
        if let Some(error) = failure {
            return Err(error);
        }
        let Some(scenario) = scenario else { return Ok(None) };
        shortest = Some(scenario.to_string());
    }
    Ok(Some(Explored { trials, cut: orders.cut, too_long, shortest, took: started.elapsed() }))
}

/// Why orders cannot be tried.
#[derive(Debug, thiserror::Error)]
pub enum ExploreError {
    /// The scenario.
    #[error("cannot explore: {0}")]
    NoOrders(String),
    /// A thread.
    #[error("cannot start a thread")]
    Thread(#[from] io::Error),
}

impl Exploration<'_> {
    /// Tries scenarios, each in fresh processes. `None` if the user interrupts it.
    fn tried(&self, scenarios: Vec<Scenario>) -> Result<Option<Vec<Trial>>, ExploreError> {
        let items: Vec<Item> =
            scenarios.iter().enumerate().filter_map(|(number, scenario)| self.item(number, scenario)).collect();
        let mut trials: Vec<Option<Trial>> = vec![None; items.len()];
        let end = batch::run(&self.testbed, &items, (self.workers, ORDERS), &mut |number, trial| {
            if let Some(slot) = trials.get_mut(number) {
                *slot = Some(trial);
            }
            Ok(())
        })?;
        let trials = trials
            .into_iter()
            .zip(items)
            .map(|(trial, item)| trial.unwrap_or_else(|| Trial::not_run(item.subject, "it was left out".to_owned())));
        Ok((!end.is_interrupted()).then(|| trials.collect()))
    }

    fn item(&self, number: usize, scenario: &Scenario) -> Option<Item> {
        let name = format!("{}-{number}", scenario.name);
        // Orders are made of a scenario's own steps: there is none that is not a scenario.
        let source = source::of_text(&name, scenario.to_string()).ok()?;
        let subject = Subject {
            scenario: name,
            title: source.scenario.title.clone(),
            script: Script::of(&source.scenario),
            kernel: self.kernel.to_owned(),
            memory: self.memory,
            expected: Vec::new(),
            attempts: 1,
        };
        Some(Item { source, subject })
    }
}

fn found(trial: &Trial) -> Vec<Symptom> {
    symptoms(trial.attempts.iter().flat_map(|tried| &tried.findings))
}

/// What is wrong in an order. An order that did not come about says nothing.
fn failure(trial: &Trial) -> Option<Symptom> {
    if came_about(trial) { found(trial).first().copied() } else { None }
}

/// Whether the steps of a trial came in their order, so that it says something.
pub fn came_about(trial: &Trial) -> bool {
    !found(trial).contains(&Symptom::Order)
}

/// Returns the lines for people.
pub fn lines(explored: &Explored) -> Vec<String> {
    let failing: Vec<&Trial> = explored.trials.iter().filter(|trial| failure(trial).is_some()).collect();
    let count = |symptom: Symptom| explored.trials.iter().filter(|trial| found(trial).contains(&symptom)).count();
    let more = if explored.cut { ", and there are more (--bound)" } else { "" };
    let mut lines = vec![format!(
        "{} orders{more}: {} fail, {} did not come about, {} have too many turns  [{:.1} s]",
        explored.trials.len(),
        failing.len(),
        count(Symptom::Order),
        explored.too_long,
        explored.took.as_secs_f64()
    )];
    for trial in failing.iter().take(LISTED) {
        let findings = trial.telling().into_iter().flat_map(|tried| &tried.findings);
        let text = findings.map(|finding| finding.text.as_str()).next().unwrap_or_default();
        lines.push(format!("  {}: {}: {text}", trial.subject.scenario, listed(&found(trial))));
    }
    if failing.len() > LISTED {
        lines.push(format!("  ... and {} more", failing.len() - LISTED));
    }
    if let Some(text) = &explored.shortest {
        lines.push("the shortest that fails as the first of them does:".to_owned());
        lines.push(text.trim_end().to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::sample::{unexpected, well};
    use super::*;

    #[test]
    fn failing_orders_are_counted_and_the_shortest_is_printed() {
        let explored = Explored {
            trials: vec![well(), unexpected()],
            cut: true,
            too_long: 3,
            shortest: Some("setup\n  map r 4K\n".to_owned()),
            took: Duration::from_secs(2),
        };
        let text = lines(&explored);
        assert_eq!(
            text[0],
            "2 orders, and there are more (--bound): 1 fail, 0 did not come about, 3 have too many turns  [2.0 s]"
        );
        assert_eq!(text[1], "  calm: content: page 3 <reads> 0");
        assert_eq!(text.last().unwrap(), "setup\n  map r 4K");
    }
}
