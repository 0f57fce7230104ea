// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rules of one channel: its commands, their fences and their interrupts.

use ersatz_abi::error::ErrorCode;

use super::{Rule, Site};
use crate::trace::event::{Event, InjectionEvent, MmuEvent, NotificationEvent};
use crate::trace::injection::ActionKind;
use crate::trace::kind::Kind;

/// What the log says about a channel so far. What it has not said yet breaks no rule.
#[derive(Debug)]
pub(super) struct Channel {
    state: State,
    /// The command under way.
    command: Option<Command>,
    /// What the last command promised and the log does not show yet.
    due: Due,
    /// The last fence value.
    fence: Option<u64>,
    /// Sequence number of the last record that its engine wrote.
    last_work: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The log has a hole, and has not shown the state since.
    Unknown,
    /// Not enabled since power-on or reset.
    Reset,
    Enabled,
    /// Disabled by the record with this sequence number.
    Disabled(u64),
    Failed(ErrorCode),
}

#[derive(Clone, Copy, Debug)]
struct Command {
    sequence: u64,
    position: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Due {
    sequence: u64,
    fence: Option<u64>,
    interrupt: bool,
}

impl Channel {
    /// A channel after power-on or reset (`known`), or one that nothing is known of before record `sequence`.
    pub(super) const fn new(known: bool, sequence: u64) -> Self {
        let due = Due { sequence, fence: None, interrupt: false };
        let state = if known { State::Reset } else { State::Unknown };
        Self { state, command: None, due, fence: None, last_work: sequence }
    }

    /// Sequence number of the last record that this channel's engine wrote.
    pub(super) const fn last_work(&self) -> u64 {
        self.last_work
    }

    /// Whether a command is under way.
    pub(super) const fn is_busy(&self) -> bool {
        self.command.is_some()
    }

    /// The device is gone: whether a command was under way. What completed ones promised must be there.
    pub(super) fn leave(&mut self, number: u8, site: &mut Site<'_>) -> bool {
        let busy = self.is_busy();
        if !busy {
            self.settle(number, site);
        }
        self.reset();
        busy
    }

    /// The device or the channel was reset: nothing is promised any more.
    pub(super) fn reset(&mut self) {
        *self = Self::new(true, self.last_work);
    }

    /// Looks at an event of this channel.
    pub(super) fn look(&mut self, event: &Event, site: &mut Site<'_>) {
        match *event {
            Event::ChannelEnabled { .. } => {
                self.state = State::Enabled;
                // The driver may have cleared the control block.
                self.fence = None;
            }
            Event::ChannelDisabled { .. } => self.state = State::Disabled(site.sequence),
            Event::ChannelReset { .. } => self.reset(),
            Event::ChannelError { error, .. } => {
                self.state = State::Failed(error);
                self.command = None;
                self.due = Due::default();
            }
            Event::CommandStart { channel, position, fence, interrupt, .. } => {
                self.start(channel, position, Due { sequence: site.sequence, fence, interrupt }, site);
                self.last_work = site.sequence;
            }
            Event::CommandEnd { channel, position, error, .. } => {
                self.end(channel, position, error, site);
                self.last_work = site.sequence;
            }
            Event::Copy { channel, .. }
            | Event::Fill { channel, .. }
            | Event::Digest { channel, .. }
            | Event::Mmu(MmuEvent::Access { channel, .. }) => {
                if self.command.is_none() && self.state != State::Unknown {
                    let kind = event.kind().name();
                    site.report(Rule::WorkInCommand, format!("channel {channel}: {kind} outside of any command"));
                }
                self.last_work = site.sequence;
            }
            Event::Fence { channel, value, .. } => {
                if let Some(before) = self.fence.filter(|before| value <= *before) {
                    site.report(
                        Rule::FenceRises,
                        format!("channel {channel}: fence {value:#x} is not above the one before, {before:#x}"),
                    );
                }
                self.fence = Some(value);
                if self.due.fence == Some(value) {
                    self.due.fence = None;
                } else if self.state != State::Unknown {
                    site.report(
                        Rule::Signals,
                        format!("channel {channel}: fence {value:#x} was signalled, and no command asked for it"),
                    );
                }
                self.last_work = site.sequence;
            }
            Event::Notification(
                NotificationEvent::FaultRecorded { .. }
                | NotificationEvent::FaultDropped { .. }
                | NotificationEvent::AccessNotification { .. }
                | NotificationEvent::AccessNotificationDropped { .. },
            ) => self.last_work = site.sequence,
            Event::Interrupt { .. } => self.due.interrupt = false,
            // What the rule decides about is not the device's own doing.
            Event::Injection(InjectionEvent::RuleFired {
                action: action @ (ActionKind::Drop | ActionKind::Delay | ActionKind::Reorder),
                at,
                ..
            }) => match Kind::from_raw(at).map(Kind::name) {
                Some("interrupt") => self.due.interrupt = false,
                Some("fence") if action == ActionKind::Drop => self.due.fence = None,
                _ => {}
            },
            _ => {}
        }
    }

    /// The log was closed: nothing more will come.
    pub(super) fn finish(&self, number: u8, site: &mut Site<'_>) {
        if let Some(command) = self.command {
            site.report(
                Rule::CommandEnds,
                format!(
                    "channel {number}: the command at ring position {} (record {}) never ended",
                    command.position, command.sequence
                ),
            );
        }
        self.settle(number, site);
    }

    fn start(&mut self, channel: u8, position: u32, due: Due, site: &mut Site<'_>) {
        match self.state {
            State::Failed(error) => site.report(
                Rule::CommandOrder,
                format!("channel {channel}: a command begins after error {} and before a reset", error.name()),
            ),
            State::Reset => {
                site.report(Rule::CommandOrder, format!("channel {channel}: a command begins, and it is not enabled"));
            }
            State::Disabled(since) if since < self.last_work => site.report(
                Rule::CommandOrder,
                format!("channel {channel}: a command begins, and it was disabled before (record {since})"),
            ),
            State::Unknown | State::Enabled | State::Disabled(_) => {}
        }
        if let Some(earlier) = self.command {
            site.report(
                Rule::CommandEnds,
                format!(
                    "channel {channel}: a command begins while the one at ring position {} (record {}) has not ended",
                    earlier.position, earlier.sequence
                ),
            );
        }
        self.settle(channel, site);
        self.command = Some(Command { sequence: due.sequence, position });
        self.due = due;
    }

    fn end(&mut self, channel: u8, position: u32, error: ErrorCode, site: &mut Site<'_>) {
        match self.command.take() {
            Some(command) if command.position != position => site.report(
                Rule::CommandOrder,
                format!(
                    "channel {channel}: the command at ring position {position} ends, but the one at {} began",
                    command.position
                ),
            ),
            None if self.state == State::Enabled => site.report(
                Rule::CommandOrder,
                format!("channel {channel}: the command at ring position {position} ends and never began"),
            ),
            _ => {}
        }
        if error != ErrorCode::None {
            self.due = Due::default();
        }
    }

    /// Whatever the last command promised must be there now.
    fn settle(&self, channel: u8, site: &mut Site<'_>) {
        let record = self.due.sequence;
        if let Some(value) = self.due.fence {
            site.report(
                Rule::Signals,
                format!("channel {channel}: the command of record {record} never signalled its fence {value:#x}"),
            );
        }
        if self.due.interrupt {
            site.report(
                Rule::Signals,
                format!("channel {channel}: the command of record {record} never raised its interrupt"),
            );
        }
    }
}
