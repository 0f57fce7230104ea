// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz completions` and `ersatz man`: what shells and man(1) know of the command line, made from its definition.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::CommandError;

/// Print completions for a shell
///
/// For bash: ersatz completions bash > ~/.local/share/bash-completion/completions/ersatz
#[derive(Debug, Args)]
pub struct CompletionsOptions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Write manual pages: ersatz.1, and one for each command
///
/// To read them: man DIR/ersatz.1
#[derive(Debug, Args)]
pub struct ManOptions {
    /// Folder to write them to; created if it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints completions of a command line; returns the exit status.
///
/// # Errors
///
/// Fails if they cannot be printed.
pub fn completions(options: &CompletionsOptions, command: &Command) -> Result<u8, CommandError> {
    // The generator for bash completes hidden commands, too.
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut shown = Command::new("ersatz").subcommands(shown);
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut shown, "ersatz", &mut text);
    match io::stdout().write_all(&text) {
        // A closed pipe is not a failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(0),
    }
}

/// Writes the manual pages of a command line; returns the exit status.
///
/// # Errors
///
/// Fails if a page cannot be written.
pub fn man(options: &ManOptions, command: Command) -> Result<u8, CommandError> {
    let folder = &options.folder;
    fs::create_dir_all(folder).map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
    clap_mangen::generate_to(command, folder)
        .map_err(|error| format!("cannot write to the folder {}: {error}", folder.display()))?;
    println!("man {}", folder.join("ersatz.1").display());
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command_that_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let command = Command::new("ersatz").subcommand(Command::new("run")).subcommand(Command::new("x").hide(true));
        man(&ManOptions { folder: folder.path().join("pages") }, command).unwrap();
        let page = fs::read_to_string(folder.path().join("pages/ersatz.1")).unwrap();
        assert!(page.contains(".TH ersatz 1"), "{page}");
        assert!(folder.path().join("pages/ersatz-run.1").exists());
        assert!(!folder.path().join("pages/ersatz-x.1").exists());
    }
}
