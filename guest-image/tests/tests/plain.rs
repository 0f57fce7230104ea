// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The runner of scenarios on plain memory, which needs no device and no guest.

use std::process::Command;

use ersatz_scenario::Symptom;
use ersatz_scenario::report::{Entry, PageContent, StepOutcome};

/// Tries a scenario and returns the exit status and the report.
fn run(name: &str, text: &str) -> (Option<i32>, Vec<Entry>) {
    let path = std::env::temp_dir().join(format!("{name}-{}.scenario", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ersatz-guest-tests"));
    let output = command.args(["--plain", "--scenario"]).arg(&path).output().unwrap();
    std::fs::remove_file(&path).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let entries = text.lines().map(|line| Entry::from_line(line).expect("an entry").unwrap());
    (output.status.code(), entries.collect())
}

/// What came of the step in a line, if it was begun.
fn outcome_if_begun(entries: &[Entry], wanted: u32) -> Option<StepOutcome> {
    entries.iter().find_map(|entry| match entry {
        Entry::Step { line, outcome, .. } if *line == wanted => Some(outcome.clone()),
        _ => None,
    })
}

/// What came of the step in a line.
fn outcome(entries: &[Entry], wanted: u32) -> StepOutcome {
    outcome_if_begun(entries, wanted).unwrap_or_else(|| panic!("line {wanted} was not done: {entries:#?}"))
}

/// The bytes of the pages that the step in a line read.
fn pages(entries: &[Entry], line: u32) -> Vec<(u32, u8)> {
    let StepOutcome::Content(content) = outcome(entries, line) else { panic!("line {line} reads nothing") };
    let runs = content.runs.iter().map(|run| match run.content {
        PageContent::Byte(byte) => (run.pages, byte),
        PageContent::Digest(digest) => panic!("line {line} reads {digest:#x}"),
    });
    runs.collect()
}

/// The time at which the step in a line began, and ended.
fn times(entries: &[Entry], wanted: u32) -> (u64, u64) {
    let found = entries.iter().find_map(|entry| match entry {
        Entry::Step { line, began_ns, ended_ns, .. } if *line == wanted => Some((*began_ns, *ended_ns)),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("line {wanted} was not done"))
}

fn done() -> StepOutcome {
    StepOutcome::Done { detail: None }
}

#[test]
fn memory_holds_what_was_written() {
    let (status, entries) = run(
        "written",
        "setup\nmap r 16K\nfill r 7\nfill r[1] 0x21\nread r\nmadvise r[3] dontneed\nread r\nmunmap r[0]\ntouch r\ntouch r[1..4]\nfinally\nmprotect r[2] r\nwrite r[2] 1\nmprotect r[0] r",
    );
    assert_eq!(status, Some(0), "{entries:#?}");
    assert_eq!(pages(&entries, 5), [(1, 7), (1, 0x21), (2, 7)]);
    assert_eq!(pages(&entries, 7), [(1, 7), (1, 0x21), (1, 7), (1, 0)]);
    assert_eq!(outcome(&entries, 9), StepOutcome::Signal(11));
    assert_eq!(pages(&entries, 10), [(1, 0x21), (1, 7), (1, 0)]);
    assert_eq!(outcome(&entries, 13), StepOutcome::Signal(11));
    assert_eq!(outcome(&entries, 14), StepOutcome::Errno(12));
    assert!(matches!(entries.last(), Some(Entry::End { .. })));
}

#[test]
fn what_is_written_to_the_disk_is_read_from_it() {
    let (status, entries) = run(
        "disk",
        "setup\nmap r 64K\nmap s 64K\nfill r 7\nfill r[3] 9\ndirect read s\nread s\ndirect write r\nuring read s\nread s\n\
         fill r 5\nuring write r[2..4] direct fixed\ndirect read s[3]\nread s\nuring write r fixed\nuring read s[0] direct fixed\nread s\n\
         munmap r[1]\ndirect write r\ndirect read r\nuring write r\nuring read r fixed",
    );
    assert_eq!(status, Some(0), "{entries:#?}");
    assert_eq!(pages(&entries, 7), [(16, 0)]);
    assert_eq!(pages(&entries, 10), [(3, 7), (1, 9), (12, 7)]);
    assert_eq!(pages(&entries, 14), [(3, 7), (1, 5), (12, 7)]);
    assert_eq!(pages(&entries, 17), [(1, 5), (2, 7), (1, 5), (12, 7)]);
    for line in 19..=22 {
        assert_eq!(outcome(&entries, line), StepOutcome::Errno(14), "line {line}");
    }
}

#[test]
fn a_tracer_reads_and_writes_what_the_process_may_not() {
    let (status, entries) = run(
        "traced",
        "setup\nmap r 16K\nfill r 7\nmprotect r[1] none\nmprotect r[2] r\nfork c\nthread t\nptrace peek c r\nptrace poke c r 9\nptrace peek c r\n\
         barrier b\njoin c\nthread u of c\nbarrier b\nmprotect r rw\ntouch r\nmunmap r[0]\nbarrier e\nsleep 300ms\nthread v\nbarrier e\nptrace peek c r[0]\n\
         finally\ntouch r[0]",
    );
    assert_eq!(status, Some(0), "{entries:#?}");
    assert_eq!(pages(&entries, 8), [(4, 7)]);
    assert_eq!(outcome(&entries, 9), done());
    assert_eq!(pages(&entries, 10), [(4, 9)]);
    assert_eq!(pages(&entries, 16), [(4, 9)]);
    assert_eq!(outcome(&entries, 22), StepOutcome::Errno(5));
    assert_eq!(pages(&entries, 24), [(1, 7)]);
}

#[test]
fn a_process_that_executes_another_program_does_no_more_steps() {
    let (status, entries) = run(
        "executed",
        "setup\nmap r 4K shared\nfill r 7\nfork c\nthread t of c\nexec\nfill r 8\nthread u of c\nsleep 100ms\nthread v\njoin c\nfinally\nread r",
    );
    assert_eq!(status, Some(0), "{entries:#?}");
    assert_eq!(outcome(&entries, 6), done());
    assert_eq!(outcome_if_begun(&entries, 7), None);
    assert_eq!(outcome(&entries, 11), StepOutcome::Done { detail: Some("exit status 0".into()) });
    assert_eq!(pages(&entries, 13), [(1, 7)]);
}

#[test]
fn a_scan_finds_what_was_written_since_the_last_one() {
    let (status, entries) = run(
        "scanned",
        "setup\nmap r 16K nohuge\nfill r 7\nuffd register r wp-async\nscan-written r\nwrite r[1] 9\ndevice-write r[2] 9\nscan-written r\nscan-written r",
    );
    assert_eq!(status, Some(0), "{entries:#?}");
    assert_eq!(pages(&entries, 5), [(4, 1)]);
    assert_eq!(pages(&entries, 8), [(1, 0), (2, 1), (1, 0)]);
    assert_eq!(pages(&entries, 9), [(4, 0)]);
}

#[test]
fn the_device_adds_whole_words() {
    let (status, entries) = run(
        "added",
        "setup\nmap r 12K\nfill r 7\ndevice-add r 3\nread r\nmprotect r[1] r\ndevice-add r[1] 1\nmprotect r[2] none\ndevice-add r[2] 1\ndevice-add r 1\nread r[0..2]",
    );
    assert_eq!(status, Some(0), "{entries:#?}");
    assert_eq!(pages(&entries, 5), [(3, 10)]);
    for line in [7, 9, 10] {
        assert_eq!(outcome(&entries, line), StepOutcome::Errno(14), "line {line}");
    }
    assert_eq!(pages(&entries, 11), [(1, 11), (1, 10)]);
}

#[test]
fn a_batch_is_tried_in_the_order_of_names_and_tells_of_what_is_wrong() {
    let folder = std::env::temp_dir().join(format!("batch-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let texts = [("0-well", "setup\nmap r 4K\nread r"), ("1-wrong", "setup\nmap r 4K\nuffd unregister r")];
    for (name, text) in texts {
        std::fs::write(folder.join(name).with_extension("scenario"), text).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_ersatz-guest-tests"));
    let output = command.args(["--plain", "--batch"]).arg(&folder).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let entries: Vec<Entry> = text.lines().map(|line| Entry::from_line(line).expect("an entry").unwrap()).collect();
    let ends = entries.iter().filter_map(|entry| match entry {
        Entry::End { scenario, attempt } => Some((scenario.as_str(), *attempt)),
        _ => None,
    });
    assert_eq!(ends.collect::<Vec<_>>(), [("0-well", 0), ("1-wrong", 1)], "{entries:#?}");
    // Nothing was registered: the steps of that scenario are told of, and no others.
    let steps = entries.iter().filter(|entry| matches!(entry, Entry::Step { .. }));
    assert_eq!(steps.count(), 2, "{entries:#?}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_held_call_begins_when_it_is_resumed() {
    let (status, entries) = run(
        "held",
        "setup\nmap r 4K\nfill r 1\nthread t1\nhold any_function\nread r\nthread t2\nwait t1 held\nfill r 2\nresume t1",
    );
    assert_eq!(status, Some(0), "{entries:#?}");
    assert_eq!(pages(&entries, 6), [(1, 2)]);
    assert!(times(&entries, 6).1 > times(&entries, 9).1);
}

#[test]
fn a_hold_that_nobody_resumes_ends() {
    let (status, entries) = run(
        "deadline",
        "holds-at-most 50ms\nsetup\nmap r 4K\nthread t1\nhold any_function\nfill r 1\nthread t2\nwait t1 held\nwait t1 done\nread r",
    );
    assert_eq!(status, Some(0), "{entries:#?}");
    assert_eq!(pages(&entries, 10), [(1, 1)]);
}

#[test]
fn processes_have_memory_of_their_own_and_end_as_told() {
    let (status, entries) = run(
        "processes",
        "setup\nmap r 4K\nmap s 4K shared\nfill r 1\nfork c\nfork d\nthread t1 of c\nbarrier b\nwrite r 2\nread r\nfill s 3\nvmread parent r\nexit\nthread t2\nbarrier b\njoin c\nread r\nread s\nbarrier k\nkill d\njoin d\nthread t3 of d\nbarrier k\nsleep 60s",
    );
    assert_eq!(status, Some(0), "{entries:#?}");
    assert!(matches!(outcome(&entries, 10), StepOutcome::Content(content) if content.runs.len() == 1));
    assert_eq!(pages(&entries, 12), [(1, 1)]);
    assert_eq!((pages(&entries, 17), pages(&entries, 18)), (vec![(1, 1)], vec![(1, 3)]));
    assert_eq!(outcome(&entries, 16), StepOutcome::Done { detail: Some("exit status 0".into()) });
    assert_eq!(outcome(&entries, 21), StepOutcome::Done { detail: Some("signal 9".into()) });
    // It is killed in its sleep, or on its way from the barrier to it.
    assert!(matches!(outcome_if_begun(&entries, 24), None | Some(StepOutcome::Unfinished)), "{entries:#?}");
}

#[test]
fn a_fork_in_a_thread_begins_its_threads() {
    let (_, entries) = run("fork", "setup\nmap r 4K\nfill r 1\nthread t1\nfill r 5\nfork c\nthread t2 of c\nread r");
    assert_eq!(outcome(&entries, 6), done());
    assert_eq!(pages(&entries, 8), [(1, 5)]);
}

#[test]
fn memory_moves_with_its_name_or_to_another() {
    let (_, entries) = run(
        "moves",
        "setup\nmap r 8K\nmap s 8K\nfill r 1\nmremap r onto s\nread s\ntouch r\nmremap s resize 16K\nread s\nmap h 2M huge\nmlock h[0]\nfill h 9\nread h",
    );
    assert_eq!(pages(&entries, 6), [(2, 1)]);
    assert_eq!(outcome(&entries, 7), StepOutcome::Signal(11));
    assert_eq!(pages(&entries, 9), [(2, 1), (2, 0)]);
    assert_eq!(pages(&entries, 13), [(512, 9)]);
}

#[test]
fn an_order_that_does_not_come_about_is_found() {
    let (status, entries) = run(
        "order",
        "deadline 1s\nholds-at-most 1s\nsetup\nread r\nthread t1\nmap r 4K\nbarrier b\nthread t2\nsleep 4s\nbarrier b",
    );
    assert_eq!(status, Some(1), "{entries:#?}");
    let found = entries.iter().filter(|entry| matches!(entry, Entry::Finding { symptom: Symptom::Order, .. }));
    assert_eq!(found.count(), 2, "{entries:#?}");
}

#[test]
fn a_text_that_is_no_scenario_has_a_status_of_its_own() {
    assert_eq!(run("invalid", "setup\nmapp r 4K").0, Some(2));
}
