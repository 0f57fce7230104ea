// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Trials in the XML of JUnit, as CI systems read it: a suite for each kernel and memory type, a case for each scenario.

use std::fmt::Write;

use super::human;
use super::trial::Trial;
use super::verdict::Verdict;

/// Returns the document of some trials.
pub fn document(trials: &[Trial]) -> String {
    let mut suites: Vec<(String, Vec<&Trial>)> = Vec::new();
    for trial in trials {
        let name = format!("{} {}", trial.subject.kernel, trial.subject.memory.name());
        match suites.iter_mut().find(|(suite, _)| *suite == name) {
            Some((_, cases)) => cases.push(trial),
            None => suites.push((name, vec![trial])),
        }
    }
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"ersatz try\">\n".to_owned();
    for (name, cases) in &suites {
        suite(&mut xml, name, cases);
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn suite(xml: &mut String, name: &str, cases: &[&Trial]) {
    let count = |wanted: fn(&Verdict) -> bool| cases.iter().filter(|case| wanted(&case.verdict)).count();
    let failures = count(|verdict| matches!(verdict, Verdict::Unexpected(_) | Verdict::NotShown));
    let errors = count(|verdict| matches!(verdict, Verdict::NotRun(_)));
    let seconds: f64 = cases.iter().map(|case| case.took.as_secs_f64()).sum();
    let attributes =
        format!("tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" time=\"{seconds:.3}\"", cases.len());
    // Writing to a string does not fail.
    let _ = writeln!(xml, "  <testsuite name=\"{}\" {attributes}>", escaped(name));
    for case in cases {
        testcase(xml, name, case);
    }
    xml.push_str("  </testsuite>\n");
}

fn testcase(xml: &mut String, suite: &str, trial: &Trial) {
    let verdict = &trial.verdict;
    let (name, seconds) = (escaped(&trial.subject.scenario), trial.took.as_secs_f64());
    let _ = writeln!(xml, "    <testcase classname=\"{}\" name=\"{name}\" time=\"{seconds:.3}\">", escaped(suite));
    let element = match verdict {
        Verdict::Well | Verdict::Shown(_) => None,
        Verdict::Unexpected(_) | Verdict::NotShown => Some("failure"),
        Verdict::NotRun(_) => Some("error"),
    };
    let text = escaped(&human::lines(trial, human::Detail::All).join("\n"));
    match element {
        Some(element) => {
            let message = escaped(&verdict.to_string());
            let _ =
                writeln!(xml, "      <{element} type=\"{}\" message=\"{message}\">{text}</{element}>", verdict.name());
        }
        None => {
            let _ = writeln!(xml, "      <system-out>{text}</system-out>");
        }
    }
    xml.push_str("    </testcase>\n");
}

/// A text as XML has it. Characters that XML has no way to write are replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(character),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            character if character.is_control() => out.push('\u{fffd}'),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::sample::{not_run, unexpected, well};
    use super::*;

    #[test]
    fn there_is_a_suite_for_each_kernel_and_memory_type() {
        let mut other = well();
        other.subject.kernel = "7.3".to_owned();
        let xml = document(&[well(), other, unexpected(), not_run()]);
        assert!(xml.contains("<testsuite name=\"7.2 private\" tests=\"3\" failures=\"1\" errors=\"1\""), "{xml}");
        assert!(xml.contains("<testsuite name=\"7.3 private\" tests=\"1\" failures=\"0\" errors=\"0\""), "{xml}");
        assert!(xml.contains("<failure type=\"unexpected\" message=\"unexpected content\">"), "{xml}");
        assert!(xml.contains("<error type=\"not-run\" message=\"not run: no device\">"), "{xml}");
    }

    #[test]
    fn nothing_in_a_text_is_taken_for_xml() {
        let xml = document(&[unexpected()]);
        assert!(xml.contains("page 3 &lt;reads&gt; 0") && !xml.contains("<reads>"), "{xml}");
        assert_eq!(escaped("a\u{1}\u{1b}\"&\n"), "a\u{fffd}\u{fffd}&quot;&amp;\n");
        let open = xml.matches('<').count();
        assert_eq!(open, xml.matches('>').count());
    }
}
