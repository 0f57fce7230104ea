// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any text as a rules file: what is read is what a device takes, and the rest has an error of one line.
#![no_main]

use std::path::Path;

use ersatz::spec::InjectionSpec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match InjectionSpec::parse(Path::new("rules.toml"), text) {
        Ok(spec) => {
            let written = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<InjectionSpec>(&written).unwrap(), spec);
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
});
