// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The interleaving of an attempt for people: a column for each thread, one for the device, one line for what happened at a time.
//!
//! A line has text in one column only, so a long text may reach into those right of it.

use ersatz_scenario::mark::Edge;

use super::interleaving::{Row, What};
use super::script::Script;

/// Most characters of a line, unless there are so many threads that their columns need more, or all is to be shown.
const WIDTH: usize = 132;
/// Width of the column of times.
const TIME: usize = 12;
/// Blanks between columns.
const GAP: usize = 2;
/// Widest column of a thread.
const WIDEST: usize = 22;
/// Least characters that are shown of a text.
const LEAST: usize = 24;
/// Of a list that is cut, this many lines of its beginning are shown for each three of its end: what went wrong is at the end.
const HEAD_PART: usize = 4;

/// One line, before it is laid out.
struct Line {
    at_ns: u64,
    column: usize,
    text: String,
}

/// Lays a list out: in at most `limit` lines, with long texts shortened; or all of it.
pub fn lay_out(rows: &[Row], script: &Script, limit: Option<usize>) -> Vec<String> {
    let (columns, names) = columns(rows, script);
    let device = names.len() - 1;
    let lines = lines(rows, script, &columns, device);
    let widths = widths(&lines, &names);
    let mut out = vec![header(&names, &widths)];
    let line = |line: &Line| {
        let indent = TIME + GAP + widths[..line.column].iter().map(|width| width + GAP).sum::<usize>();
        let room = if limit.is_some() { WIDTH.saturating_sub(indent).max(LEAST) } else { usize::MAX };
        let blanks = " ".repeat(indent - TIME);
        format!("{:>TIME$}{blanks}{}", time(line.at_ns), shortened(&line.text, room)).trim_end().to_owned()
    };
    match limit.map(|limit| limit.saturating_sub(2).max(2)).filter(|limit| lines.len() > *limit) {
        None => out.extend(lines.iter().map(line)),
        Some(limit) => {
            let head = limit / HEAD_PART;
            let tail = limit - head;
            out.extend(lines[..head].iter().map(line));
            let hidden = lines.len() - head - tail;
            out.push(format!("{:>TIME$}  ... {hidden} more; --verbose shows them", ""));
            out.extend(lines[lines.len() - tail..].iter().map(line));
        }
    }
    out
}

/// The column of each thread, by its number, and the names of the columns; the last is the device's. Setup and finally run alone, so
/// they share the first column.
fn columns(rows: &[Row], script: &Script) -> (Vec<usize>, Vec<String>) {
    let last = script.sequences.len().saturating_sub(1);
    let mut names = vec!["main".to_owned()];
    let mut columns = vec![0; script.sequences.len()];
    for (number, sequence) in script.sequences.iter().enumerate() {
        let appears = rows.iter().any(|row| matches!(row.what, What::Step { thread, .. } if thread == number));
        if number != 0 && number != last && appears {
            columns[number] = names.len();
            names.push(sequence.name.clone());
        }
    }
    names.push("device".to_owned());
    (columns, names)
}

/// The lines: a step that begins and ends with nothing in between is one.
fn lines(rows: &[Row], script: &Script, columns: &[usize], device: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut rows = rows.iter().peekable();
    while let Some(row) = rows.next() {
        let at_ns = row.at_ns;
        let (thread, step, edge, note) = match &row.what {
            What::Device(text) => {
                lines.push(Line { at_ns, column: device, text: text.clone() });
                continue;
            }
            What::Step { thread, step, edge, note } => (*thread, *step, *edge, note),
        };
        let column = columns.get(thread).copied().unwrap_or(0);
        let text = script.step(thread, step);
        let ends_at_once = |next: &Row| matches!(&next.what, What::Step { thread: other, step: number, edge: Edge::End, .. } if *other == thread && *number == step);
        let text = match edge {
            Edge::Begin => match rows.next_if(|next| ends_at_once(next)) {
                Some(Row { what: What::Step { note, .. }, .. }) => join(text, note),
                _ => format!("{text} ..."),
            },
            Edge::End if note.is_empty() => "... done".to_owned(),
            Edge::End => format!("... {note}"),
            Edge::Held => format!("held{}", place(note)),
            Edge::Resumed => join("goes on", note),
        };
        lines.push(Line { at_ns, column, text });
    }
    lines
}

fn join(text: &str, note: &str) -> String {
    if note.is_empty() { text.to_owned() } else { format!("{text}: {note}") }
}

fn place(function: &str) -> String {
    if function.is_empty() { String::new() } else { format!(" at {function}") }
}

/// Widths of the columns: what they need, within bounds.
fn widths(lines: &[Line], names: &[String]) -> Vec<usize> {
    let length = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = names.iter().map(|name| length(name)).collect();
    for line in lines {
        if let Some(width) = widths.get_mut(line.column) {
            *width = length(&line.text).min(WIDEST).max(*width);
        }
    }
    widths
}

fn header(names: &[String], widths: &[usize]) -> String {
    let cells: Vec<String> = names.iter().zip(widths).map(|(name, width)| format!("{name:<width$}")).collect();
    format!("{:>TIME$}  {}", "time", cells.join(&" ".repeat(GAP))).trim_end().to_owned()
}

/// A text of at most `width` characters.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}\u{2026}")
}

/// A time in milliseconds.
fn time(nanoseconds: u64) -> String {
    format!("{}.{:03} ms", nanoseconds / 1_000_000, nanoseconds / 1_000 % 1_000)
}

#[cfg(test)]
mod tests {
    use super::super::script::Sequence;
    use super::*;

    fn script() -> Script {
        let sequence = |name: &str, steps: &[&str]| Sequence {
            name: name.to_owned(),
            steps: steps.iter().map(|step| (*step).to_owned()).collect(),
        };
        Script {
            sequences: vec![
                sequence("setup", &["map r 2M"]),
                sequence("t1", &["migrate r to-system"]),
                sequence("t2", &["madvise r dontneed"]),
                sequence("finally", &["read r"]),
            ],
        }
    }

    fn step(at_us: u64, thread: usize, edge: Edge, note: &str) -> Row {
        Row { at_ns: at_us * 1000, what: What::Step { thread, step: 0, edge, note: note.to_owned() } }
    }

    fn rows() -> Vec<Row> {
        vec![
            step(0, 0, Edge::Begin, ""),
            step(1, 0, Edge::End, ""),
            step(10, 1, Edge::Begin, ""),
            step(20, 1, Edge::Held, "migrate_vma_pages"),
            step(30, 2, Edge::Begin, ""),
            step(31, 2, Edge::End, ""),
            Row { at_ns: 40_000, what: What::Device("copy 2 MiB vram to system (migrate-to-system)".to_owned()) },
            step(50, 1, Edge::Resumed, ""),
            step(60, 1, Edge::End, "moved 512"),
            step(70, 3, Edge::Begin, ""),
            step(71, 3, Edge::End, "digest 00000001"),
        ]
    }

    #[test]
    fn each_thread_has_its_column() {
        let lines = lay_out(&rows(), &script(), Some(60));
        assert_eq!(
            lines,
            [
                "        time  main                    t1                      t2                  device",
                "    0.000 ms  map r 2M",
                "    0.010 ms                          migrate r to-system ...",
                "    0.020 ms                          held at migrate_vma_pages",
                "    0.030 ms                                                  madvise r dontneed",
                "    0.040 ms                                                                      copy 2 MiB vram to system (migrate-to-system)",
                "    0.050 ms                          goes on",
                "    0.060 ms                          ... moved 512",
                "    0.070 ms  read r: digest 00000001",
            ]
        );
    }

    #[test]
    fn long_texts_give_way_unless_all_is_shown() {
        let device = Row { at_ns: 0, what: What::Device("x".repeat(200)) };
        let width = |limit| lay_out(std::slice::from_ref(&device), &script(), limit)[1].chars().count();
        assert_eq!(width(Some(60)), WIDTH);
        assert!(width(None) > 200);
    }

    #[test]
    fn a_long_list_shows_more_of_its_end() {
        let rows: Vec<Row> = (0..1000).map(|number| step(number, 1, Edge::Held, "")).collect();
        let lines = lay_out(&rows, &script(), Some(20));
        assert_eq!(lines.len(), 20);
        assert!(lines[5].contains("982 more"), "{lines:?}");
        assert!(lines[19].contains("0.999 ms"));
    }

    #[test]
    fn numbers_that_no_scenario_has_do_no_harm() {
        let rows = [step(0, 200, Edge::Begin, ""), step(1, 1, Edge::End, "")];
        assert_eq!(lay_out(&rows, &Script::default(), None).len(), 3);
        assert_eq!(lay_out(&[], &script(), Some(0)).len(), 1);
    }
}
