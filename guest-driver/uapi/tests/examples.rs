// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The example in C compiles without a warning. (That in Rust is compiled with the tests; the pipeline runs both in a guest.)

use std::env;
use std::path::Path;
use std::process::Command;

#[test]
fn the_c_example_compiles() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shared_memory");
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(&compiler)
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(folder)
        .arg("-o")
        .arg(&program)
        .arg(folder.join("examples/shared_memory.c"))
        .status()
        .unwrap_or_else(|error| panic!("cannot start the C compiler {compiler:?} ($CC, or cc): {error}"));
    assert!(status.success(), "the example does not compile");
}
