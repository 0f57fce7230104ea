// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Carrying out a request on a device.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ersatz_device_model::gpu::Gpu;
use ersatz_device_model::inject::{Action, Breakpoint, Hold, Injector, Rule};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::names::names;
use super::protocol::{Condition, Envelope, ErrorKind, Failure, MAX_TIMEOUT_MS, Request, Selector, Wait};
use crate::gpu::registry::GpuRegistry;

/// How long a request that waits keeps a GPU alive, or does not notice that it is to stop.
const SLICE: Duration = Duration::from_millis(50);

/// A rule of the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RuleView {
    /// Its number.
    pub number: u64,
    /// How often it has fired.
    pub fired: u64,
    /// The rule.
    pub rule: Rule,
}

/// The rules of the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RulesView {
    /// Their state.
    pub state: u32,
    /// The rules, in the order in which they were added.
    pub rules: Vec<RuleView>,
}

/// A breakpoint of the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BreakpointView {
    /// Its number.
    pub number: u64,
    /// The breakpoint.
    pub breakpoint: Breakpoint,
}

/// Carries out the request of an envelope. A request that waits ends early once `is_stopped` returns true.
///
/// # Errors
///
/// Fails if there is no such GPU, the device refuses, or what was waited for did not happen.
pub fn carry_out(envelope: &Envelope, gpus: &GpuRegistry, is_stopped: &dyn Fn() -> bool) -> Result<Value, Failure> {
    let request = envelope.request()?;
    let find = || find(gpus, envelope.gpu);
    match request {
        Request::List => to_json(&names()),
        Request::Wait(wait) => wait_for(&wait, &find, is_stopped),
        Request::Query => to_json(&find()?.query()),
        Request::Memory => to_json(&find()?.query().memory),
        request => on_injector(request, find()?.inject()),
    }
}

fn find(gpus: &GpuRegistry, number: u8) -> Result<Arc<Gpu>, Failure> {
    gpus.get(number).ok_or_else(|| {
        let there: Vec<String> = gpus.numbers().iter().map(u8::to_string).collect();
        let there = if there.is_empty() { "none yet, or none any more".to_owned() } else { there.join(", ") };
        Failure::new(ErrorKind::Absent, format!("there is no GPU {number}; there are: {there}"))
    })
}

fn on_injector(request: Request, injector: &Injector) -> Result<Value, Failure> {
    match request {
        Request::AddRule(rule) => injector.add_rule(rule).map(number).map_err(refused),
        Request::SetBreakpoint(breakpoint) => injector.set_breakpoint(breakpoint).map(number).map_err(refused),
        Request::Rules => to_json(&rules(injector)),
        Request::Breakpoints => to_json(&breakpoints(injector)),
        Request::Holds => to_json(&injector.holds()),
        Request::SetTiming(timing) => {
            injector.set_timing(timing);
            Ok(Value::Null)
        }
        Request::DemandMemory(demand) => act(injector, Action::DemandMemory(demand)),
        Request::ReturnMemory(returned) => act(injector, Action::ReturnMemory(returned)),
        Request::LimitMemory(limit) => act(injector, Action::LimitMemory(limit)),
        Request::RemoveRule(selector) => {
            let rules = injector.rules().into_iter().map(|(number, rule, _)| (number, rule.name));
            done(
                choose(&selector, rules).is_some_and(|number| injector.remove_rule(number)),
                "rule",
                "rules",
                &selector,
            )
        }
        Request::ClearBreakpoint(selector) => {
            let all = injector.breakpoints().into_iter().map(|(number, breakpoint)| (number, breakpoint.name));
            let is_cleared = choose(&selector, all).is_some_and(|number| injector.clear_breakpoint(number));
            done(is_cleared, "breakpoint", "breakpoints", &selector)
        }
        Request::Resume(selector) => {
            let resumed = match &selector {
                Selector::Number(number) => usize::from(injector.resume(*number)),
                Selector::Name(name) => injector.resume_breakpoint(name),
            };
            done(resumed > 0, "hold", "holds", &selector).map(|_| json!({ "resumed": resumed }))
        }
        Request::List | Request::Memory | Request::Query | Request::Wait(_) => {
            Err(Failure::new(ErrorKind::Request, "not about rules or breakpoints"))
        }
    }
}

fn act(injector: &Injector, action: Action) -> Result<Value, Failure> {
    injector.act(action).map(|()| Value::Null).map_err(refused)
}

fn rules(injector: &Injector) -> RulesView {
    let view = |(number, rule, fired)| RuleView { number, fired, rule };
    RulesView { state: injector.rule_state(), rules: injector.rules().into_iter().map(view).collect() }
}

fn breakpoints(injector: &Injector) -> Vec<BreakpointView> {
    let view = |(number, breakpoint)| BreakpointView { number, breakpoint };
    injector.breakpoints().into_iter().map(view).collect()
}

/// The number of the one that is selected, if a name selects it.
fn choose(selector: &Selector, mut all: impl Iterator<Item = (u64, String)>) -> Option<u64> {
    match selector {
        Selector::Number(number) => Some(*number),
        Selector::Name(name) => all.find(|(_, other)| other == name).map(|(number, _)| number),
    }
}

fn done(is_done: bool, what: &str, list: &str, selector: &Selector) -> Result<Value, Failure> {
    let which = match selector {
        Selector::Number(number) => format!("with the number {number}"),
        Selector::Name(name) => format!("with the name {name:?}"),
    };
    let absent =
        || Failure::new(ErrorKind::Absent, format!("there is no {what} {which}; `{list}` lists those that there are"));
    is_done.then_some(Value::Null).ok_or_else(absent)
}

/// Waits for a condition.
fn wait_for(
    wait: &Wait,
    find: &dyn Fn() -> Result<Arc<Gpu>, Failure>,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Value, Failure> {
    if wait.timeout_ms > MAX_TIMEOUT_MS {
        let message = format!("{} ms are too long to wait; give at most {MAX_TIMEOUT_MS}", wait.timeout_ms);
        return Err(Failure::new(ErrorKind::Request, message));
    }
    let end = Instant::now() + Duration::from_millis(wait.timeout_ms);
    loop {
        {
            let gpu = find()?;
            let injector = gpu.inject();
            let seen = injector.changes();
            if let Some(result) = met(&wait.condition, injector)? {
                return Ok(result);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || is_stopped() {
                let what = match &wait.condition {
                    Condition::Hold { breakpoint: None } => "nothing is held".to_owned(),
                    Condition::Hold { breakpoint: Some(name) } => format!("breakpoint {name:?} holds nothing"),
                    Condition::Rule { name, fired } => format!("rule {name:?} has not fired {fired} times"),
                };
                return Err(Failure::new(ErrorKind::Timeout, format!("{what} after {} ms", wait.timeout_ms)));
            }
            injector.wait_for_change(seen, left.min(SLICE));
        }
    }
}

/// The answer if the condition is met.
fn met(condition: &Condition, injector: &Injector) -> Result<Option<Value>, Failure> {
    match condition {
        Condition::Hold { breakpoint } => {
            let is_wanted = |hold: &Hold| breakpoint.as_ref().is_none_or(|name| *name == hold.name);
            injector.holds().iter().find(|hold| is_wanted(hold)).map(to_json).transpose()
        }
        Condition::Rule { name, fired } => {
            let rules = rules(injector).rules;
            let Some(view) = rules.iter().find(|view| view.rule.name == *name) else {
                let message = format!("there is no rule with the name {name:?}; `rules` lists those that there are");
                return Err(Failure::new(ErrorKind::Absent, message));
            };
            (view.fired >= *fired).then(|| to_json(view)).transpose()
        }
    }
}

fn number(number: u64) -> Value {
    json!({ "number": number })
}

fn refused(error: impl std::error::Error) -> Failure {
    Failure::new(ErrorKind::Refused, error.to_string())
}

fn to_json(value: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(value).map_err(refused)
}
