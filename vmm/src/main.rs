// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The `ersatz` command; all of it is in [`ersatz::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ersatz::cli::main(std::env::args_os())
}
