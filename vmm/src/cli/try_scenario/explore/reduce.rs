// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes an order that fails as short as it can be: leaves out step after step, as long as it fails in the same way.

use ersatz_scenario::call::{Awaited, Call};
use ersatz_scenario::{Scenario, Symptom};

use super::program::{Order, Program, Unit};

/// Tries scenarios, and returns for each what was found in it. `None` if the user interrupts it.
pub type Try<'a> = dyn FnMut(Vec<Scenario>) -> Option<Vec<Vec<Symptom>>> + 'a;

/// Returns the shortest scenario that still shows `symptom`. `None` if the user interrupts it.
pub fn shortest(program: &Program, order: &Order, symptom: Symptom, attempt: &mut Try<'_>) -> Option<Scenario> {
    let (mut program, mut order) = (program.clone(), order.clone());
    loop {
        let shorter = candidates(&program, &order);
        let scenarios = shorter.iter().map(|(_, _, scenario)| scenario.clone()).collect();
        let found = attempt(scenarios)?;
        let fails = |found: &Vec<Symptom>| found.contains(&symptom) && !found.contains(&Symptom::Order);
        match shorter.into_iter().zip(found).find(|(_, found)| fails(found)) {
            Some(((less, of, _), _)) => (program, order) = (less, of),
            None => return program.in_order(&order),
        }
    }
}

/// All scenarios with one step less, or one hold with all that belongs to it.
fn candidates(program: &Program, order: &Order) -> Vec<(Program, Order, Scenario)> {
    let threads = program.threads.iter().enumerate();
    let units = threads.flat_map(|(thread, units)| (0..units.len()).map(move |unit| (thread, unit)));
    let without_units = units.filter(|&(thread, unit)| !belongs_to_hold(&program.threads[thread][unit]));
    let mut shorter: Vec<(Program, Order)> =
        without_units.map(|(thread, unit)| without_unit(program, order, thread, unit)).collect();
    for index in (0..program.scenario.setup.len()).rev() {
        let mut less = program.clone();
        less.scenario.setup.remove(index);
        shorter.push((less, order.clone()));
    }
    for index in (0..program.scenario.finally.len()).rev() {
        let mut less = program.clone();
        less.scenario.finally.remove(index);
        shorter.push((less, order.clone()));
    }
    let valid = |(program, order): (Program, Order)| {
        let scenario = program.in_order(&order)?;
        // What is left may name what is gone.
        let is_valid = ersatz_scenario::parse(&scenario.name, &scenario.to_string()).is_ok();
        is_valid.then_some((program, order, scenario))
    };
    shorter.into_iter().filter_map(valid).collect()
}

/// Whether a unit makes no sense without a hold, nor the hold without it.
fn belongs_to_hold(unit: &Unit) -> bool {
    matches!(unit.call(), Call::Resume(_) | Call::Wait { awaited: Awaited::Held, .. })
}

fn without_unit(program: &Program, order: &Order, thread: usize, unit: usize) -> (Program, Order) {
    let name = &program.scenario.threads[thread].name;
    let is_hold = matches!(program.threads[thread][unit], Unit::Held { .. });
    let belongs = |call: &Call| match call {
        Call::Resume(other) | Call::Wait { thread: other, awaited: Awaited::Held } => is_hold && other == name,
        _ => false,
    };
    let goes = |of: usize, index: usize| (of, index) == (thread, unit) || belongs(program.threads[of][index].call());
    let mut next = vec![0; program.threads.len()];
    let stays = |&&of: &&usize| {
        let index = next[of];
        next[of] += 1;
        !goes(of, index)
    };
    let order = order.iter().filter(stays).copied().collect();
    let mut less = program.clone();
    for (of, units) in less.threads.iter_mut().enumerate() {
        let mut index = 0;
        units.retain(|_| {
            index += 1;
            !goes(of, index - 1)
        });
    }
    (less, order)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reduces the first order of a scenario, of which each that has all of `culprits` as lines fails.
    fn reduced(text: &str, order: Order, culprits: &[&str]) -> String {
        let program = Program::of(&ersatz_scenario::parse("x", text).unwrap()).unwrap();
        let fails = |scenario: &Scenario| {
            let text = scenario.to_string();
            culprits.iter().all(|culprit| text.lines().any(|line| line.trim() == *culprit))
        };
        let mut attempt = |scenarios: Vec<Scenario>| {
            let found = |scenario| if fails(&scenario) { vec![Symptom::Content] } else { Vec::new() };
            Some(scenarios.into_iter().map(found).collect())
        };
        shortest(&program, &order, Symptom::Content, &mut attempt).unwrap().to_string()
    }

    #[test]
    fn what_does_not_matter_is_left_out() {
        let text = "setup\nmap r 4K\nfill r 7\nthread a\nread r\nwrite r 1\ntouch r\nthread b\nread r\nmunmap r\nfinally\nread r";
        let text = reduced(text, vec![0, 1, 0, 1, 0], &["write r 1", "munmap r"]);
        assert_eq!(
            text,
            "\nsetup\n  map r 4K\n\nthread a\n  write r 1\n  barrier o1\n\nthread b\n  barrier o1\n  munmap r\n"
        );
    }

    #[test]
    fn a_hold_goes_with_all_that_belongs_to_it() {
        let text = "setup\nmap r 4K\nthread a\nhold f\nread r\nthread b\nwait a held\nwrite r 1\nresume a";
        let text = reduced(text, vec![0, 1, 1, 1], &["write r 1"]);
        assert!(!text.contains("hold") && !text.contains("resume") && !text.contains("wait"), "{text}");
    }
}
