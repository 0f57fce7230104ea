// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fs;

use ersatz_device_model::inject::{Action, Occurrence, Step};

use super::*;

/// The page that documents the file.
const DOCUMENT: &str = include_str!("../../../../docs/injection.md");

fn parse(text: &str) -> Result<InjectionSpec, String> {
    InjectionSpec::parse(Path::new("a.toml"), text).map_err(|error| error.to_string())
}

/// The parts of the page between a line "```toml" and the next "```".
fn examples() -> Vec<&'static str> {
    let parts = DOCUMENT.split("\n```");
    parts.filter_map(|part| part.strip_prefix("toml\n")).collect()
}

#[test]
fn the_documented_examples_are_understood() {
    let examples = examples();
    assert!(examples.len() >= 5, "{examples:?}");
    for example in examples {
        let spec = parse(example).unwrap_or_else(|error| panic!("{error} in\n{example}"));
        assert_ne!(spec, InjectionSpec::default(), "{example}");
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<InjectionSpec>(&json).unwrap(), spec, "as the outer machine reads it");
    }
}

#[test]
fn a_file_has_rules_breakpoints_and_a_timing() {
    let spec = parse(
        r#"
        [[rule]]
        name = "late"
        on.event.kinds = ["fence"]
        on.occurrence = { nth = 3 }
        action = { kind = "delay", ns = 5 }

        [[breakpoint]]
        name = "b"
        step = "before-fence"
        when.channels = [1]

        [timing]
        preset = "pcie-5-x16"
        link-latency-ns = 7
        "#,
    )
    .unwrap();
    assert_eq!((spec.rules[0].action, spec.rules[0].on.occurrence), (Action::Delay { ns: 5 }, Occurrence::Nth(3)));
    assert_eq!((spec.breakpoints[0].step, &spec.breakpoints[0].when.channels[..]), (Step::BeforeFence, &[1_u8][..]));
    let timing = spec.timing.unwrap();
    assert_eq!((timing.link_bytes_per_second, timing.link_latency_ns), (63_000_000_000, 7));
}

#[test]
fn an_error_names_file_line_and_what_to_write() {
    let rule = "[[rule]]\nname = \"r\"\n";
    let drop_fence = format!("{rule}on.event.kinds = [\"fence\"]\naction.kind = \"drop\"\n");
    for (text, line, parts) in [
        ("[[rules]]\n".to_owned(), 1, &["unknown field `rules`", "`rule`"][..]),
        (format!("{rule}action = {{ kind = \"explode\" }}\n"), 3, &["`explode`", "`delay`"]),
        (format!("{rule}on.event.kinds = [\"fense\"]\n"), 3, &["\"fense\"", "\"fence\""]),
        (format!("\n{rule}action = {{ kind = \"drop\" }}\n"), 2, &["\"r\"", "event.kinds"]),
        (format!("{drop_fence}{drop_fence}"), 5, &["\"r\"", "another name"]),
        (format!("{drop_fence}\n[timing]\npreset = \"isa\"\n"), 6, &["\"isa\"", "pcie-4-x16"]),
        (
            "[[breakpoint]]\nname = \"b\"\nstep = \"before-fens\"\n".to_owned(),
            3,
            &["\"before-fens\"", "\"before-fence\""],
        ),
        ("x = [".to_owned(), 1, &["array"]),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.starts_with(&format!("a.toml, line {line}: ")) && !error.contains('\n'), "{error} for\n{text}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error} has not {parts:?}");
    }
}

#[test]
fn a_file_has_limits() {
    let many = |count| (0..count).map(|number| format!("[[breakpoint]]\nname=\"{number}\"\nstep=\"before-get\"\n"));
    assert_eq!(parse(&many(256).collect::<String>()).unwrap().breakpoints.len(), 256);
    assert!(parse(&many(257).collect::<String>()).unwrap_err().contains("256"));
    assert!(parse(&"#".repeat(65537)).unwrap_err().contains("65536 bytes"));
    assert!(parse(&"[".repeat(60_000)).is_err());
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(InjectionSpec::read(folder.path()), Err(RulesFileError::Read { .. })));
    let path = folder.path().join("large");
    fs::write(&path, vec![b'#'; 1 << 20]).unwrap();
    assert!(matches!(InjectionSpec::read(&path), Err(RulesFileError::TooLarge(_))));
}

#[test]
fn a_text_of_any_bytes_is_no_panic() {
    proptest::proptest!(|(text in "[\\[\\]a-z=\"{}.0-9\n -]{0,200}")| {
        let _ = parse(&text);
    });
}
