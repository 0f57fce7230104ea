// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table of events of breakpoints and rules (`crate::inject`): what was made to happen, and is not the driver's doing.

use super::place::*;
use crate::trace::event::Value;
use crate::trace::injection::{ActionKind, HoldEnd, Step};
use crate::trace::kind::Kind;
use crate::trace::range::Range;

events! {
    /// One event of a breakpoint or a rule.
    pub enum InjectionEvent {
        /// A breakpoint holds a channel, or an acknowledgement.
        BreakpointHeld = 96, "breakpoint-held" {
            /// The breakpoint's number.
            breakpoint: u64 => ID, "breakpoint": number;
            /// The hold's number.
            hold: u64 => TAG, "hold": number;
            /// Where.
            step: Step => DETAIL, "step": name;
            /// The channel that is held.
            channel: Option<u8> => CHANNEL;
            /// The engine of the channel.
            engine: Option<u8> => ENGINE, shown engine.map(|engine| ("engine", Value::Number(engine.into())));
            /// What the step is about.
            address: Option<u64> => Optional(FLAG_0, ADDRESS),
                shown address.map(|address| ("address", Value::Address(address))),
                about address.map(Range::point);
        }
        /// A hold has ended.
        BreakpointResumed = 97, "breakpoint-resumed" {
            /// The breakpoint's number.
            breakpoint: u64 => ID, "breakpoint": number;
            /// The hold's number.
            hold: u64 => TAG, "hold": number;
            /// Where.
            step: Step => DETAIL, "step": name;
            /// How it ended.
            how: HoldEnd => STATUS, "how": name;
            /// The channel that was held.
            channel: Option<u8> => CHANNEL;
        }
        /// A rule has fired. What it decides about does not come about, or is not the device's own doing.
        RuleFired = 98, "rule-fired" {
            /// The rule's number.
            rule: u64 => ID, "rule": number;
            /// What it does.
            action: ActionKind => DETAIL, "action": name;
            /// The number of the kind of the event at which it fired; 0 for a time.
            at: u8 => STATUS, shown Kind::from_raw(at).map(|kind| ("at", Value::Name(kind.name())));
            /// The channel that the event concerns.
            channel: Option<u8> => CHANNEL;
        }
    }
}
