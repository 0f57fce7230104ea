// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All that can be named in a request or a rules file, each with a line that explains it.

use ersatz_abi::command::Cause;
use ersatz_abi::error::ErrorCode;
use ersatz_device_model::inject::{ActionKind, PRESETS, Step};
use ersatz_device_model::trace::Kind;
use serde::{Deserialize, Serialize};

/// Something that can be named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Named {
    /// Its name.
    pub name: String,
    /// What it is, in a line.
    pub explanation: String,
}

/// All that can be named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Names {
    /// Where breakpoints hold.
    pub steps: Vec<Named>,
    /// What a trigger consists of.
    pub triggers: Vec<Named>,
    /// What rules do.
    pub actions: Vec<Named>,
    /// Timings.
    pub presets: Vec<Named>,
    /// Kinds of events, for filters.
    pub kinds: Vec<String>,
    /// Causes of commands, for filters.
    pub causes: Vec<String>,
    /// With what a command or a list entry can fail.
    pub errors: Vec<String>,
}

/// The fields of a trigger.
const TRIGGERS: [(&str, &str); 7] = [
    ("event", "the events: kinds, causes, channels, engines, asids, addresses, times; all that are given must match"),
    ("dma", "in place of events: DMA accesses: read, write or any; of event only addresses and times count"),
    ("occurrence", "which of them: every, {nth = N}, {every-nth = N} or {probability = {per-million = N, seed = N}}"),
    ("state", "only in this state of the rules, which is 1 at first"),
    ("after", "only once the rule of this name has fired"),
    ("limit", "at most this often"),
    ("at-ns", "in place of events: once, when the device's clock reads this many nanoseconds"),
];

/// Returns all that can be named.
pub fn names() -> Names {
    let named =
        |(name, explanation): (&str, &str)| Named { name: name.to_owned(), explanation: explanation.to_owned() };
    Names {
        steps: Step::ALL.iter().map(|step| named((step.name(), step_explained(*step)))).collect(),
        triggers: TRIGGERS.map(named).into(),
        actions: ActionKind::ALL.iter().map(|action| named((action.name(), action_explained(*action)))).collect(),
        presets: PRESETS.iter().map(|preset| named((preset.name, preset.description))).collect(),
        kinds: Kind::ALL.iter().map(|kind| kind.name().to_owned()).collect(),
        causes: Cause::ALL.iter().map(|cause| cause.name().to_owned()).collect(),
        errors: ErrorCode::ALL
            .iter()
            .filter(|code| **code != ErrorCode::None)
            .map(|code| code.name().to_owned())
            .collect(),
    }
}

fn step_explained(step: Step) -> &'static str {
    match step {
        Step::CommandFetched => "a command was fetched and decoded, and nothing of it is done",
        Step::BeforePiece => "a piece of a command's work is about to begin",
        Step::AfterPiece => "a piece of a command's work is done",
        Step::BeforeFence => "a command's work is done, and its fence value is about to be written",
        Step::BeforeGet => "the fence value is written, and GET is about to be",
        Step::BeforeInterrupt => "GET is written, and the command's interrupt is about to be raised",
        Step::BeforeInvalidationAck => "an invalidation was carried out, and is about to be acknowledged",
        Step::AfterFaultRecord => "a fault's record is in the fault buffer; replays wait for the end of the hold",
        Step::BeforeReplay => "the driver has requested a replay, and the access is about to be tried again",
    }
}

fn action_explained(action: ActionKind) -> &'static str {
    match action {
        ActionKind::Fail => "the command or list entry fails with an error, perhaps after a part of its work",
        ActionKind::Delay => "the fence, interrupt, acknowledgement or record comes later",
        ActionKind::Reorder => "the next interrupt or record of this kind comes before this one",
        ActionKind::Drop => "the fence, interrupt, acknowledgement or record does not come",
        ActionKind::Double => "the interrupt or record comes twice",
        ActionKind::Overflow => "the record is lost, and its ring says that it overflowed",
        ActionKind::AnnounceEarly => "PUT and the interrupt of a fault record come before its words do",
        ActionKind::Fault => "faults are reported at which no channel waits, for pages that follow one another",
        ActionKind::Poison => "pages of VRAM are poisoned: no engine accesses them any more, and vector 0 is raised",
        ActionKind::DemandMemory => "memory is demanded back from the driver: pages, a range or all, by a deadline",
        ActionKind::ReturnMemory => "memory that the driver has handed over is returned to it",
        ActionKind::LimitMemory => "the driver is to have this many pages: the rest is demanded, or returned",
        ActionKind::Hang => "the engine executes nothing until the device is reset",
        ActionKind::Refuse => "a DMA access is refused, perhaps after a part of it, as if nothing was mapped there",
        ActionKind::SpuriousInterrupt => "an interrupt without a reason is raised",
        ActionKind::Reset => "the function resets itself",
        ActionKind::Gone => "the function is gone, as if pulled out: registers read as all ones",
        ActionKind::SetState => "the rules change their state",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanations_fit_in_a_line() {
        let Names { steps, triggers, actions, presets, .. } = names();
        for Named { name, explanation } in [steps, triggers, actions, presets].concat() {
            assert!(!explanation.contains('\n') && (10..=110).contains(&explanation.len()), "{name}: {explanation}");
        }
    }

    /// A trigger has the fields that are explained, and no others.
    #[test]
    fn the_fields_of_a_trigger_are_explained() {
        let nothing = serde_json::from_str::<ersatz_device_model::inject::Trigger>(r#"{"none-such":1}"#);
        let text = nothing.unwrap_err().to_string();
        let (_, fields) = text.split_once("expected one of ").unwrap();
        let mut fields: Vec<_> = fields.split('`').skip(1).step_by(2).collect();
        let mut explained = TRIGGERS.map(|(name, _)| name);
        fields.sort_unstable();
        explained.sort_unstable();
        assert_eq!(fields, explained);
    }
}
