// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What stands in the lines of the control socket.

use ersatz_device_model::inject::{Breakpoint, MemoryDemand, MemoryLimit, MemoryReturn, Rule, Timing};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The name of the protocol, in the greeting.
pub const PROTOCOL: &str = "ersatz-control";
/// Its version. It changes when a client of the one before would misunderstand something.
pub const VERSION: u32 = 1;
/// How long `wait` waits unless the request says otherwise, in milliseconds.
pub const DEFAULT_TIMEOUT_MS: u64 = 10_000;
/// How long `wait` can wait, in milliseconds: an hour.
pub const MAX_TIMEOUT_MS: u64 = 3_600_000;

/// The first line of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Greeting {
    /// [`PROTOCOL`].
    pub protocol: String,
    /// [`VERSION`].
    pub version: u32,
    /// The numbers of the GPUs that there are now.
    pub gpus: Vec<u8>,
}

/// A request, as it stands in its line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Envelope {
    /// The name of the command.
    pub execute: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// The number of the GPU.
    #[serde(default)]
    pub gpu: u8,
    /// Comes back with the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
}

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "execute", content = "arguments", deny_unknown_fields, rename_all = "kebab-case")]
pub enum Request {
    /// All that can be named, each with an explanation.
    List,
    /// Adds a rule.
    AddRule(Rule),
    /// Removes a rule.
    RemoveRule(Selector),
    /// The rules, their state, and how often each has fired.
    Rules,
    /// Sets a breakpoint.
    SetBreakpoint(Breakpoint),
    /// Clears a breakpoint; what it holds stays held.
    ClearBreakpoint(Selector),
    /// The breakpoints.
    Breakpoints,
    /// What is held now.
    Holds,
    /// Ends holds: that of a number, or all of the breakpoint of a name.
    Resume(Selector),
    /// Sets how long work takes.
    SetTiming(Timing),
    /// Demands memory back from the driver.
    DemandMemory(MemoryDemand),
    /// Returns memory to the driver.
    ReturnMemory(MemoryReturn),
    /// Has the driver keep this much memory and no more.
    LimitMemory(MemoryLimit),
    /// Whose VRAM is.
    Memory,
    /// What the device knows of itself.
    Query,
    /// Waits for a hold or for a rule.
    Wait(Wait),
}

/// One of several: its number, or its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// Its number.
    Number(u64),
    /// Its name; for a hold, that of its breakpoint.
    Name(String),
}

/// What to wait for, and how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Wait {
    /// What.
    #[serde(rename = "for")]
    pub condition: Condition,
    /// How long, in milliseconds, at most [`MAX_TIMEOUT_MS`].
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
}

fn default_timeout() -> u64 {
    DEFAULT_TIMEOUT_MS
}

/// What can be waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Condition {
    /// Something is held: by the breakpoint of this name, or by any.
    Hold {
        /// The name of the breakpoint.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        breakpoint: Option<String>,
    },
    /// The rule of this name has fired.
    Rule {
        /// The name of the rule.
        name: String,
        /// How often, since it was added.
        #[serde(default = "once")]
        fired: u64,
    },
}

fn once() -> u64 {
    1
}

/// Why a request has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The line is not a request.
    Request,
    /// The device cannot do that.
    Refused,
    /// There is no such GPU, rule, breakpoint or hold.
    Absent,
    /// What was waited for did not happen in time.
    Timeout,
}

/// An answer that is not a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// Why.
    pub kind: ErrorKind,
    /// The same in words, on one line: what, why, what to do instead.
    pub message: String,
}

impl Failure {
    /// A failure with these words.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl Greeting {
    /// The greeting of this version.
    pub fn new(gpus: Vec<u8>) -> Self {
        Self { protocol: PROTOCOL.to_owned(), version: VERSION, gpus }
    }
}

impl Envelope {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// Fails if the line is not a request.
    pub fn parse(line: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(line).map_err(|error| {
            let message = format!("not a request: {error}; for example {{\"execute\":\"list\",\"id\":1}}");
            Failure::new(ErrorKind::Request, message)
        })
    }

    /// Reads what is wanted.
    ///
    /// # Errors
    ///
    /// Fails if there is no such command, or its arguments are not understood.
    pub fn request(&self) -> Result<Request, Failure> {
        let mut request = json!({ "execute": self.execute });
        if let (Some(arguments), Some(request)) = (&self.arguments, request.as_object_mut()) {
            request.insert("arguments".to_owned(), arguments.clone());
        }
        let failed = |error| Failure::new(ErrorKind::Request, format!("{:?}: {error}", self.execute));
        serde_json::from_value(request).map_err(failed)
    }

    /// A request for a GPU.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written as JSON.
    pub fn new(request: &Request, gpu: u8, id: u64) -> serde_json::Result<Self> {
        let mut parts = serde_json::to_value(request)?;
        let execute = parts.get("execute").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { execute, arguments: parts.get_mut("arguments").map(Value::take), gpu, id: Some(json!(id)) })
    }
}

/// Returns the line of an answer, without its end.
pub fn answer(result: Result<Value, Failure>, id: Option<Value>) -> String {
    let mut line = match result {
        Ok(value) => json!({ "return": value }),
        Err(failure) => json!({ "error": failure }),
    };
    if let (Some(id), Some(line)) = (id, line.as_object_mut()) {
        line.insert("id".to_owned(), id);
    }
    line.to_string()
}

#[cfg(test)]
mod tests {
    use ersatz_device_model::inject::{Action, Step};
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Result<Request, Failure> {
        Envelope::parse(line.as_bytes())?.request()
    }

    #[test]
    fn every_request_is_read_as_it_is_written() {
        let name = || Selector::Name("a".to_owned());
        for request in [
            Request::List,
            Request::AddRule(Rule::new("r", Action::Drop)),
            Request::RemoveRule(Selector::Number(3)),
            Request::Rules,
            Request::SetBreakpoint(Breakpoint::new("b", Step::BeforeGet)),
            Request::ClearBreakpoint(name()),
            Request::Breakpoints,
            Request::Holds,
            Request::Resume(name()),
            Request::SetTiming(Timing { link_latency_ns: 5, ..Timing::default() }),
            Request::DemandMemory(MemoryDemand { offset: Some(4096), pages: Some(2), deadline_ns: 7 }),
            Request::DemandMemory(MemoryDemand::default()),
            Request::ReturnMemory(MemoryReturn { offset: None, pages: Some(2) }),
            Request::LimitMemory(MemoryLimit::new(0)),
            Request::Memory,
            Request::Query,
            Request::Wait(Wait { condition: Condition::Hold { breakpoint: None }, timeout_ms: 1 }),
            Request::Wait(Wait { condition: Condition::Rule { name: "r".to_owned(), fired: 2 }, timeout_ms: 2 }),
        ] {
            let envelope = Envelope::new(&request, 2, 7).unwrap();
            let line = serde_json::to_string(&envelope).unwrap();
            let again = Envelope::parse(line.as_bytes()).unwrap();
            assert_eq!((again.gpu, again.id.clone(), again.request()), (2, Some(json!(7)), Ok(request)), "{line}");
        }
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let wait = read(r#"{"execute":"wait","arguments":{"for":{"hold":{}}}}"#);
        let condition = Condition::Hold { breakpoint: None };
        assert_eq!(wait, Ok(Request::Wait(Wait { condition, timeout_ms: DEFAULT_TIMEOUT_MS })));
        assert_eq!(read(r#"{"execute":"holds"}"#), Ok(Request::Holds));
    }

    #[test]
    fn what_is_no_request_says_why() {
        for (line, part) in [
            ("", "not a request"),
            ("[1,2]", "not a request"),
            (r#"{"execute":"explode"}"#, "`set-breakpoint`"),
            (r#"{"execute":"list","argument":1}"#, "`arguments`"),
            (r#"{"execute":"list","gpu":300}"#, "300"),
            (r#"{"execute":"resume"}"#, "arguments"),
            (r#"{"execute":"resume","arguments":"all"}"#, "`number`"),
            (r#"{"execute":"set-breakpoint","arguments":{"name":"b","step":"nowhere"}}"#, "the nearest is"),
        ] {
            let failure = read(line).unwrap_err();
            assert!(failure.kind == ErrorKind::Request && failure.message.contains(part), "{line}: {failure:?}");
            assert!(!failure.message.contains('\n'), "{failure:?}");
        }
        assert!(read(&"[".repeat(60_000)).is_err(), "the depth is limited");
    }

    #[test]
    fn an_answer_is_one_line_with_the_id() {
        let line = answer(Ok(json!("a\nb")), Some(json!({"my": 1})));
        assert_eq!(line, r#"{"id":{"my":1},"return":"a\nb"}"#);
        let failure = Failure::new(ErrorKind::Absent, "no");
        assert_eq!(answer(Err(failure), None), r#"{"error":{"kind":"absent","message":"no"}}"#);
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Envelope::parse(&line).and_then(|envelope| envelope.request());
        }
    }
}
