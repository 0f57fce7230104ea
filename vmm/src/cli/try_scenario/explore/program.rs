// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The threads of a scenario as units that an order consists of, and the scenario that has the units of an order follow one another.

use ersatz_scenario::call::{Awaited, Call};
use ersatz_scenario::{Process, Scenario, Step, limits};

/// What happens at one place of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A step.
    Step(Step),
    /// A call that begins, and is held.
    Held {
        /// Where.
        hold: Step,
        /// The call.
        call: Step,
    },
}

/// A scenario whose threads are units. Barriers are left out: orders take their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The scenario; the steps of its threads are not used.
    pub scenario: Scenario,
    /// The units of each thread.
    pub threads: Vec<Vec<Unit>>,
}

/// For each place of an order, the number of the thread whose next unit it is.
pub type Order = Vec<usize>;

impl Unit {
    /// The call; of a call that is held, that one.
    pub fn call(&self) -> &Call {
        match self {
            Self::Step(step) => &step.call,
            Self::Held { call, .. } => &call.call,
        }
    }
}

impl Program {
    /// Takes a scenario apart.
    ///
    /// # Errors
    ///
    /// Fails with a message if its threads cannot be ordered.
    pub fn of(scenario: &Scenario) -> Result<Self, String> {
        if scenario.threads.len() < 2 {
            return Err("there is one order only: the scenario needs two threads".to_owned());
        }
        let mut threads = Vec::new();
        for thread in &scenario.threads {
            let mut units = Vec::new();
            let mut steps = thread.steps.iter().cloned();
            while let Some(step) = steps.next() {
                match step.call {
                    Call::Barrier(_) => {}
                    Call::Hold(_) => {
                        let call = steps.next().ok_or("a hold is the last step of a thread")?;
                        units.push(Unit::Held { hold: step, call });
                    }
                    _ => units.push(Unit::Step(step)),
                }
            }
            if units.iter().filter(|unit| matches!(unit, Unit::Held { .. })).count() > 1 {
                return Err(format!("{} is held more than once, which orders cannot say", thread.name));
            }
            threads.push(units);
        }
        // What is found counts, whatever is expected of the scenario as it is.
        let scenario = Scenario { shows: Vec::new(), ..scenario.clone() };
        Ok(Self { scenario, threads })
    }

    /// The number of a thread.
    pub fn thread(&self, name: &str) -> Option<usize> {
        self.scenario.threads.iter().position(|thread| thread.name == name)
    }

    /// Whether a thread begins with a fork, and not before.
    pub fn is_forked_by(&self, thread: usize, call: &Call) -> bool {
        let process = self.scenario.threads.get(thread).map(|thread| &thread.process);
        matches!((process, call), (Some(Process::Child(child)), Call::Fork(name)) if child == name)
    }

    /// The scenario in which the units follow one another in an order. `None` if that takes more barriers than a scenario may have.
    pub fn in_order(&self, order: &Order) -> Option<Scenario> {
        let mut steps: Vec<Vec<Step>> = vec![Vec::new(); self.threads.len()];
        let mut next = vec![0; self.threads.len()];
        let mut barriers = 0;
        let mut before: Option<(usize, &Unit)> = None;
        for &thread in order {
            let unit = self.threads.get(thread)?.get(next[thread])?;
            next[thread] += 1;
            match before {
                Some((other, last)) if other != thread => match (last, last.call()) {
                    (Unit::Held { .. }, _) => {
                        let name = self.scenario.threads[other].name.clone();
                        let wait = Call::Wait { thread: name, awaited: Awaited::Held };
                        if *unit.call() != wait {
                            steps[thread].push(step(wait));
                        }
                    }
                    // The thread goes on because of it, or begins with it, or there is nobody left to meet.
                    (_, Call::Resume(name)) if self.thread(name) == Some(thread) => {}
                    (_, call) if self.is_forked_by(thread, call) => {}
                    (_, call) if call.is_end() => {}
                    _ => {
                        barriers += 1;
                        let name = format!("o{barriers}");
                        steps[other].push(step(Call::Barrier(name.clone())));
                        steps[thread].push(step(Call::Barrier(name)));
                    }
                },
                _ => {}
            }
            match unit {
                Unit::Step(step) => steps[thread].push(step.clone()),
                Unit::Held { hold, call } => steps[thread].extend([hold.clone(), call.clone()]),
            }
            before = Some((thread, unit));
        }
        let mut scenario = self.scenario.clone();
        scenario.threads.iter_mut().zip(steps).for_each(|(thread, steps)| thread.steps = steps);
        (barriers <= limits::BARRIERS).then_some(scenario)
    }
}

/// A step that no line of the text has.
fn step(call: Call) -> Step {
    Step { line: 0, call, may_differ: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(text: &str) -> Program {
        Program::of(&ersatz_scenario::parse("x", text).unwrap()).unwrap()
    }

    #[test]
    fn an_order_is_a_scenario_of_its_own() {
        let program =
            program("setup\nmap r 4K\nthread a\nwrite r 1\nbarrier x\nread r\nthread b\nbarrier x\nwrite r 2");
        let text = program.in_order(&vec![0, 1, 0]).unwrap().to_string();
        assert!(text.contains("thread a\n  write r 1\n  barrier o1\n  barrier o2\n  read r\n"), "{text}");
        assert!(text.contains("thread b\n  barrier o1\n  write r 2\n  barrier o2\n"), "{text}");
        assert!(ersatz_scenario::parse("x", &text).is_ok(), "{text}");
    }

    #[test]
    fn who_follows_a_held_call_waits_for_the_hold() {
        let text = "setup\nmap r 4K\nthread a\nhold f\nmigrate r to-device\nthread b\nread r\nresume a";
        let text = program(text).in_order(&vec![0, 1, 1]).unwrap().to_string();
        assert!(text.contains("thread b\n  wait a held\n  read r\n  resume a\n"), "{text}");
        assert!(!text.contains("barrier"), "{text}");
    }

    #[test]
    fn a_scenario_with_nothing_to_order_is_refused() {
        let refused = |text: &str| Program::of(&ersatz_scenario::parse("x", text).unwrap()).unwrap_err();
        assert!(refused("setup\nmap r 4K\nthread a\nread r").contains("two threads"));
        let twice = "setup\nmap r 4K\nthread a\nhold f\nread r\nhold f\nread r\nthread b\nresume a\nresume a";
        assert!(refused(twice).contains("more than once"));
    }
}
