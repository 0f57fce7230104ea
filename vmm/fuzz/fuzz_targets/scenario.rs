// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any text as a scenario: what is read is read again from what it is printed as, and the rest has an error of one line.
#![no_main]

use ersatz_scenario::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse("fuzzed", text) {
        Ok(scenario) => {
            let printed = scenario.to_string();
            let again = parse("fuzzed", &printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
            assert_eq!(again.to_string(), printed);
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
});
