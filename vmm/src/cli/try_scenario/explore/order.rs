// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All orders in which the units of threads can follow one another.

use ersatz_scenario::Process;
use ersatz_scenario::call::{Awaited, Call};

use super::program::{Order, Program, Unit};

/// Orders, and whether there are more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Those that were found, the first thread first.
    pub orders: Vec<Order>,
    /// Whether the bound kept some out.
    pub cut: bool,
}

/// Where each thread is.
#[derive(Clone, Debug)]
struct Position {
    next: Vec<usize>,
    held: Vec<bool>,
    /// Threads of processes that are there.
    there: Vec<bool>,
}

/// Returns at most `bound` orders, always the same ones. Those in which a thread could not go on are left out: it waits for a hold that is
/// not there, or nobody resumes it.
pub fn all(program: &Program, bound: usize) -> Orders {
    let count = program.threads.len();
    let setup: Vec<&Call> = program.scenario.setup.iter().map(|step| &step.call).collect();
    let is_there = |thread: usize| {
        let first = program.scenario.threads.get(thread).is_some_and(|thread| thread.process == Process::First);
        first || setup.iter().any(|call| program.is_forked_by(thread, call))
    };
    let start = Position { next: vec![0; count], held: vec![false; count], there: (0..count).map(is_there).collect() };
    let mut found = Orders::default();
    walk(program, &start, &mut Vec::new(), bound, &mut found);
    found
}

fn walk(program: &Program, position: &Position, order: &mut Order, bound: usize, found: &mut Orders) {
    if found.cut {
        return;
    }
    let threads = 0..program.threads.len();
    if threads.clone().all(|thread| position.is_over(program, thread)) {
        if found.orders.len() < bound {
            found.orders.push(order.clone());
        } else {
            found.cut = true;
        }
        return;
    }
    for thread in threads {
        if let Some(next) = position.after(program, thread) {
            order.push(thread);
            walk(program, &next, order, bound, found);
            order.pop();
        }
    }
}

impl Position {
    fn is_over(&self, program: &Program, thread: usize) -> bool {
        let count = program.threads.get(thread).map_or(0, Vec::len);
        self.next.get(thread).is_some_and(|&next| next >= count) && !self.held.get(thread).is_some_and(|&held| held)
    }

    /// Where the threads are when the next unit of one has happened; `None` if it cannot happen now.
    fn after(&self, program: &Program, thread: usize) -> Option<Self> {
        if self.held[thread] || !self.there[thread] {
            return None;
        }
        let unit = program.threads.get(thread)?.get(self.next[thread])?;
        let mut after = self.clone();
        after.next[thread] += 1;
        match unit {
            Unit::Held { .. } => after.held[thread] = true,
            Unit::Step(step) => match &step.call {
                Call::Wait { thread: other, awaited: Awaited::Held } => {
                    self.held[program.thread(other)?].then_some(())?;
                }
                Call::Wait { thread: other, awaited: Awaited::Done } => {
                    self.is_over(program, program.thread(other)?).then_some(())?;
                }
                Call::Resume(other) => {
                    let other = program.thread(other)?;
                    self.held[other].then_some(())?;
                    after.held[other] = false;
                }
                Call::Join(child) => {
                    let process = Process::Child(child.clone());
                    let threads = program.scenario.threads.iter().enumerate();
                    let mut own = threads.filter(|(_, thread)| thread.process == process);
                    own.all(|(other, _)| self.is_over(program, other)).then_some(())?;
                }
                call => {
                    for other in 0..program.threads.len() {
                        after.there[other] |= program.is_forked_by(other, call);
                    }
                }
            },
        }
        Some(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(text: &str, bound: usize) -> Orders {
        all(&Program::of(&ersatz_scenario::parse("x", text).unwrap()).unwrap(), bound)
    }

    #[test]
    fn two_steps_and_one_have_three_orders() {
        let text = "setup\nmap r 4K\nthread a\nread r\nread r\nthread b\nwrite r 1";
        assert_eq!(orders(text, 10), Orders { orders: vec![vec![0, 0, 1], vec![0, 1, 0], vec![1, 0, 0]], cut: false });
        assert_eq!(orders(text, 2), Orders { orders: vec![vec![0, 0, 1], vec![0, 1, 0]], cut: true });
    }

    #[test]
    fn a_held_thread_goes_on_when_it_is_resumed() {
        let text = "setup\nmap r 4K\nthread a\nhold f\nread r\nread r\nthread b\nwrite r 1\nresume a";
        assert_eq!(orders(text, 10).orders, [vec![0, 1, 1, 0], vec![1, 0, 1, 0]]);
        let waits = "setup\nmap r 4K\nthread a\nhold f\nread r\nthread b\nwait a held\nwrite r 1\nresume a";
        assert_eq!(orders(waits, 10).orders, [vec![0, 1, 1, 1]]);
        let forgotten = "setup\nmap r 4K\nthread a\nhold f\nread r\nthread b\nwrite r 1";
        assert_eq!(orders(forgotten, 10), Orders::default());
    }

    #[test]
    fn a_child_comes_after_its_fork_and_before_its_join() {
        let text = "setup\nmap r 4K\nthread a\nfork c\nread r\njoin c\nthread b of c\nwrite r 1";
        assert_eq!(orders(text, 10).orders, [vec![0, 0, 1, 0], vec![0, 1, 0, 0]]);
    }
}
