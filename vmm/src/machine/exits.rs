// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Counters of the guest's exits to the VMM, by what caused them.
//!
//! An access that KVM serves by itself (memory slots such as VRAM, ioeventfds, the in-kernel interrupt controllers)
//! causes no exit and is not counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// What made a vCPU exit to the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ExitKind {
    /// The serial port.
    Serial,
    /// Another I/O port.
    Port,
    /// PCI config space, through ECAM or through ports.
    ConfigSpace,
    /// A trapped part of a BAR: registers.
    Bar,
    /// A part of a BAR that should be mapped (VRAM) or an ioeventfd (a doorbell): KVM did not serve it.
    MappedBar,
    /// An address where nothing is.
    Unclaimed,
    /// A signal from the VMM itself.
    Signal,
    /// Anything else.
    Other,
}

impl ExitKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Serial,
        Self::Port,
        Self::ConfigSpace,
        Self::Bar,
        Self::MappedBar,
        Self::Unclaimed,
        Self::Signal,
        Self::Other,
    ];

    /// A short name, for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Port => "port",
            Self::ConfigSpace => "config-space",
            Self::Bar => "bar",
            Self::MappedBar => "mapped-bar",
            Self::Unclaimed => "unclaimed",
            Self::Signal => "signal",
            Self::Other => "other",
        }
    }
}

/// Exits since the machine was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exits([u64; ExitKind::ALL.len()]);

impl Exits {
    /// Exits of one kind.
    pub fn of(&self, kind: ExitKind) -> u64 {
        self.0[kind as usize]
    }

    /// Those of them that came after `earlier` ones.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut exits = *self;
        exits.0.iter_mut().zip(earlier.0).for_each(|(count, before)| *count = count.saturating_sub(before));
        exits
    }

    /// Exits of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Display for Exits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, kind) in ExitKind::ALL.into_iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{}={}", kind.name(), self.of(kind))?;
        }
        Ok(())
    }
}

/// The live counters, shared by the vCPU threads.
#[derive(Debug, Default)]
pub(super) struct ExitCounters([AtomicU64; ExitKind::ALL.len()]);

impl ExitCounters {
    /// Counts one exit.
    pub(super) fn count(&self, kind: ExitKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The counters now.
    pub(super) fn read(&self) -> Exits {
        let mut exits = Exits::default();
        for (value, counter) in exits.0.iter_mut().zip(&self.0) {
            *value = counter.load(Ordering::Relaxed);
        }
        exits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_numbered_in_order() {
        for (number, kind) in ExitKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    #[test]
    fn counts_by_kind() {
        let counters = ExitCounters::default();
        counters.count(ExitKind::Bar);
        counters.count(ExitKind::Bar);
        counters.count(ExitKind::Port);
        let exits = counters.read();
        assert_eq!(exits.of(ExitKind::Bar), 2);
        assert_eq!(exits.of(ExitKind::MappedBar), 0);
        assert_eq!(exits.total(), 3);
        assert!(exits.to_string().starts_with("serial=0 port=1 config-space=0 bar=2"));
        counters.count(ExitKind::Bar);
        let later = counters.read().since(&exits);
        assert_eq!((later.of(ExitKind::Bar), later.total()), (1, 1));
    }
}
