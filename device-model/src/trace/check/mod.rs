// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The protocol oracle: reads a log and says where device or driver broke the contract between them.
//!
//! `channel` has the rules about commands, fences and interrupts, `dma` those about where and when the device may do DMA,
//! `translation` that of virtual addresses, `fault` that of the driver's answers, `handed_over` those of memory that the host demands, `leave` has warnings about how a driver leaves.
//! A rule never blames what threads may do to each other in good order: an event is written when its work is done, so
//! another thread's event may stand between the work and its record. A piece of work is late only if what forbids it
//! stands before the same channel's *previous* event.
//!
//! A log with holes in it proves nothing about what fell into them: the holes are findings themselves, and the
//! rules start afresh behind them.

mod channel;
mod dma;
mod fault;
mod handed_over;
mod leave;
#[cfg(test)]
mod tests;
mod translation;

use std::collections::BTreeMap;

use super::event::Event;
use super::header::Header;
use super::reader::{ReadError, TraceFile};
use super::record::Record;
use channel::Channel;
use dma::DmaRules;
use fault::Faults;
use handed_over::HandedOver;
use leave::Leave;
use translation::Translations;

/// Most findings that are kept; the rest are counted.
pub const MAX_FINDINGS: usize = 1000;

/// A rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The log has all that happened.
    Complete,
    /// Every record is one this version understands.
    Known,
    /// Commands run on enabled channels, one at a time, until an error.
    CommandOrder,
    /// Every accepted command completes, or ends in an error or a reset.
    CommandEnds,
    /// A command that completes signals the fence and the interrupt it asked for.
    Signals,
    /// Fence values rise.
    FenceRises,
    /// Every piece of work belongs to a command.
    WorkInCommand,
    /// DMA needs bus mastering and D0.
    BusMaster,
    /// DMA stays in mapped memory.
    DmaMapped,
    /// VRAM accesses stay in VRAM.
    VramRange,
    /// Virtual addresses are accessed through translations that no acknowledged invalidation means.
    StaleTranslation,
    /// Every fault that is reported to the driver gets an answer before the driver is unbound.
    FaultAnswered,
    /// Memory that was handed over is not accessed before it is returned.
    HandedOver,
    /// Every demand for memory gets an answer in time.
    DemandAnswered,
    /// A driver leaves a device with its channels disabled and without bus mastering.
    DriverLeaves,
    /// Registers are accessed as they can be, and not while a reset is under way.
    BadAccess,
}

impl Rule {
    /// All rules.
    pub const ALL: &'static [Self] = &[
        Self::Complete,
        Self::Known,
        Self::CommandOrder,
        Self::CommandEnds,
        Self::Signals,
        Self::FenceRises,
        Self::WorkInCommand,
        Self::BusMaster,
        Self::DmaMapped,
        Self::VramRange,
        Self::StaleTranslation,
        Self::FaultAnswered,
        Self::HandedOver,
        Self::DemandAnswered,
        Self::DriverLeaves,
        Self::BadAccess,
    ];

    /// The name the tool prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Known => "known",
            Self::CommandOrder => "command-order",
            Self::CommandEnds => "command-ends",
            Self::Signals => "signals",
            Self::FenceRises => "fence-rises",
            Self::WorkInCommand => "work-in-command",
            Self::BusMaster => "bus-master",
            Self::DmaMapped => "dma-mapped",
            Self::VramRange => "vram-range",
            Self::StaleTranslation => "stale-translation",
            Self::FaultAnswered => "fault-answered",
            Self::HandedOver => "handed-over",
            Self::DemandAnswered => "demand-answered",
            Self::DriverLeaves => "driver-leaves",
            Self::BadAccess => "bad-access",
        }
    }

    /// The section of `device-model/MANUAL.md` that has the rule; `None` for rules about the log itself.
    pub const fn section(self) -> Option<&'static str> {
        match self {
            Self::Complete | Self::Known => None,
            Self::CommandOrder | Self::CommandEnds | Self::Signals => Some("Bringing up a channel"),
            Self::FenceRises | Self::WorkInCommand => Some("Commands"),
            Self::BusMaster => Some("The function"),
            Self::DmaMapped => Some("Errors on the bus"),
            Self::VramRange => Some("Errors"),
            Self::StaleTranslation => Some("What an acknowledgement guarantees"),
            Self::FaultAnswered => Some("Faults and replay"),
            Self::HandedOver | Self::DemandAnswered => Some("Memory that the host demands"),
            Self::DriverLeaves => Some("Bringing up the device"),
            Self::BadAccess => Some("Access to registers"),
        }
    }
}

/// A place where a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The record that shows it; 0 for the log as a whole.
    pub sequence: u64,
    /// Its time in nanoseconds.
    pub time: u64,
    /// The rule.
    pub rule: Rule,
    /// What happened, in a sentence.
    pub message: String,
}

/// What the oracle found in one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Broken rules, in the order of the log; at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// How many there are in all.
    pub total: u64,
    /// What is not good order, and may have a reason that the log does not show; at most [`MAX_FINDINGS`].
    pub warnings: Vec<Finding>,
    /// Commands seen to begin.
    pub commands: u64,
    /// Records looked at.
    pub records: u64,
    /// Whether the log was closed in good order; if not, commands that had not ended are not held against it.
    pub closed: bool,
    /// Commands under way when the device went away, or where a log that was not closed ends: cut short, not broken.
    pub under_way: u64,
    /// Faults without an answer when the device went away under its driver, or where a log ends before that: cut short, not
    /// broken.
    pub unanswered: u64,
}

impl Verdict {
    fn report(&mut self, sequence: u64, time: u64, rule: Rule, message: String) {
        self.total += 1;
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding { sequence, time, rule, message });
        }
    }
}

/// Where one record leads a rule to complain: the record's place, and where complaints go.
struct Site<'a> {
    sequence: u64,
    time: u64,
    verdict: &'a mut Verdict,
}

impl Site<'_> {
    fn report(&mut self, rule: Rule, message: String) {
        self.verdict.report(self.sequence, self.time, rule, message);
    }

    fn warn(&mut self, rule: Rule, message: String) {
        if self.verdict.warnings.len() < MAX_FINDINGS {
            self.verdict.warnings.push(Finding { sequence: self.sequence, time: self.time, rule, message });
        }
    }
}

/// The oracle: takes the records of one device in order.
#[derive(Debug, Default)]
pub struct Checker {
    verdict: Verdict,
    channels: BTreeMap<u8, Channel>,
    dma: DmaRules,
    translations: Translations,
    faults: Faults,
    handed_over: HandedOver,
    leave: Leave,
    vram: u64,
    /// Record behind the last hole in the log; 0: there was none.
    hole: u64,
    previous: u64,
    last_time: u64,
}

impl Checker {
    /// An oracle for a device with `vram` bytes of VRAM (0: not known, not checked).
    pub fn new(vram: u64) -> Self {
        Self { vram, ..Self::default() }
    }

    /// Checks a whole log.
    ///
    /// # Errors
    ///
    /// Those of reading the log.
    pub fn check(file: &TraceFile) -> Result<Verdict, ReadError> {
        let mut checker = Self::new(file.header().identity.vram);
        for record in file.records() {
            checker.add(&record?);
        }
        Ok(checker.finish(file.header()))
    }

    /// Looks at the next record.
    pub fn add(&mut self, record: &Record) {
        let gap = record.sequence.saturating_sub(self.previous).saturating_sub(1);
        let mut site = Site { sequence: record.sequence, time: record.time, verdict: &mut self.verdict };
        if gap > 0 {
            site.report(Rule::Complete, format!("{gap} records before this one are missing"));
            self.channels.clear();
            self.dma = DmaRules::unknown();
            self.translations = Translations::unknown();
            self.faults = Faults::unknown();
            self.handed_over = HandedOver::default();
            self.leave = Leave::default();
            self.hole = record.sequence;
        }
        self.previous = record.sequence;
        self.last_time = record.time;
        site.verdict.records += 1;
        let Some(event) = record.event() else {
            let fields = &record.fields;
            site.report(Rule::Known, format!("kind {} with these fields is no event: {fields:?}", fields.kind));
            return;
        };
        if let Event::CommandStart { .. } = event {
            site.verdict.commands += 1;
        }
        self.dma.look(&event, record.sequence, &mut site);
        self.translations.look(&event, &mut site);
        self.leave.look(&event, self.faults.unanswered(), &mut site);
        self.faults.look(&event, &mut site);
        self.handed_over.look(&event, &mut site);
        if let Event::Reset { .. } = event {
            self.channels.values_mut().for_each(Channel::reset);
        }
        if let Event::DeviceDropped = event {
            for (number, channel) in &mut self.channels {
                site.verdict.under_way += u64::from(channel.leave(*number, &mut site));
            }
        }
        if let Some(number) = event.channel() {
            let hole = self.hole;
            let channel = self.channels.entry(number).or_insert_with(|| Channel::new(hole == 0, hole));
            self.dma.look_at_work(&event, channel.last_work(), self.vram, &mut site);
            self.handed_over.look_at_work(&event, channel.last_work(), &mut site);
            channel.look(&event, &mut site);
        }
    }

    /// Ends the log.
    pub fn finish(mut self, header: &Header) -> Verdict {
        let verdict = &mut self.verdict;
        verdict.closed = header.closed;
        verdict.unanswered = self.faults.unanswered();
        if header.dropped > 0 {
            let message =
                format!("{} events found no room in the log (of {} records)", header.dropped, header.capacity);
            verdict.report(0, self.last_time, Rule::Complete, message);
        }
        let missing = header.kept().saturating_sub(self.previous);
        if missing > 0 {
            let message = format!("{missing} records at the end of the log are missing");
            verdict.report(0, self.last_time, Rule::Complete, message);
        }
        let mut site = Site { sequence: 0, time: self.last_time, verdict };
        self.leave.finish(self.faults.unanswered(), &mut site);
        let verdict = &mut self.verdict;
        for (number, channel) in &self.channels {
            if !header.closed || header.dropped > 0 || missing > 0 {
                verdict.under_way += u64::from(channel.is_busy());
            } else {
                let mut site = Site { sequence: self.previous, time: self.last_time, verdict };
                channel.finish(*number, &mut site);
            }
        }
        self.verdict
    }
}
