// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which thread runs where. A held task keeps its CPU for itself, so no other thread may wait for that CPU.

use ersatz_scenario::call::Call;
use ersatz_scenario::{Scenario, Thread};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The CPUs of an attempt.
#[derive(Debug)]
pub struct Cpus {
    /// For each thread, the CPU that it has for itself or was given.
    own: Vec<Option<usize>>,
    /// The CPUs where nothing is held; all, if there is none such.
    others: Vec<usize>,
}

impl Cpus {
    /// Divides the machine's CPUs: threads that are held get one each, from the last on, unless the scenario says which.
    pub fn of(scenario: &Scenario) -> Self {
        Self::divide(scenario, &available())
    }

    fn divide(scenario: &Scenario, all: &[usize]) -> Self {
        let is_held = |thread: &Thread| thread.steps.iter().any(|step| matches!(step.call, Call::Hold(_)));
        let mut given: Vec<usize> = scenario.threads.iter().filter_map(|thread| thread.cpu.map(usize::from)).collect();
        let mut own = Vec::new();
        let mut held = Vec::new();
        for thread in &scenario.threads {
            let mut cpu = thread.cpu.map(usize::from);
            if is_held(thread) {
                cpu = cpu.or_else(|| all.iter().rev().copied().find(|cpu| !given.contains(cpu)));
                given.extend(cpu);
                held.extend(cpu);
            }
            own.push(cpu);
        }
        let others: Vec<usize> = all.iter().copied().filter(|cpu| !held.contains(cpu)).collect();
        Self { own, others: if others.is_empty() { all.to_vec() } else { others } }
    }

    /// Moves the calling thread, which does the steps of this sequence, to where it belongs.
    pub fn enter(&self, sequence: usize) {
        match sequence.checked_sub(1).and_then(|thread| self.own.get(thread)).copied().flatten() {
            Some(cpu) => set(&[cpu]),
            None => self.enter_others(),
        }
    }

    /// Moves the calling thread to the CPUs where nothing is held.
    pub fn enter_others(&self) {
        set(&self.others);
    }
}

fn available() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(1)).or_else(|_| sched_getaffinity(Pid::from_raw(0)));
    let set = set.unwrap_or_default();
    (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect()
}

/// Best effort: a CPU that the machine does not have leaves the thread where it may run.
fn set(cpus: &[usize]) {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        let _ = set.set(cpu);
    }
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_threads_have_cpus_of_their_own() {
        let text = "setup\nmap r 4K\nthread a\nhold f\nread r\nthread b\nread r\nthread c cpu=0\nread r";
        let scenario = ersatz_scenario::parse("x", text).unwrap();
        let cpus = Cpus::divide(&scenario, &[0, 1, 2]);
        assert_eq!(cpus.own, [Some(2), None, Some(0)]);
        assert_eq!(cpus.others, [0, 1]);
        let alone = Cpus::divide(&scenario, &[0]);
        assert_eq!((alone.own, alone.others), (vec![None, None, Some(0)], vec![0]));
    }
}
