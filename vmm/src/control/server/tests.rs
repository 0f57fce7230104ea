// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Instant;

use ersatz_device_model::dma::MappedSpace;
use ersatz_device_model::gpu::Gpu;
use ersatz_device_model::inject::{Action, Breakpoint, Rule, Step};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::control::client::{ClientError, ControlClient};
use crate::control::names::names;
use crate::control::protocol::{Condition, Request, Selector, Wait};
use crate::gpu::{self, GpuAddress};
use crate::spec::GpuSpec;
use crate::vfio_user::interrupts::ClientInterrupts;

/// A server and the GPUs behind it.
struct Served {
    server: Option<ControlServer>,
    gpus: Vec<Arc<Gpu>>,
    folder: TempDir,
}

impl Served {
    fn new(count: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = GpuRegistry::default();
        let build = |index| {
            let address = GpuAddress { index, registry: registry.clone(), ..GpuAddress::default() };
            let (memory, interrupts) = (Arc::new(MappedSpace::new()), Arc::new(ClientInterrupts::new(1)));
            gpu::build(&GpuSpec::new(2 << 20), &address, memory, interrupts).unwrap()
        };
        let gpus = (0..count).map(build).collect();
        let server = ControlServer::start(&folder.path().join("ctl"), registry).unwrap();
        Self { server: Some(server), gpus, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ctl")
    }

    fn client(&self) -> ControlClient {
        ControlClient::connect(&self.path()).unwrap()
    }

    /// A connection whose greeting is read.
    fn raw(&self) -> BufReader<UnixStream> {
        let mut stream = BufReader::new(UnixStream::connect(self.path()).unwrap());
        assert!(matches!(read_line(&mut stream, MAX_LINE), Ok(Line::Text(_))));
        stream
    }
}

fn failure(answer: Result<Value, ClientError>) -> (ErrorKind, String) {
    match answer {
        Err(ClientError::Failed(failure)) => (failure.kind, failure.message),
        other => panic!("{other:?}"),
    }
}

fn named(name: &str) -> Selector {
    Selector::Name(name.to_owned())
}

fn wait_for_rule(name: &str, timeout_ms: u64) -> Request {
    Request::Wait(Wait { condition: Condition::Rule { name: name.to_owned(), fired: 1 }, timeout_ms })
}

fn wait_for_hold(timeout_ms: u64) -> Request {
    Request::Wait(Wait { condition: Condition::Hold { breakpoint: None }, timeout_ms })
}

#[test]
fn a_client_is_greeted_and_told_the_names() {
    let served = Served::new(2);
    let mut client = served.client();
    assert_eq!(client.greeting(), &Greeting::new(vec![0, 1]));
    assert_eq!(client.ask(&Request::List, 0).unwrap(), serde_json::to_value(names()).unwrap());
    let view = client.ask(&Request::Query, 1).unwrap();
    assert_eq!((&view["channels"], &view["holds"]), (&json!([]), &json!([])));
    let mode = fs::metadata(served.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "for its owner only");
}

#[test]
fn rules_and_breakpoints_come_and_go() {
    let served = Served::new(2);
    let mut client = served.client();
    let rule = Rule::new("r", Action::Drop);
    assert_eq!(client.ask(&Request::AddRule(rule.clone()), 1).unwrap(), json!({"number": 1}));
    assert_eq!(served.gpus[1].inject().rules(), [(1, rule.clone(), 0)]);
    assert!(served.gpus[0].inject().rules().is_empty());
    let (kind, message) = failure(client.ask(&Request::AddRule(rule), 1));
    assert!(kind == ErrorKind::Refused && message.contains("another name"), "{message}");
    assert_eq!(client.ask(&Request::Rules, 1).unwrap()["rules"][0]["rule"]["name"], "r");
    assert_eq!(client.ask(&Request::RemoveRule(named("r")), 1).unwrap(), Value::Null);
    assert_eq!(failure(client.ask(&Request::RemoveRule(named("r")), 1)).0, ErrorKind::Absent);

    let set = Request::SetBreakpoint(Breakpoint::new("b", Step::BeforeFence));
    let number = client.ask(&set, 0).unwrap()["number"].as_u64().unwrap();
    assert_eq!(client.ask(&Request::Breakpoints, 0).unwrap()[0]["breakpoint"]["step"], "before-fence");
    assert_eq!(client.ask(&Request::ClearBreakpoint(Selector::Number(number)), 0).unwrap(), Value::Null);
    assert_eq!(failure(client.ask(&Request::ClearBreakpoint(named("b")), 0)).0, ErrorKind::Absent);
    assert_eq!(client.ask(&Request::Holds, 0).unwrap(), json!([]));
    assert_eq!(failure(client.ask(&Request::Resume(Selector::Number(1)), 0)).0, ErrorKind::Absent);
    let (kind, message) = failure(client.ask(&Request::Holds, 7));
    assert!(kind == ErrorKind::Absent && message.contains("there are: 0, 1"), "{message}");
}

#[test]
fn a_rule_is_waited_for_while_others_ask() {
    let served = Served::new(1);
    let mut rule = Rule::new("timed", Action::SetState { state: 2 });
    rule.on.at_ns = Some(u64::MAX);
    let mut client = served.client();
    client.ask(&Request::AddRule(rule.clone()), 0).unwrap();
    assert_eq!(failure(client.ask(&wait_for_rule("timed", 1), 0)).0, ErrorKind::Timeout);
    assert_eq!(failure(client.ask(&wait_for_rule("other", 1), 0)).0, ErrorKind::Absent);
    assert_eq!(failure(client.ask(&wait_for_hold(u64::MAX), 0)).0, ErrorKind::Request);
    let mut waiting = served.raw();
    let line = "{\"execute\":\"wait\",\"arguments\":{\"for\":{\"rule\":{\"name\":\"now\"}},\"timeout-ms\":60000},\"id\":\"w\"}\n";
    client.ask(&Request::AddRule(Rule { name: "now".to_owned(), ..rule.clone() }), 0).unwrap();
    waiting.get_mut().write_all(line.as_bytes()).unwrap();
    client.ask(&Request::RemoveRule(named("now")), 0).unwrap();
    let Line::Text(answer) = read_line(&mut waiting, MAX_LINE).unwrap() else { panic!("no answer") };
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((&answer["id"], &answer["error"]["kind"]), (&json!("w"), &json!("absent")), "it was removed meanwhile");
    rule.name = "now".to_owned();
    rule.on.at_ns = Some(0);
    client.ask(&Request::AddRule(rule), 0).unwrap();
    assert_eq!(client.ask(&wait_for_rule("now", 60_000), 0).unwrap()["fired"], 1);
    assert_eq!(client.ask(&Request::Rules, 0).unwrap()["state"], 2);
}

#[test]
fn bad_lines_are_answered_and_too_long_ones_end_the_connection() {
    let served = Served::new(1);
    let mut stream = served.raw();
    for line in [
        &b"\n"[..],
        b"garbage\n",
        b"\xff\xfe\n",
        b"{\"execute\":\"explode\"}\n",
        b"{\"execute\":\"holds\",\"gpu\":1}\n",
    ] {
        stream.get_mut().write_all(line).unwrap();
        let Line::Text(answer) = read_line(&mut stream, MAX_LINE).unwrap() else { panic!("no answer to {line:?}") };
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert!(answer["error"]["message"].is_string(), "{answer}");
    }
    // The server may close before all is written.
    let _ = stream.get_mut().write_all(&vec![b'x'; 1 << 20]);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty() || String::from_utf8_lossy(&rest).contains("at most 65536 bytes"));
    // Half a line, and its sender is gone.
    served.raw().get_mut().write_all(b"{\"execute\":").unwrap();
    assert_eq!(served.client().ask(&Request::Holds, 0).unwrap(), json!([]));
}

#[test]
fn connections_that_are_left_open_keep_no_one_out() {
    let served = Served::new(1);
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(UnixStream::connect(served.path()).unwrap());
        // More than 16 at a time are open at the client's end.
        if idle.len() > 100 {
            idle.clear();
        }
    }
    assert_eq!(served.client().ask(&Request::Holds, 0).unwrap(), json!([]));
}

#[test]
fn clients_that_wait_keep_no_one_out() {
    let served = Served::new(1);
    let line = b"{\"execute\":\"wait\",\"arguments\":{\"for\":{\"hold\":{}},\"timeout-ms\":3600000}}\n";
    let mut waiting: Vec<_> = (0..2 * MAX_CLIENTS).map(|_| served.raw()).collect();
    for stream in &mut waiting {
        // Those that made room are disconnected.
        let _ = stream.get_mut().write_all(line);
    }
    assert_eq!(served.client().ask(&Request::Holds, 0).unwrap(), json!([]));
    drop(waiting);
    assert_eq!(served.client().ask(&Request::Holds, 0).unwrap(), json!([]));
}

#[test]
fn a_client_that_reads_nothing_harms_itself_alone() {
    let served = Served::new(1);
    let mut deaf = UnixStream::connect(served.path()).unwrap();
    deaf.set_nonblocking(true).unwrap();
    let lines = b"{\"execute\":\"list\"}\n".repeat(1000);
    while deaf.write(&lines).is_ok() {}
    assert_eq!(served.client().ask(&Request::Holds, 0).unwrap(), json!([]));
}

#[test]
fn the_server_ends_while_clients_wait_and_keeps_no_gpu() {
    let mut served = Served::new(1);
    let mut stream = served.raw();
    stream
        .get_mut()
        .write_all(b"{\"execute\":\"wait\",\"arguments\":{\"for\":{\"hold\":{}},\"timeout-ms\":3600000}}\n")
        .unwrap();
    let begin = Instant::now();
    drop(served.server.take());
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert!(!served.path().exists());
    assert_eq!(Arc::strong_count(&served.gpus[0]), 1);
}
