// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bad arguments, reported in one line: what is wrong, why, what to type instead.
//!
//! clap explains an error in a paragraph with blank lines and a usage summary; in a log or a script that is noise. Its
//! text is kept, its layout is not.

use clap::error::{Error, ErrorKind};

/// Returns the one line for an error of clap's that does not display help or the version.
pub fn one_line(error: &Error) -> String {
    let text = error.to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return missing_command(&text);
    }
    let mut line = String::new();
    for part in text.lines().map(str::trim).take_while(|part| !part.starts_with("Usage:")) {
        if part.is_empty() || part.starts_with("For more information") {
            continue;
        }
        if !line.is_empty() {
            line.push_str(if line.ends_with(':') || part.starts_with('[') { " " } else { "; " });
        }
        line.push_str(part.strip_prefix("error: ").unwrap_or(part));
    }
    // Errors about a value already contain what to type; the others get a reference to the help.
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        line.push_str(&format!("; type `{} --help` for what there is", command_of(&text)));
    }
    line
}

/// The line for a command that lacks its subcommand, for which clap would show the help.
fn missing_command(help: &str) -> String {
    let command = command_of(help);
    format!("`{command}` needs a command after it; type `{command} --help` for the list")
}

/// The command that a usage line is about: its words up to the first option or placeholder.
fn command_of(text: &str) -> String {
    let usage = text.lines().find_map(|line| line.trim().strip_prefix("Usage:")).unwrap_or("ersatz");
    let words: Vec<&str> = usage.split_whitespace().take_while(|word| !word.starts_with(['[', '<', '-'])).collect();
    if words.is_empty() { "ersatz".to_owned() } else { words.join(" ") }
}
