// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The scenarios that come with the sources, and the manual's examples, are scenarios.

use std::fs;
use std::path::{Path, PathBuf};

use ersatz_scenario::parse::VERBS;
use ersatz_scenario::{Symptom, parse};

fn clone() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn manual() -> String {
    fs::read_to_string(clone().join("docs/scenarios.md")).unwrap()
}

#[test]
fn every_example_of_the_manual_is_a_scenario() {
    let text = manual();
    let examples: Vec<&str> =
        text.split("```scenario\n").skip(1).map(|rest| rest.split_once("```").expect("an end").0).collect();
    assert!(examples.len() >= 4);
    for example in examples {
        parse("manual", example).unwrap_or_else(|error| panic!("{error}\n{example}"));
    }
}

#[test]
fn the_manual_has_every_verb_and_symptom() {
    let text = manual();
    let names = VERBS.iter().map(|verb| verb.name).chain(Symptom::NAMES.iter().copied());
    for name in names {
        assert!(text.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn every_file_is_a_scenario_with_a_title() {
    let mut count = 0;
    for entry in fs::read_dir(clone().join("guest-image/scenarios")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert_eq!(path.extension().unwrap(), "scenario", "{}", path.display());
        let scenario = parse(name, &fs::read_to_string(&path).unwrap()).unwrap_or_else(|error| panic!("{error}"));
        assert!(!scenario.title.is_empty(), "{name}");
        count += 1;
    }
    assert!(count > 0);
}
