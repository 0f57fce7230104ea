// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a scenario's findings mean, given what it is expected to show.

use std::fmt::{self, Display, Formatter};

use ersatz_scenario::Symptom;

/// What became of one scenario with one kernel and one memory type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was expected, and nothing is wrong.
    Well,
    /// What is wrong is what the scenario expects with this kernel.
    Shown(Vec<Symptom>),
    /// Something is wrong that the scenario does not expect with this kernel: these symptoms.
    Unexpected(Vec<Symptom>),
    /// The scenario expects something with this kernel, and nothing is wrong.
    NotShown,
    /// The scenario was not tried, or not to its end, for this reason.
    NotRun(String),
}

impl Verdict {
    /// Judges one scenario, or one attempt at it. Both lists have each symptom once, in order.
    ///
    /// Of several expected symptoms one is enough: a kernel that is down cannot show the others.
    pub fn of(expected: &[Symptom], found: &[Symptom]) -> Self {
        let unexpected: Vec<_> = found.iter().copied().filter(|symptom| !expected.contains(symptom)).collect();
        match (expected, found) {
            _ if !unexpected.is_empty() => Self::Unexpected(unexpected),
            ([], []) => Self::Well,
            (_, []) => Self::NotShown,
            (_, found) => Self::Shown(found.to_vec()),
        }
    }

    /// Whether the scenario went as expected.
    pub fn is_expected(&self) -> bool {
        matches!(self, Self::Well | Self::Shown(_))
    }

    /// The verdict in one word, as programs read it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Shown(_) => "shown",
            Self::Unexpected(_) => "unexpected",
            Self::NotShown => "not-shown",
            Self::NotRun(_) => "not-run",
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("well"),
            Self::Shown(symptoms) => write!(f, "shown {}", listed(symptoms)),
            Self::Unexpected(symptoms) => write!(f, "unexpected {}", listed(symptoms)),
            Self::NotShown => f.write_str("not shown"),
            Self::NotRun(reason) => write!(f, "not run: {reason}"),
        }
    }
}

/// Symptoms by their names.
pub fn listed(symptoms: &[Symptom]) -> String {
    symptoms.iter().map(|symptom| symptom.name()).collect::<Vec<_>>().join(", ")
}

/// The exit status for some verdicts: 0 if all are as expected, 1 if one is not, 4 if nothing was run.
pub fn status<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> u8 {
    let (mut any_run, mut all_expected) = (false, true);
    for verdict in verdicts {
        any_run |= !matches!(verdict, Verdict::NotRun(_));
        all_expected &= verdict.is_expected();
    }
    match (any_run, all_expected) {
        (false, _) => 4,
        (true, true) => 0,
        (true, false) => 1,
    }
}

#[cfg(test)]
mod tests {
    use Symptom::{Content, KernelBug, Signal};

    use super::*;

    #[test]
    fn a_verdict_is_what_was_found_beside_what_was_expected() {
        let cases: &[(&[Symptom], &[Symptom], Verdict, &str)] = &[
            (&[], &[], Verdict::Well, "well"),
            (&[], &[Content], Verdict::Unexpected(vec![Content]), "unexpected content"),
            (&[KernelBug], &[], Verdict::NotShown, "not shown"),
            (&[KernelBug], &[KernelBug], Verdict::Shown(vec![KernelBug]), "shown kernel-bug"),
            (&[KernelBug, Content], &[KernelBug], Verdict::Shown(vec![KernelBug]), "shown kernel-bug"),
            (&[KernelBug], &[Content], Verdict::Unexpected(vec![Content]), "unexpected content"),
            (
                &[KernelBug],
                &[KernelBug, Content, Signal],
                Verdict::Unexpected(vec![Content, Signal]),
                "unexpected content, signal",
            ),
        ];
        for (expected, found, verdict, text) in cases {
            assert_eq!(Verdict::of(expected, found), *verdict, "{expected:?} {found:?}");
            assert_eq!(verdict.to_string(), *text);
        }
    }

    #[test]
    fn the_exit_status_follows_the_worst_verdict() {
        let (shown, unexpected) = (Verdict::Shown(vec![Content]), Verdict::Unexpected(vec![Content]));
        let not_run = Verdict::NotRun("no device".to_owned());
        assert_eq!(status([&Verdict::Well, &shown]), 0);
        assert_eq!(status([&Verdict::Well, &unexpected]), 1);
        assert_eq!(status([&Verdict::Well, &Verdict::NotShown]), 1);
        assert_eq!(status([&Verdict::Well, &not_run]), 1);
        assert_eq!(status([&not_run]), 4);
        assert_eq!(status([]), 4);
    }
}
