// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use ersatz_uapi::{Direction, MemoryType};

use super::*;
use crate::call::{Call, Point};
use crate::disk::{Transfer, UringTransfer};
use crate::symptom::Symptom;

/// A scenario with most of what the language has.
const A14: &str = "\
# A14: a 2 MiB page is zapped on its way back
guest memory=private vram=64M vcpus=2
shows kernel-bug on 7.2 7.3      # what is seen

setup
  map r 2M huge
  fill r 7
  migrate r to-device all

thread t1 cpu=1
  hold migrate_vma_pages
  migrate r to-system

thread t2 cpu=0
  wait t1 held
  madvise r dontneed
  resume t1

finally
  read r
";

#[test]
fn a_scenario_is_understood() {
    let scenario = parse("a14", A14).unwrap();
    assert_eq!(scenario.title, "A14: a 2 MiB page is zapped on its way back");
    assert_eq!(scenario.guest.memory, [MemoryType::Private]);
    assert_eq!((scenario.guest.vram, scenario.guest.vcpus), (Some(64 << 20), Some(2)));
    assert_eq!(scenario.expected_on("7.2.12"), [Symptom::KernelBug]);
    assert_eq!(scenario.setup.len(), 3);
    assert_eq!(scenario.threads[0].cpu, Some(1));
    let Call::Hold(hold) = &scenario.threads[0].steps[0].call else { panic!("{:?}", scenario.threads[0]) };
    assert_eq!(hold.point, Point::Kernel("migrate_vma_pages".into()));
    assert!(matches!(
        &scenario.threads[0].steps[1].call,
        Call::Migrate { direction: Direction::ToSystem, all: false, range } if range.name == "r"
    ));
    assert_eq!(scenario.finally[0].line, 20);
    assert!(scenario.holds_kernel());
}

#[test]
fn every_error_has_its_line_and_word() {
    let cases = [
        ("gest", 1, Some("gest"), "no such header"),
        ("guest colour=red", 1, Some("colour=red"), "memory="),
        ("guest vram=1K", 1, Some("vram=1K"), "1M"),
        ("guest vcpus=0", 1, Some("vcpus=0"), "1 to 64"),
        ("guest memory=private,private", 1, Some("memory=private,private"), "once"),
        ("guest", 1, None, "memory="),
        ("shows bug", 1, Some("bug"), "kernel-bug"),
        ("shows leak on", 1, None, "7.2"),
        ("shows leak on 7", 1, Some("7"), "7.2"),
        ("holds-at-most 11s", 1, Some("11s"), "10s"),
        ("setup\nsetup", 2, Some("setup"), "once"),
        ("setup now", 1, Some("now"), "end of the line"),
        ("finally\nthread t", 2, Some("thread"), "last block"),
        ("thread finally", 1, Some("finally"), "another name"),
        ("thread T1", 1, Some("T1"), "lower-case"),
        ("thread t cpu=64", 1, Some("cpu=64"), "0 to 63"),
        ("setup\n\n  mapp r 2M", 3, Some("mapp"), "madvise"),
        ("setup\nmap r 3000", 2, Some("3000"), "multiple of 4K"),
        ("setup\nmap r 2G", 2, Some("2G"), "at most 1G"),
        ("setup\nmap r 4K huge", 2, Some("4K"), "multiple of 2M"),
        ("setup\nmap r 2M large", 2, Some("large"), "end of the line"),
        ("setup\nmap r 4K\nmap r 4K", 3, Some("r"), "a name for each"),
        ("setup\nmap r 4K\nfill s 7", 3, Some("s"), "one of r"),
        ("setup\nmap r 4K\nfill r 256", 3, Some("256"), "0xa5"),
        ("setup\nmap r 4K\nread r[1]", 3, Some("r[1]"), "1 pages"),
        ("setup\nmap r 4K\nread r[1", 3, Some("r[1"), "NAME[PAGE"),
        ("setup\nmap r 4K\nmadvise r dontned", 3, Some("dontned"), "dontneed"),
        ("setup\nmap r 4K\nmadvise r", 3, None, "dontneed"),
        ("setup\nmap r 4K\nread r may-differ", 3, None, "content"),
        ("setup\nmap r 4K\nread r may-differ colour", 3, Some("colour"), "content"),
        ("setup\nmap r 4K\nmap s 8K\nmremap r onto s", 4, Some("s"), "4K"),
        ("setup\nmap r 8K\nmremap r[0] resize 4K", 3, Some("resize"), "onto"),
        ("setup\nhold f", 2, Some("f"), "in a thread"),
        ("setup\nset /etc/passwd x", 2, Some("/etc/passwd"), "/sys/kernel/mm"),
        ("setup\nset ../x 1", 2, Some("../x"), "/sys/kernel/mm"),
        ("setup\nmap r 4K\ndirect r", 3, Some("r"), "read, write"),
        ("setup\nmap r 4K\ndirect write", 3, None, "a range"),
        ("setup\nmap r 128M\ndirect write r", 3, Some("r"), "64M or before"),
        ("setup\nmap r 128M\nuring read r[63M..65M]", 3, Some("r[63M..65M]"), "64M or before"),
        ("setup\nmap r 4K\nuring read r fixed direct", 3, Some("direct"), "end of the line"),
        ("setup\nmap r 4K\nptrace read parent r", 3, Some("read"), "peek"),
        ("setup\nmap r 4K\nptrace peek c r", 3, Some("c"), "no process"),
        ("setup\nmap r 4K\nptrace poke parent r", 3, None, "a byte"),
        ("setup\nmap r 4K\nscan-written", 3, None, "a range"),
        ("setup\nexec now", 2, Some("now"), "end of the line"),
        ("setup\nmap r 4K\ndevice-add r", 3, None, "a byte"),
        ("thread t\nhold f", 2, Some("f"), "next line"),
        ("thread t\nhold f\nsleep 1ms", 2, Some("f"), "next line"),
        ("thread t\nwait u held", 2, Some("u"), "no thread has this name"),
        ("thread t\nwait t done", 2, Some("t"), "itself"),
        ("thread t\nwait u held\nthread u\nsleep 1ms", 2, Some("u"), "nothing holds"),
        ("thread t\nbarrier b", 2, Some("b"), "another thread"),
        ("setup\nbarrier b", 2, Some("barrier b"), "of a thread"),
        ("thread t of c\nsleep 1ms", 2, Some("c"), "fork"),
        ("setup\nfork c\nfork c", 3, Some("c"), "for each"),
        ("setup\nsleep 61s", 2, Some("61s"), "60s"),
    ];
    for (text, line, word, part) in cases {
        let error = parse("x", text).expect_err(text);
        assert_eq!((error.line, error.word.as_deref()), (line, word), "{text:?}: {error}");
        assert!(error.to_string().contains(part), "{text:?}: {error}");
    }
}

#[test]
fn transfers_and_accesses_from_outside_are_understood() {
    let text = "setup\nmap r 64K\nfork c\ndirect write r[1]\nuring read r direct fixed\nptrace peek c r\nptrace poke parent r 7\nexec";
    let calls: Vec<Call> = parse("x", text).unwrap().setup.into_iter().map(|step| step.call).collect();
    assert!(matches!(&calls[2], Call::Direct { transfer: Transfer::Write, range } if range.part.is_some()));
    assert!(matches!(
        &calls[3],
        Call::Uring(UringTransfer { transfer: Transfer::Read, direct: true, fixed: true, .. })
    ));
    assert!(matches!(&calls[4], Call::Peek { process, .. } if process == "c"));
    assert!(matches!(&calls[5], Call::Poke { process, byte: 7, .. } if process == "parent"));
    assert!(calls[6] == Call::Exec && calls[6].is_end() && !calls[5].is_end());
    assert!(calls[2].uses_disk() && calls[3].uses_disk() && !calls[4].uses_disk());
}

#[test]
fn an_error_shows_where_and_what_instead() {
    let error = parse("a14", "setup\n  map r 4K\n  protect r").unwrap_err().to_string();
    assert!(error.starts_with("a14:3: \"protect\": there is no such step; expected map, munmap, "), "{error}");
}

#[test]
fn counts_are_bounded() {
    let threads = |count: usize| (0..count).map(|number| format!("thread t{number}\n")).collect::<String>();
    assert!(parse("x", &threads(limits::THREADS)).is_ok());
    assert_eq!(parse("x", &threads(limits::THREADS + 1)).unwrap_err().line, limits::THREADS as u32 + 1);
    let steps = |count: usize| format!("thread t\n{}", "compact\n".repeat(count));
    assert!(parse("x", &steps(limits::STEPS)).is_ok());
    assert!(parse("x", &steps(limits::STEPS + 1)).is_err());
    assert!(parse("x", &"#".repeat(limits::TEXT_BYTES + 1)).is_err());
    let maps: String = (0..=limits::RANGES).map(|number| format!("map r{number} 4K\n")).collect();
    assert!(parse("x", &format!("setup\n{maps}")).is_err());
}

#[test]
fn comments_and_indentation_are_free() {
    let bare: String = A14.lines().map(|line| format!("{}\n", line.trim())).collect();
    assert_eq!(parse("a14", &bare).unwrap(), parse("a14", A14).unwrap());
    assert_eq!(parse("x", "").unwrap().title, "");
    assert_eq!(parse("x", "\n# not a title").unwrap().title, "");
}

#[test]
fn every_verb_has_a_reader() {
    for verb in VERBS {
        let error = parse("x", &format!("thread t\n{} ?", verb.name)).unwrap_err();
        assert!(!error.problem.contains("no such step"), "{error}");
    }
}
