// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz trace` from outside, on logs made here.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use ersatz_abi::command::{Cause, Location, Opcode};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::{AccessKind, FaultKind, FaultRecord};
use ersatz_abi::mmu::PageSize;
use ersatz_device_model::clock::Clock;
use ersatz_device_model::trace::{
    Event, Identity, InterruptOutcome, MmuEvent, NotificationEvent, TraceFile, TraceOptions, Tracer,
};
use serde_json::Value;

fn ersatz(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ersatz")).args(arguments).output().expect("the binary under test runs")
}

/// Runs a command that is to end with `status`, and returns what it printed.
#[track_caller]
fn stdout(arguments: &[&str], status: i32) -> String {
    let output = ersatz(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {errors}");
    assert_eq!(errors, "", "{arguments:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Checks that arguments are refused in one line that contains all of `parts`, with status 2.
#[track_caller]
fn refused(arguments: &[&str], parts: &[&str]) {
    let output = ersatz(arguments);
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?} prints to stdout");
    for part in parts {
        assert!(text.contains(part), "{arguments:?}: no {part:?} in {text:?}");
    }
}

/// A clock that moves one millisecond with each look.
#[derive(Default)]
struct Ticks(std::sync::atomic::AtomicU64);

impl Clock for Ticks {
    fn now(&self) -> u64 {
        self.0.fetch_add(1_000_000, std::sync::atomic::Ordering::Relaxed)
    }
}

fn tracer(path: &Path, device: u8) -> Tracer {
    let identity = Identity { device, vram: 1 << 30, channels: 2, copy_engines: 1 };
    Tracer::create(path, &TraceOptions { identity, capacity: 1 << 20 }, Arc::new(Ticks::default())).unwrap()
}

fn copy(page: u64, to_vram: bool, cause: Cause) -> Event {
    let memory = Location::system(0x1_0000 + page * 4096);
    let device = Location::vram(page * 4096);
    let (source, destination) = if to_vram { (memory, device) } else { (device, memory) };
    Event::Copy { channel: 0, engine: 0, cause, source, destination, length: 4096, tag: 0x7f00_0000_0000 + page * 4096 }
}

fn command(position: u32, cause: Cause, work: &[Event]) -> Vec<Event> {
    let (channel, engine, opcode, tag) = (0, 0, Opcode::Copy, 0);
    let fence = Some(u64::from(position) + 1);
    let count = work.len() as u64;
    let start = Event::CommandStart {
        channel,
        engine,
        position,
        opcode,
        cause,
        count,
        address: 0x8000,
        fence,
        interrupt: true,
        tag,
    };
    let bytes = work.len() as u64 * 4096;
    let mut events = vec![Event::Doorbell { channel, rings: 1 }, start];
    events.extend(work);
    events.push(Event::Fence { channel, engine, value: u64::from(position) + 1, address: 0x9080 });
    events.push(Event::Interrupt { vector: 1, channel: Some(0), outcome: InterruptOutcome::Sent });
    events.push(Event::CommandEnd { channel, engine, position, opcode, cause, error: ErrorCode::None, bytes, tag });
    events
}

/// A log of a short, orderly life: eight pages go to VRAM, two come back by CPU faults.
fn orderly(path: &Path, device: u8) {
    let tracer = tracer(path, device);
    tracer.emit(Event::DeviceCreated { vram: 1 << 30 });
    tracer.emit(Event::BusMaster { enabled: true });
    tracer.emit(Event::ChannelEnabled { channel: 0, ring: 0x8000, control_block: 0x9000, commands: 16, vector: 1 });
    let there: Vec<_> = (0..8).map(|page| copy(page, true, Cause::MigrateToDevice)).collect();
    let back: Vec<_> = (2..4).map(|page| copy(page, false, Cause::CpuFault)).collect();
    for event in command(0, Cause::MigrateToDevice, &there).into_iter().chain(command(1, Cause::CpuFault, &back)) {
        tracer.emit(event);
    }
    tracer.emit(Event::DeviceDropped);
}

struct Logs(tempfile::TempDir);

impl Logs {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn orderly(&self) -> String {
        let path = self.path("gpu0.trace");
        orderly(&path, 0);
        path.to_str().unwrap().to_owned()
    }

    /// The orderly log up to the middle of a command, and no end of the device.
    fn broken(&self) -> String {
        let path = self.path("broken.trace");
        let tracer = tracer(&path, 1);
        tracer.emit(Event::ChannelEnabled { channel: 0, ring: 0x8000, control_block: 0x9000, commands: 16, vector: 1 });
        let work = [copy(0, true, Cause::Other), copy(1, true, Cause::Other)];
        for event in command(0, Cause::Other, &work).into_iter().take(4) {
            tracer.emit(event);
        }
        path.to_str().unwrap().to_owned()
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_summary_says_what_moved() {
    let logs = Logs::new();
    let log = logs.orderly();
    let text = stdout(&["trace", "summary", &log], 0);
    for part in [
        log.as_str(),
        "1 GiB of VRAM, 2 channels, 1 copy engine",
        "none lost",
        "CPU faults  2 pages came back, by 1 copy command",
        "read 32 KiB",
        "written 8 KiB",
        "2 completed, 0 failed of 2 (copy 2)",
        "2 doorbells, 2 fences, 2 interrupts (2 sent)",
        "Errors      none",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let row = |name: &str| text.lines().find(|line| line.trim_start().starts_with(name)).map(str::split_whitespace);
    let figures = |name: &str| row(name).map(|words| words.skip(1).take(4).collect::<Vec<_>>());
    assert_eq!(figures("migrate-to-device"), Some(vec!["8", "8", "32", "KiB"]), "{text}");
    assert_eq!(figures("to-system"), Some(vec!["2", "2", "8", "KiB"]), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 110 && line == line.trim_end()), "{text}");
}

#[test]
fn the_summary_is_json_on_request() {
    let logs = Logs::new();
    let summary = json(&stdout(&["trace", "summary", "--json", &logs.orderly()], 0));
    assert_eq!(summary["to_vram"]["pages"], 8);
    assert_eq!(summary["cpu_fault_pages"], 2);
    assert_eq!(summary["dma_written_bytes"], 8192);
    assert_eq!(summary["interrupts"]["sent"], 2);
    assert_eq!(summary["commands"]["copy"]["completed"], 2);
    assert_eq!(summary["closed"], true);
    // The clock ticks 1 ms a record: both commands take from their start to their end.
    assert_eq!(summary["active_ns"], 11_000_000 + 5_000_000);
    let rate = summary["to_vram"]["active_bytes_per_second"].as_f64().unwrap();
    assert!((rate - 32768.0 / 0.016).abs() < 1e-6, "{rate}");
}

#[test]
fn cat_filters() {
    let logs = Logs::new();
    let log = logs.orderly();
    let count = |filter: &[&str]| {
        let arguments: Vec<&str> = ["trace", "cat", &log].iter().chain(filter).copied().collect();
        let lines = stdout(&arguments, 0).lines().count() - 1;
        let json_arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        assert_eq!(stdout(&json_arguments, 0).lines().count(), lines, "{filter:?}: text and JSON agree");
        lines
    };
    assert_eq!(count(&[]), 24);
    assert_eq!(count(&["--kind", "copy"]), 10);
    assert_eq!(count(&["--kind", "fence,interrupt"]), 4);
    assert_eq!(count(&["--kind", "copy", "--cause", "cpu-fault"]), 2);
    assert_eq!(count(&["--cause", "cpu-fault"]), 4);
    assert_eq!(count(&["--channel", "0,1"]), 21, "all but three, which are no channel's");
    assert_eq!(count(&["--channel", "1"]), 0);
    assert_eq!(count(&["--channel", "255"]), 0);
    assert_eq!(count(&["--limit", "3"]), 3);
    assert_eq!(count(&["--limit", "0"]), 0);
    // The page with this tag, wherever it is; the same by its VRAM offset and its bus address.
    assert_eq!(count(&["--address", "0x7f0000002000"]), 2);
    assert_eq!(count(&["--address", "0x7f0000002fff..0x7f0000003001"]), 4);
    assert_eq!(count(&["--kind", "copy", "--address", "0x2000+4K"]), 2);
    assert_eq!(count(&["--kind", "copy", "--address", "0x10000..0x12000"]), 2);
    // One record a millisecond.
    assert_eq!(count(&["--time", "0..5ms"]), 5);
    assert_eq!(count(&["--time", "2ms..4ms"]), 2);
    assert_eq!(count(&["--time", "20ms.."]), 4);
}

#[test]
fn cat_lines_up() {
    let logs = Logs::new();
    let text = stdout(&["trace", "cat", "--kind", "copy", &logs.orderly()], 0);
    let columns: Vec<_> =
        text.lines().skip(1).map(|line| (line.find(" vram:"), line.find("system:"), line.len())).collect();
    assert!(columns[..8].iter().all(|place| *place == columns[0]), "{text}");
    assert!(text.contains("migrate-to-device  from system:0x000000010000  to   vram:0x000000000000"), "{text}");
}

#[test]
fn json_lines_have_everything() {
    let logs = Logs::new();
    let text = stdout(&["trace", "cat", "--json", "--kind", "copy", "--limit", "1", &logs.orderly()], 0);
    let expected = serde_json::json!({
        "sequence": 6, "time_ns": 5_000_000, "timestamp_ns": 6_000_000, "device": 0, "kind": "copy", "channel": 0, "cause": "migrate-to-device",
        "from": { "aperture": "system", "address": "0x10000" }, "to": { "aperture": "vram", "address": "0x0" },
        "bytes": 4096, "tag": "0x7f0000000000",
    });
    assert_eq!(json(&text), expected);
}

#[test]
fn logs_of_several_devices_go_together() {
    let logs = Logs::new();
    let (first, second) = (logs.orderly(), logs.path("gpu1.trace"));
    std::thread::sleep(std::time::Duration::from_millis(2));
    orderly(&second, 1);
    let both = [first.as_str(), second.to_str().unwrap()];
    let text = stdout(&["trace", "cat", "--json", both[1], both[0]], 0);
    let events: Vec<Value> = text.lines().map(json).collect();
    assert_eq!(events.len(), 48);
    let times: Vec<_> = events.iter().map(|event| event["time_ns"].as_u64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!((times[0], &events[0]["device"]), (0, &Value::from(0)));
    assert!(events[..30].iter().any(|event| event["device"] == 1), "they overlap");
    assert_eq!(stdout(&["trace", "summary", both[0], both[1]], 0).matches("Trace log").count(), 2);
    assert_eq!(stdout(&["trace", "check", both[0], both[1]], 0).matches("in order").count(), 2);
}

#[test]
fn check_tells_good_from_bad() {
    let logs = Logs::new();
    let (good, bad) = (logs.orderly(), logs.broken());
    assert!(stdout(&["trace", "check", &good], 0).contains("in order (24 events, 2 commands)"));
    let text = stdout(&["trace", "check", &good, &bad], 1);
    assert!(text.contains("command-ends") && text.contains("never ended"), "{text}");
    assert!(text.contains("bus-master") && text.contains("never switched on"), "{text}");
    let verdict = json(&stdout(&["trace", "check", "--json", &bad], 1));
    assert_eq!(verdict["broken"], verdict["findings"].as_array().unwrap().len());
    assert_eq!(verdict["device"], 1);
}

#[test]
fn a_timeline_nests_work_in_commands() {
    let logs = Logs::new();
    let document = json(&stdout(&["trace", "export", "--perfetto", &logs.orderly()], 0));
    let events = document["traceEvents"].as_array().unwrap();
    let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).collect::<Vec<_>>();
    for event in events {
        assert!(event["name"].is_string() && event["pid"] == 0 && event["tid"].is_u64(), "{event}");
        assert!(event["ph"] == "M" || event["ts"].is_f64(), "{event}");
    }
    let names: Vec<_> = of("M").iter().map(|event| event["args"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["GPU 0", "channel 0"]);
    let span = |event: &Value| {
        let start = event["ts"].as_f64().unwrap();
        (start, start + event["dur"].as_f64().unwrap())
    };
    let (pages, commands): (Vec<_>, Vec<_>) = of("X").into_iter().partition(|event| event["name"] == "copy");
    assert_eq!((pages.len(), commands.len()), (10, 2));
    assert_eq!(commands[0]["name"], "copy (migrate-to-device)");
    assert_eq!(span(commands[0]), (4000.0, 15000.0), "microseconds, from start to end");
    let inside = |inner: &Value, outer: &Value| span(outer).0 <= span(inner).0 && span(inner).1 <= span(outer).1;
    assert!(pages[..8].iter().all(|page| inside(page, commands[0])));
    assert!(pages[8..].iter().all(|page| inside(page, commands[1])));
    // All but the starts, the ends and the pages.
    assert_eq!(of("i").len(), 24 - 2 - 2 - 10);
}

#[test]
fn a_timeline_ends_what_a_log_leaves_open() {
    let logs = Logs::new();
    let document = json(&stdout(&["trace", "export", "--perfetto", &logs.broken(), &logs.orderly()], 0));
    let events = document["traceEvents"].as_array().unwrap();
    let open: Vec<_> = events.iter().filter(|event| event["pid"] == 1 && event["name"] == "copy (other)").collect();
    assert_eq!(open.len(), 1);
    assert!(open[0]["dur"].as_f64().unwrap() >= 2000.0, "{}", open[0]);
}

#[test]
fn exported_lines_are_those_of_cat() {
    let logs = Logs::new();
    let log = logs.orderly();
    assert_eq!(stdout(&["trace", "export", "--jsonl", &log], 0), stdout(&["trace", "cat", "--json", &log], 0));
}

#[test]
fn an_empty_log_is_a_log() {
    let logs = Logs::new();
    let path = logs.path("empty.trace");
    drop(tracer(&path, 0));
    let path = path.to_str().unwrap();
    assert!(stdout(&["trace", "summary", path], 0).contains("Copied      nothing"));
    assert!(stdout(&["trace", "check", path], 0).contains("in order (0 events, 0 commands)"));
    assert_eq!(stdout(&["trace", "cat", path], 0), "");
    let document = json(&stdout(&["trace", "export", "--perfetto", path], 0));
    assert_eq!(document["traceEvents"].as_array().unwrap().len(), 1, "the name of the device");
}

#[test]
fn bad_arguments_are_refused_in_one_line() {
    let logs = Logs::new();
    let log = logs.orderly();
    let text = logs.path("notes.txt");
    std::fs::write(&text, "not a trace ".repeat(1000)).unwrap();
    let text = text.to_str().unwrap();
    refused(&["trace"], &["needs a command", "ersatz trace --help"]);
    refused(&["trace", "sumary"], &["sumary", "summary"]);
    refused(&["trace", "summary"], &["FILE", "ersatz trace summary --help"]);
    refused(&["trace", "summary", "/no/such.trace"], &["/no/such.trace", "No such file", "--trace FILE"]);
    refused(&["trace", "summary", "/"], &["not a regular file"]);
    refused(&["trace", "check", text], &["notes.txt", "does not begin as a trace log"]);
    refused(&["trace", "cat", "/dev/null"], &["not a regular file"]);
    refused(&["trace", "cat", &log, text], &["notes.txt"]);
    refused(&["trace", "cat", &log, "--kind", "copies"], &["copies", "copy"]);
    refused(&["trace", "cat", &log, "--cause", "fault"], &["fault", "cpu-fault"]);
    refused(&["trace", "cat", &log, "--address", "here"], &["here", "0x1000+8K"]);
    refused(&["trace", "cat", &log, "--time", "1..2"], &["1..2", "1.5ms..2s"]);
    refused(&["trace", "cat", &log, "--time", "2s..1s"], &["empty"]);
    refused(&["trace", "cat", &log, "--limit", "few"], &["few"]);
    refused(&["trace", "export", &log], &["--perfetto", "--jsonl"]);
    refused(&["trace", "export", "--perfetto", "--jsonl", &log], &["--perfetto", "--jsonl"]);
}

#[test]
fn a_closed_pipe_is_silent() {
    let logs = Logs::new();
    let path = logs.path("long.trace");
    let long = tracer(&path, 0);
    (0..20_000).for_each(|value| long.emit(Event::Mark { value }));
    drop(long);
    let mut child = Command::new(env!("CARGO_BIN_EXE_ersatz"))
        .args(["trace", "cat", path.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

/// The log of a device that was killed is read like any other, up to its last event.
#[test]
fn a_log_survives_its_writer() {
    let logs = Logs::new();
    let (path, socket) = (logs.path("killed.trace"), logs.path("socket"));
    let mut device = Command::new(env!("CARGO_BIN_EXE_ersatz"))
        .args(["device", "--vram", "2M", "--trace", path.to_str().unwrap(), "--socket", socket.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let events = || TraceFile::open(&path).map_or(0, |file| file.records().count());
    while events() == 0 {
        assert_eq!(device.try_wait().unwrap(), None, "the device ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    device.kill().unwrap();
    device.wait().unwrap();
    let path = path.to_str().unwrap();
    assert!(stdout(&["trace", "summary", path], 0).contains("not closed"));
    assert!(stdout(&["trace", "check", path], 0).contains("note: the log was not closed"));
    assert!(stdout(&["trace", "cat", path], 0).contains("device-created"));
}

#[test]
fn help_reads_well() {
    for (arguments, part) in [
        (&["trace", "--help"][..], "summary"),
        (&["trace", "summary", "--help"], "pages moved"),
        (&["trace", "cat", "--help"], "migrate-to-device"),
        (&["trace", "check", "--help"], "Exit status"),
        (&["trace", "export", "--help"], "ui.perfetto.dev"),
    ] {
        let text = stdout(arguments, 0);
        assert!(text.contains(part), "{arguments:?}: no {part:?} in {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{arguments:?} has long lines: {text}");
    }
}

const FAULT: FaultRecord = FaultRecord {
    address: 0x7f00_0000_0000,
    asid: 7,
    channel: 1,
    engine: 0,
    access: AccessKind::Read,
    kind: FaultKind::NotPresent,
    level: 2,
    timestamp: 5,
    number: 1,
};

/// A log in which a kernel faults, is replayed, and reads a page.
fn virtual_memory(path: &Path) {
    let tracer = tracer(path, 0);
    let FaultRecord { channel, engine, asid, address, .. } = FAULT;
    let page = Location::vram(0x3000);
    let read =
        MmuEvent::Access { channel, engine, asid, kind: AccessKind::Read, address, location: page, length: 4096 };
    let size = PageSize::Small;
    for event in [
        NotificationEvent::FaultRecorded { record: FAULT, position: 0 }.into(),
        NotificationEvent::Replay { channels: 2 }.into(),
        MmuEvent::TlbFill { engine, asid, address, page, size, write: false, atomic: false }.into(),
        read.into(),
        Event::DeviceDropped,
    ] {
        tracer.emit(event);
    }
}

#[test]
fn virtual_memory_is_shown_summed_up_and_filtered() {
    let logs = Logs::new();
    let path = logs.path("virtual.trace");
    virtual_memory(&path);
    let log = path.to_str().unwrap();
    let summary = stdout(&["trace", "summary", log], 0);
    for part in ["1 TLB fill, 0 invalidations", "read vram 4 KiB", "1 (not-present 1)", "1 replay, 0 cancelled"] {
        assert!(summary.contains(part), "no {part:?} in {summary}");
    }
    let figures = json(&stdout(&["trace", "summary", "--json", log], 0));
    assert_eq!(figures["virtual_memory"]["faults"]["not-present"], 1);
    let lines = |arguments: &[&str]| stdout(&[&["trace", "cat", log], arguments].concat(), 0).lines().count() - 1;
    assert_eq!(lines(&["--asid", "7"]), 3);
    assert_eq!(lines(&["--asid", "8"]), 0);
    assert_eq!(lines(&["--address", "0x7f0000000fff"]), 2, "inside the page, but not where it faulted");
    assert_eq!(lines(&["--address", "0x3000"]), 2, "where it led");
    let text = stdout(&["trace", "cat", "--kind", "fault-recorded", "--channel", "1", log], 0);
    assert!(text.contains("number 1  fault not-present  access read  asid 7  address 0x7f0000000000"), "{text}");
    let access = json(&stdout(&["trace", "cat", "--json", "--kind", "access", log], 0));
    assert_eq!(access["at"]["aperture"], "vram");
    assert_eq!(access["channel"], 1);
}

#[test]
fn check_tells_faults_that_wait_from_those_that_were_forgotten() {
    let logs = Logs::new();
    let log = |name: &str, events: &[Event]| {
        let path = logs.path(name);
        let tracer = tracer(&path, 0);
        events.iter().for_each(|event| tracer.emit(*event));
        path.to_str().unwrap().to_owned()
    };
    let fault = NotificationEvent::FaultRecorded { record: FAULT, position: 0 }.into();
    let [on, off] = [true, false].map(|enabled| Event::BusMaster { enabled });
    let forgotten = log("forgotten.trace", &[on, fault, off, Event::DeviceDropped]);
    let text = stdout(&["trace", "check", &forgotten], 1);
    assert!(text.contains("fault-answered") && text.contains("channel 1: fault 1 at 0x7f0000000000"), "{text}");
    // A log without an end of the device, and a device that went while its driver was at work.
    let switched_off = [on, fault, fault, Event::DeviceDropped];
    for waiting in [log("waiting.trace", &[on, fault, fault]), log("switched-off.trace", &switched_off)] {
        let text = stdout(&["trace", "check", &waiting], 0);
        assert!(text.contains("note: 2 faults without an answer where the log ends"), "{text}");
        assert_eq!(json(&stdout(&["trace", "check", "--json", &waiting], 0))["unanswered"], 2);
    }
    let answer = NotificationEvent::FaultCancelled { channel: 1, address: 0x1000, position: 0 }.into();
    let cancelled = log("cancelled.trace", &[on, fault, answer, off, Event::DeviceDropped]);
    assert_eq!(json(&stdout(&["trace", "check", "--json", &cancelled], 0))["unanswered"], 0);
}
