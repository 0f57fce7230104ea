// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Answers of the control socket for people: a line for each thing.

use std::fmt::Write;

use serde_json::Value;

use crate::control::names::{Named, Names};
use crate::control::requests::{BreakpointView, RuleView, RulesView};

/// The parts of what a device knows of itself.
pub(super) const PARTS: [&str; 9] = [
    "channels",
    "fault-buffer",
    "access-ring",
    "acknowledged",
    "address-spaces",
    "translations",
    "hung-engines",
    "memory",
    "holds",
];

/// All that can be named.
pub(super) fn names(names: &Names) -> String {
    let Names { steps, triggers, actions, presets, kinds, causes, errors } = names;
    let mut text = String::new();
    let sections = [
        ("steps (break STEP)", steps),
        ("triggers (on)", triggers),
        ("actions", actions),
        ("presets (timing)", presets),
    ];
    for (title, named) in sections {
        let _ = writeln!(text, "{title}:");
        for Named { name, explanation } in named {
            let _ = writeln!(text, "  {name:<24} {explanation}");
        }
    }
    for (title, names) in [("kinds", kinds), ("causes", causes), ("errors", errors)] {
        let _ = writeln!(text, "{title}: {}", names.join(", "));
    }
    text
}

/// The numbers of what was set.
pub(super) fn numbers(answer: &Value) -> String {
    let all = answer.as_array().map_or(std::slice::from_ref(answer), Vec::as_slice);
    let numbers = all.iter().filter_map(|one| one.get("number"));
    numbers.map(|number| format!("{number}\n")).collect()
}

/// Breakpoints.
pub(super) fn breakpoints(all: &[BreakpointView]) -> String {
    let mut text = String::new();
    for BreakpointView { number, breakpoint } in all {
        let when = serde_json::to_value(&breakpoint.when).map(|when| fields(&when)).unwrap_or_default();
        let nth = breakpoint.nth.map(|nth| format!(" nth {nth}")).unwrap_or_default();
        let _ = writeln!(text, "{number} {:?} {}{nth} {when}", breakpoint.name, breakpoint.step.name());
    }
    text
}

/// Rules.
pub(super) fn rules(view: &RulesView) -> String {
    let mut text = format!("state {}\n", view.state);
    for view in &view.rules {
        text.push_str(&rule(view));
        text.push('\n');
    }
    text
}

/// A rule.
pub(super) fn rule(RuleView { number, fired, rule }: &RuleView) -> String {
    let json = |value: serde_json::Result<Value>| value.map(|value| fields(&value)).unwrap_or_default();
    let (on, action) = (json(serde_json::to_value(&rule.on)), json(serde_json::to_value(rule.action)));
    format!("{number} {:?} fired {fired}; {action}; on {on}", rule.name)
}

/// Holds.
pub(super) fn holds(answer: &Value) -> String {
    answer.as_array().into_iter().flatten().map(|hold| fields(hold) + "\n").collect()
}

/// What a device knows of itself: a line for each thing, with the name of its part.
pub(super) fn view(answer: &Value) -> String {
    let mut text = String::new();
    for (part, value) in answer.as_object().into_iter().flatten() {
        match value.as_array() {
            Some(items) => {
                for item in items {
                    let _ = writeln!(text, "{part}: {}", fields(item));
                }
            }
            None => {
                let _ = writeln!(text, "{part}: {}", fields(value));
            }
        }
    }
    text
}

/// The fields of an object in one line. What is absent or empty is left out; addresses are hexadecimal.
fn fields(value: &Value) -> String {
    const ADDRESSES: [&str; 5] = ["address", "location", "root", "faulted-at", "bytes"];
    match value {
        Value::Object(object) => {
            let is_there = |value: &Value| !value.is_null() && *value != serde_json::json!({});
            let shown = object.iter().filter(|(_, value)| is_there(value)).map(|(name, value)| match value.as_u64() {
                Some(number) if ADDRESSES.contains(&name.as_str()) => format!("{name} {number:#x}"),
                _ => format!("{name} {}", fields(value)),
            });
            shown.collect::<Vec<_>>().join(", ")
        }
        Value::Array(items) => items.iter().map(fields).collect::<Vec<_>>().join("|"),
        Value::String(text) if text.is_empty() || text.contains(char::is_whitespace) => format!("{text:?}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use ersatz_device_model::inject::{Action, Rule};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_thing_is_a_line() {
        let hold =
            json!({"number": 3, "step": "before-fence", "channel": 1, "address": 4096, "asid": null, "name": "a b"});
        assert_eq!(holds(&json!([hold])), "address 0x1000, channel 1, name \"a b\", number 3, step before-fence\n");
        let rule = RuleView { number: 1, fired: 2, rule: Rule::new("late", Action::Delay { ns: 5 }) };
        let text = rules(&RulesView { state: 1, rules: vec![rule] });
        assert!(text.starts_with("state 1\n1 \"late\" fired 2; kind delay, ns 5; on event kinds fence|"), "{text}");
        assert_eq!(numbers(&json!([{"number": 1}, null, {"number": 2}])), "1\n2\n");
        assert_eq!(numbers(&json!({"number": 7})), "7\n");
        assert_eq!(view(&json!({"acknowledged": 0, "channels": [], "holds": [hold]})).lines().count(), 2);
    }
}
