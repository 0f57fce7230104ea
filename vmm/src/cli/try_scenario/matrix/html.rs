// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The matrix as one HTML page that needs nothing else: a table for each kernel and memory type, and below it what every cell that is
//! not green has shown, with its scenario.

use std::fmt::Write;

use super::cell::Slice;
use super::results::{Judged, Mark, Results};

const STYLE: &str = "body{font-family:sans-serif;margin:2em}table{border-collapse:collapse}\
td{width:1.3em;height:1.3em;text-align:center;border:1px solid #ccc;font-family:monospace}\
th.state{writing-mode:vertical-rl;transform:rotate(180deg);font-weight:normal;text-align:left}\
th.call{text-align:right;font-weight:normal;padding-right:.5em}pre{background:#f4f4f4;padding:.6em;overflow:auto}\
.well{background:#bfe8bf}.known{background:#ffe08a}.unexpected{background:#f28b82}.not-shown{background:#c9b8f0}\
.not-run{background:#ddd}td a{color:inherit;text-decoration:none;display:block}";

/// Returns the page. `summary` is the line with all numbers.
pub fn page(slice: &Slice, all: &[Results], summary: &str) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>ersatz try --matrix</title>\n\
         <style>{STYLE}</style></head><body>\n<h1>Device memory: every state, every call</h1>\n<p>{}</p>\n",
        escaped(summary)
    );
    for results in all {
        table(&mut html, slice, results);
    }
    for results in all {
        let not_green = results.judged.iter().filter(|judged| judged.mark() != Mark::Well);
        not_green.for_each(|judged| section(&mut html, results, judged));
    }
    html.push_str("</body></html>\n");
    html
}

// Writing to a string does not fail.
fn table(html: &mut String, slice: &Slice, results: &Results) {
    let _ =
        writeln!(html, "<h2>{}, {} memory</h2>\n<table><tr><th></th>", escaped(&results.kernel), results.memory.name());
    for state in &slice.states {
        let _ = writeln!(html, "<th class=\"state\" title=\"{}\">{}</th>", escaped(state.title), state.name);
    }
    html.push_str("</tr>\n");
    for call in &slice.calls {
        let _ = write!(html, "<tr><th class=\"call\" title=\"{}\">{}</th>", escaped(call.title), call.name);
        for state in &slice.states {
            let mark = results.mark(state, call);
            let (name, class) = (format!("{}/{}", state.name, call.name), class(mark));
            let letter = match mark {
                Mark::Well | Mark::Senseless => mark.letter().to_string(),
                _ => format!("<a href=\"#{}\">{}</a>", anchor(results, &name), mark.letter()),
            };
            let _ = write!(html, "<td class=\"{class}\" title=\"{name}\">{letter}</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n<p>. well; k known fault of the kernel; X unexpected; ? known fault not shown; ! not run; - no such cell</p>\n");
}

fn section(html: &mut String, results: &Results, judged: &Judged) {
    let Judged { cell, trial } = judged;
    let name = cell.name();
    let title = format!("{name} ({}, {}): {}", results.kernel, results.memory.name(), trial.verdict);
    let _ = writeln!(html, "<h3 id=\"{}\">{}</h3>", anchor(results, &name), escaped(&title));
    if let Some(known) = cell.known() {
        let _ = writeln!(html, "<p>{}: {}</p>", escaped(known.entry), escaped(known.what));
    }
    for finding in trial.telling().into_iter().flat_map(|tried| &tried.findings) {
        let _ = writeln!(html, "<p><b>{}</b>: {}</p>", finding.symptom, escaped(&finding.text));
        if !finding.details.is_empty() {
            let _ = writeln!(
                html,
                "<details><summary>more</summary><pre>{}</pre></details>",
                escaped(&finding.details.join("\n"))
            );
        }
    }
    let _ = writeln!(html, "<details><summary>scenario</summary><pre>{}</pre></details>", escaped(&cell.text()));
}

fn class(mark: Mark) -> &'static str {
    match mark {
        Mark::Well => "well",
        Mark::Known => "known",
        Mark::Unexpected => "unexpected",
        Mark::NotShown => "not-shown",
        Mark::NotRun => "not-run",
        Mark::Senseless => "none",
    }
}

/// The name of a cell's section: letters, digits and hyphens.
fn anchor(results: &Results, name: &str) -> String {
    let text = format!("{}-{}-{name}", results.kernel, results.memory.name());
    text.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::sample::results;
    use super::*;

    #[test]
    fn a_page_has_a_square_for_each_cell_and_a_section_for_each_that_is_not_green() {
        let (slice, results) = results();
        let html = page(&slice, &[results], "3 cells");
        assert_eq!(html.matches("<td ").count(), 4);
        assert_eq!(html.matches("<h3 ").count(), 2);
        assert!(html.contains("href=\"#7-2-private-huge-read\"") && html.contains("id=\"7-2-private-huge-read\""));
        assert!(html.contains("page 3 &lt;reads&gt; 0") && !html.contains("<reads>"));
        assert!(html.contains("guest memory=private"), "the scenario is in it");
        assert!(!html.contains("http"), "nothing is fetched");
    }
}
