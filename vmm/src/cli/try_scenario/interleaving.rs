// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The order in which things happened in one attempt: steps of the scenario and events of the device, in one list.
//!
//! The runner marks the trace when a step begins, ends, is held and goes on, so the log of the device has the order of all. Without
//! a log, or without marks in it, the list has the steps alone, by the guest's clock.

use std::collections::BTreeMap;

use ersatz_device_model::trace::{Event, ReadError, Record, TraceFile};
use ersatz_scenario::mark::{Edge, Mark};
use ersatz_scenario::report::{Content, PageContent, Release, Run, StepOutcome};

use super::device_events::{DeviceEvents, Happening};
use super::evidence::{Attempt, Hold, Step};
use super::script::Script;

/// Most rows kept of one attempt.
const ROWS: usize = 20_000;
/// Most runs of equal pages that are shown of what a step read.
const RUNS: usize = 4;

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When, in nanoseconds from the first row.
    pub at_ns: u64,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Something happened to a step.
    Step {
        /// The number of its thread in the [`Script`].
        thread: usize,
        /// Its number in the thread.
        step: u16,
        /// What happened to it.
        edge: Edge,
        /// How it ended, where and how it was held, as far as the report has it.
        note: String,
    },
    /// The device did something.
    Device(String),
}

/// The lists of all attempts that a log has marks of.
#[derive(Debug, Default)]
pub struct Interleavings {
    rows: BTreeMap<u16, Vec<Row>>,
    /// The number of the first record of each attempt, in the order of the log, and the attempt.
    starts: Vec<(u64, u16)>,
}

impl Interleavings {
    /// Takes the list of an attempt. Of attempts that have their 16 bits in common, the last one's is there.
    pub fn take(&mut self, attempt: u32) -> Option<Vec<Row>> {
        self.rows.remove(&short(attempt))
    }

    /// Takes the list of an attempt, with where it begins, as one of its own.
    pub fn split_off(&mut self, attempt: u32) -> Self {
        let rows = self.take(attempt).map(|rows| (short(attempt), rows));
        let starts = self.starts.iter().copied().filter(|(_, owner)| *owner == short(attempt));
        Self { rows: rows.into_iter().collect(), starts: starts.collect() }
    }

    /// Whether a record of the log belongs to an attempt: it is the one that had begun last.
    pub fn is_in(&self, sequence: u64, attempt: u32) -> bool {
        let begun = self.starts.partition_point(|(start, _)| *start <= sequence);
        let owner = self.starts.get(begun.saturating_sub(1));
        owner.is_some_and(|(_, owner)| *owner == short(attempt))
    }
}

/// An attempt's number as a mark has it.
fn short(attempt: u32) -> u16 {
    (attempt & u32::from(u16::MAX)) as u16
}

/// Returns the list of each attempt that a log has marks of.
///
/// # Errors
///
/// Fails if the log cannot be read.
pub fn of_trace(trace: &TraceFile) -> Result<Interleavings, ReadError> {
    let mut reader = Reader::default();
    for record in trace.records() {
        reader.add(&record?);
    }
    Ok(reader.finish())
}

/// Returns the list of an attempt by its report alone.
pub fn of_report(attempt: &Attempt, script: &Script) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |at_ns: u64, thread: &str, step: u16, edge: Edge| {
        if let Some(thread) = script.thread(thread).filter(|_| at_ns > 0) {
            rows.push(Row { at_ns, what: What::Step { thread, step, edge, note: String::new() } });
        }
    };
    for step in &attempt.steps {
        add(step.began_ns, &step.thread, step.number, Edge::Begin);
        add(step.ended_ns, &step.thread, step.number, Edge::End);
    }
    for hold in &attempt.holds {
        add(hold.at_ns, &hold.thread, hold.step, Edge::Held);
        add(hold.released_ns, &hold.thread, hold.step, Edge::Resumed);
    }
    // Of one step, what happens at the same time happens in the order of the edges.
    rows.sort_by_key(|row| (row.at_ns, if let What::Step { edge, .. } = row.what { edge as u8 } else { 0 }));
    from_first(rows)
}

/// Adds to each row about a step what the report says of it.
pub fn annotate(rows: &mut [Row], attempt: &Attempt, script: &Script) {
    let steps: BTreeMap<_, &Step> =
        attempt.steps.iter().filter_map(|step| Some(((script.thread(&step.thread)?, step.number), step))).collect();
    let mut holds: BTreeMap<_, Vec<&Hold>> = BTreeMap::new();
    for hold in &attempt.holds {
        if let Some(thread) = script.thread(&hold.thread) {
            holds.entry((thread, hold.step)).or_default().push(hold);
        }
    }
    // A step may be held several times: its holds are in the order of the report.
    let mut seen: BTreeMap<(usize, u16, u8), usize> = BTreeMap::new();
    for row in rows {
        let What::Step { thread, step, edge, note } = &mut row.what else { continue };
        let count = seen.entry((*thread, *step, *edge as u8)).or_default();
        let hold = holds.get(&(*thread, *step)).and_then(|holds| holds.get(*count));
        *count += 1;
        *note = match edge {
            Edge::Begin => String::new(),
            Edge::End => steps.get(&(*thread, *step)).map(|step| outcome(&step.outcome)).unwrap_or_default(),
            Edge::Held => hold.map(|hold| hold.function.clone()).unwrap_or_default(),
            Edge::Resumed => match hold.map(|hold| hold.how) {
                Some(Release::Deadline) => "its time was over".to_owned(),
                _ => String::new(),
            },
        };
    }
}

/// How a step ended, in a few words.
fn outcome(outcome: &StepOutcome) -> String {
    match outcome {
        StepOutcome::Done { detail: None } => String::new(),
        StepOutcome::Done { detail: Some(detail) } => detail.clone(),
        StepOutcome::Errno(number) => rustix::io::Errno::from_raw_os_error(*number).to_string(),
        StepOutcome::Signal(number) => signal(*number),
        StepOutcome::Content(content) => content_text(content),
        StepOutcome::Skipped => "skipped".to_owned(),
        StepOutcome::Failed(why) => format!("failed: {why}"),
        StepOutcome::Unfinished => "not finished".to_owned(),
    }
}

/// A signal by its name, if it is one of those that accesses to memory get.
fn signal(number: i32) -> String {
    match number {
        libc::SIGBUS => "SIGBUS".to_owned(),
        libc::SIGSEGV => "SIGSEGV".to_owned(),
        libc::SIGKILL => "SIGKILL".to_owned(),
        number => format!("signal {number}"),
    }
}

/// What pages hold: the first runs of equal ones.
fn content_text(content: &Content) -> String {
    let run = |run: &Run| match run.content {
        PageContent::Byte(byte) => format!("{}\u{d7}{byte:#04x}", run.pages),
        PageContent::Digest(digest) => format!("{}\u{d7}crc {digest:08x}", run.pages),
    };
    let shown: Vec<_> = content.runs.iter().take(RUNS).map(run).collect();
    let more = if content.more > 0 || content.runs.len() > RUNS { " \u{2026}" } else { "" };
    format!("{}{more}", shown.join(" "))
}

/// Sorts the records of a log into attempts.
#[derive(Debug, Default)]
struct Reader {
    done: Interleavings,
    /// The attempt under way.
    current: Option<u16>,
    rows: Vec<Row>,
    events: DeviceEvents,
}

impl Reader {
    fn add(&mut self, record: &Record) {
        let mark = match record.event() {
            Some(Event::Mark { value }) => Mark::decode(value),
            _ => None,
        };
        let Some(Mark { thread, step, attempt, edge }) = mark else { return self.events.add(record) };
        let happenings = self.events.take();
        if self.current != Some(attempt) {
            self.end_attempt();
            self.current = Some(attempt);
            self.done.starts.push((record.sequence, attempt));
        } else {
            self.add_happenings(happenings);
        }
        let what = What::Step { thread: thread.into(), step, edge, note: String::new() };
        self.add_row(Row { at_ns: record.time, what });
    }

    fn finish(mut self) -> Interleavings {
        let happenings = self.events.take();
        self.add_happenings(happenings);
        self.end_attempt();
        self.done
    }

    fn add_happenings(&mut self, happenings: Vec<Happening>) {
        for Happening { at_ns, text } in happenings {
            self.add_row(Row { at_ns, what: What::Device(text) });
        }
    }

    fn add_row(&mut self, row: Row) {
        if self.rows.len() < ROWS {
            self.rows.push(row);
        }
    }

    fn end_attempt(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        if let Some(attempt) = self.current.take() {
            self.done.rows.insert(attempt, from_first(rows));
        }
    }
}

/// Rows with times that count from the first.
fn from_first(mut rows: Vec<Row>) -> Vec<Row> {
    let first = rows.first().map_or(0, |row| row.at_ns);
    rows.iter_mut().for_each(|row| row.at_ns = row.at_ns.saturating_sub(first));
    rows
}

#[cfg(test)]
mod tests {
    use ersatz_abi::command::{Cause, Location};

    use super::super::script::Sequence;
    use super::*;

    fn script() -> Script {
        let sequence = |name: &str| Sequence { name: name.to_owned(), steps: vec!["read r".to_owned()] };
        Script { sequences: ["setup", "t1", "finally"].map(sequence).to_vec() }
    }

    fn read(events: &[Event]) -> Interleavings {
        let mut reader = Reader::default();
        for (number, event) in (1..).zip(events) {
            reader.add(&Record { sequence: number, time: number * 100, fields: event.to_fields() });
        }
        reader.finish()
    }

    fn mark(attempt: u16, edge: Edge) -> Event {
        Event::Mark { value: Mark { thread: 1, step: 0, attempt, edge }.encode() }
    }

    fn copy() -> Event {
        let (source, destination) = (Location::vram(0), Location::system(0x1000));
        Event::Copy { channel: 0, engine: 0, cause: Cause::CpuFault, source, destination, length: 4096, tag: 0 }
    }

    fn edges(rows: &[Row]) -> Vec<(u64, Option<Edge>)> {
        let edge = |row: &Row| if let What::Step { edge, .. } = row.what { Some(edge) } else { None };
        rows.iter().map(|row| (row.at_ns, edge(row))).collect()
    }

    #[test]
    fn marks_put_steps_and_device_events_in_one_order() {
        let begin_end = [copy(), mark(0, Edge::Begin), copy(), copy(), mark(0, Edge::End), copy()];
        let second = [mark(1, Edge::Begin), Event::Mark { value: 7 }];
        let read = read(&[&begin_end[..], &second].concat());
        // What the device did before the first mark of an attempt is not part of it.
        assert_eq!(edges(&read.rows[&0]), [(0, Some(Edge::Begin)), (100, None), (300, Some(Edge::End))]);
        assert_eq!(edges(&read.rows[&1]), [(0, Some(Edge::Begin))]);
        let owners: Vec<_> = (1..=8).map(|sequence| (0..3).find(|attempt| read.is_in(sequence, *attempt))).collect();
        assert_eq!(owners, [0, 0, 0, 0, 0, 0, 1, 1].map(Some));
    }

    #[test]
    fn what_a_step_read_is_shown_by_runs() {
        let run = |pages, content| Run { pages, content };
        let runs = vec![run(3, PageContent::Byte(7)), run(1, PageContent::Digest(0xab))];
        let content = Content { digest: 1, runs: runs.clone(), more: 0 };
        assert_eq!(content_text(&content), "3\u{d7}0x07 1\u{d7}crc 000000ab");
        assert_eq!(content_text(&Content { more: 9, ..content }), "3\u{d7}0x07 1\u{d7}crc 000000ab \u{2026}");
        assert_eq!((signal(7), signal(64)), ("SIGBUS".to_owned(), "signal 64".to_owned()));
    }

    #[test]
    fn a_report_has_an_order_of_its_own() {
        let (thread, text) = ("t1".to_owned(), "read r".to_owned());
        let outcome = StepOutcome::Errno(22);
        let step = Step { thread: thread.clone(), number: 0, text, began_ns: 50, ended_ns: 90, outcome };
        let (function, how) = ("f".to_owned(), Release::Deadline);
        let hold = Hold { thread, step: 0, function, at_ns: 60, released_ns: 70, how };
        let attempt = Attempt { steps: vec![step], holds: vec![hold], ..Attempt::default() };
        let mut rows = of_report(&attempt, &script());
        assert_eq!(
            edges(&rows),
            [(0, Some(Edge::Begin)), (10, Some(Edge::Held)), (20, Some(Edge::Resumed)), (40, Some(Edge::End))]
        );
        annotate(&mut rows, &attempt, &script());
        let notes = rows.iter().map(|row| if let What::Step { note, .. } = &row.what { note.as_str() } else { "" });
        let notes: Vec<_> = notes.collect();
        assert_eq!(notes[..3], ["", "f", "its time was over"]);
        assert!(notes[3].contains("nvalid"), "{notes:?}");
    }
}
