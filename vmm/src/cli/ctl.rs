// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz ctl`: the control socket from a shell.

mod show;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use ersatz_device_model::inject::{Breakpoint, DEFAULT_DEADLINE_NS, MemoryDemand, MemoryLimit, MemoryReturn, Step};
use ersatz_device_model::size;
use ersatz_guest_image::error_chain::chain;
use serde_json::{Value, json};

use super::CommandError;
use super::trace::filter::FilterArgs;
use crate::control::client::{ClientError, ControlClient};
use crate::control::protocol::{Condition, DEFAULT_TIMEOUT_MS, ErrorKind, Request, Selector, Wait};
use crate::outcome::STATUS_USAGE;
use crate::spec::InjectionSpec;

/// Exit status when what was waited for did not happen, or there is no such hold, rule, breakpoint or GPU.
const STATUS_ABSENT: u8 = 1;

/// Make a running device hold, fail or take its time
///
/// Talks to `ersatz run`, `test` or `device` with --control SOCKET. See docs/injection.md.
///
/// Exit status: 0 done; 1 no such hold, rule, breakpoint or GPU, or waited in vain; 2 bad arguments, or the device refuses; 125 the
/// socket cannot be used.
#[derive(Debug, Args)]
pub struct CtlOptions {
    /// The control socket
    socket: PathBuf,
    /// Number of the GPU
    #[arg(long, value_name = "N", default_value = "0", global = true)]
    gpu: u8,
    /// Print the answer as a line of JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: CtlCommand,
}

#[derive(Debug, Subcommand)]
enum CtlCommand {
    /// List steps, triggers, actions and presets, a line for each
    List,
    /// Set a breakpoint: hold what arrives at a step and matches
    Break(BreakArgs),
    /// List the breakpoints
    Breakpoints,
    /// Clear a breakpoint; what it holds stays held
    Clear {
        /// Its number or name
        #[arg(value_name = "BREAKPOINT", value_parser = selector)]
        which: Selector,
    },
    /// List what is held now
    Holds,
    /// End a hold, or all holds of a breakpoint
    Resume {
        /// The number of the hold, or the name of the breakpoint
        #[arg(value_name = "ID", value_parser = selector)]
        which: Selector,
    },
    /// Add, remove or list rules
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Demand memory back from the driver; query memory shows what comes of it
    DemandMemory {
        #[command(flatten)]
        place: MemoryArgs,
        /// How long the driver has for its answer: 500ms, 2s [default: 10s]
        #[arg(long, value_name = "TIME", value_parser = nanoseconds)]
        deadline: Option<u64>,
    },
    /// Return memory that the driver has handed over
    ReturnMemory {
        #[command(flatten)]
        place: MemoryArgs,
    },
    /// Have the driver keep so many pages and no more: others are demanded or returned
    LimitMemory {
        /// The number of pages of 4 KiB
        pages: u64,
        /// How long the driver has for its answer: 500ms, 2s [default: 10s]
        #[arg(long, value_name = "TIME", value_parser = nanoseconds)]
        deadline: Option<u64>,
    },
    /// Show what the device knows of itself: channels, rings, address spaces, TLBs, memory, holds
    Query {
        /// Only this part
        #[arg(value_parser = PossibleValuesParser::new(show::PARTS))]
        part: Option<String>,
    },
    /// Wait until something is held, or a rule has fired
    Wait(WaitArgs),
}

#[derive(Debug, Args)]
struct BreakArgs {
    /// Where to hold
    #[arg(value_parser = steps())]
    step: Step,
    /// Its name [default: that of the step]
    #[arg(long)]
    name: Option<String>,
    /// Hold only the Nth arrival of those that match
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    nth: Option<u64>,
    /// How long a hold may last at most: 500ms, 2s
    #[arg(long, value_name = "TIME", value_parser = nanoseconds)]
    deadline: Option<u64>,
    #[command(flatten)]
    when: FilterArgs,
}

/// Which memory.
#[derive(Debug, Args)]
struct MemoryArgs {
    /// The number of pages of 4 KiB [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pages: Option<u64>,
    /// The offset in VRAM of the first one: 0x200000, 2M [default: they may lie anywhere]
    #[arg(long, value_name = "OFFSET", value_parser = offset)]
    offset: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum RuleCommand {
    /// Add the rules and breakpoints of a file, and set its timing
    Add {
        /// The file, as for --rules; - for standard input
        file: PathBuf,
    },
    /// Remove a rule
    Remove {
        /// Its number or name
        #[arg(value_name = "RULE", value_parser = selector)]
        which: Selector,
    },
    /// List the rules, and how often each has fired
    List,
}

#[derive(Debug, Args)]
struct WaitArgs {
    /// For how long: 500ms, 30s
    #[arg(long, value_name = "TIME", value_parser = nanoseconds, global = true)]
    timeout: Option<u64>,
    #[command(subcommand)]
    condition: WaitCommand,
}

#[derive(Debug, Subcommand)]
enum WaitCommand {
    /// Until something is held
    Hold {
        /// By the breakpoint of this name
        breakpoint: Option<String>,
    },
    /// Until a rule has fired
    Rule {
        /// The name of the rule
        name: String,
        /// How often, since it was added
        #[arg(long, value_name = "N", default_value = "1")]
        fired: u64,
    },
}

/// Carries out the command; returns the exit status.
///
/// # Errors
///
/// Fails if the socket cannot be used.
pub fn run(options: &CtlOptions) -> Result<u8, CommandError> {
    let requests = match options.command.requests() {
        Ok(requests) => requests,
        Err(error) => {
            eprintln!("ersatz: {}", chain(error.as_ref()));
            return Ok(STATUS_USAGE);
        }
    };
    let mut client = ControlClient::connect(&options.socket)?;
    let mut answers = Vec::new();
    for request in &requests {
        match client.ask(request, options.gpu) {
            Ok(answer) => answers.push(answer),
            Err(ClientError::Failed(failure)) => {
                eprintln!("ersatz: {}", failure.message);
                return Ok(match failure.kind {
                    ErrorKind::Absent | ErrorKind::Timeout => STATUS_ABSENT,
                    ErrorKind::Request | ErrorKind::Refused => STATUS_USAGE,
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
    let answer = match (&options.command, answers.len()) {
        (CtlCommand::Query { part: Some(part) }, _) => {
            json!({ part: answers.pop().as_mut().map(|all| all[part.as_str()].take()) })
        }
        (_, 1) => answers.pop().unwrap_or(Value::Null),
        _ => Value::Array(answers),
    };
    if options.json {
        print(&answer.to_string());
    } else {
        print(&options.command.show(answer)?);
    }
    Ok(0)
}

/// Prints lines, if there are any. A closed pipe (`ersatz ctl … | head`) is not a failure.
fn print(text: &str) {
    if !text.is_empty() {
        let _ = writeln!(io::stdout(), "{}", text.trim_end());
    }
}

impl CtlCommand {
    /// The requests to send, in their order.
    fn requests(&self) -> Result<Vec<Request>, CommandError> {
        Ok(vec![match self {
            Self::List => Request::List,
            Self::Break(arguments) => Request::SetBreakpoint(arguments.breakpoint()),
            Self::Breakpoints => Request::Breakpoints,
            Self::Clear { which } => Request::ClearBreakpoint(which.clone()),
            Self::Holds => Request::Holds,
            Self::Resume { which } => Request::Resume(which.clone()),
            Self::Rule(RuleCommand::Add { file }) => return requests_of(read(file)?),
            Self::Rule(RuleCommand::Remove { which }) => Request::RemoveRule(which.clone()),
            Self::Rule(RuleCommand::List) => Request::Rules,
            Self::DemandMemory { place: MemoryArgs { pages, offset }, deadline } => {
                Request::DemandMemory(MemoryDemand {
                    offset: *offset,
                    pages: *pages,
                    deadline_ns: deadline.unwrap_or(DEFAULT_DEADLINE_NS),
                })
            }
            Self::ReturnMemory { place: MemoryArgs { pages, offset } } => {
                Request::ReturnMemory(MemoryReturn { offset: *offset, pages: *pages })
            }
            Self::LimitMemory { pages, deadline } => Request::LimitMemory(MemoryLimit {
                pages: *pages,
                deadline_ns: deadline.unwrap_or(DEFAULT_DEADLINE_NS),
            }),
            Self::Query { .. } => Request::Query,
            Self::Wait(arguments) => Request::Wait(arguments.wait()),
        }])
    }

    /// The answer for people.
    fn show(&self, answer: Value) -> Result<String, serde_json::Error> {
        Ok(match self {
            Self::List => show::names(&serde_json::from_value(answer)?),
            Self::Break(_) | Self::Rule(RuleCommand::Add { .. }) => show::numbers(&answer),
            Self::Breakpoints => show::breakpoints(&serde_json::from_value::<Vec<_>>(answer)?),
            Self::Holds => show::holds(&answer),
            Self::Resume { .. }
            | Self::Clear { .. }
            | Self::DemandMemory { .. }
            | Self::ReturnMemory { .. }
            | Self::LimitMemory { .. }
            | Self::Rule(RuleCommand::Remove { .. }) => String::new(),
            Self::Rule(RuleCommand::List) => show::rules(&serde_json::from_value(answer)?),
            Self::Query { .. } => show::view(&answer),
            Self::Wait(WaitArgs { condition: WaitCommand::Hold { .. }, .. }) => show::holds(&json!([answer])),
            Self::Wait(WaitArgs { condition: WaitCommand::Rule { .. }, .. }) => {
                show::rule(&serde_json::from_value(answer)?)
            }
        })
    }
}

impl BreakArgs {
    fn breakpoint(&self) -> Breakpoint {
        Breakpoint {
            name: self.name.clone().unwrap_or_else(|| self.step.name().to_owned()),
            step: self.step,
            when: self.when.filter(),
            nth: self.nth,
            deadline_ns: self.deadline.unwrap_or(DEFAULT_DEADLINE_NS),
        }
    }
}

impl WaitArgs {
    fn wait(&self) -> Wait {
        let condition = match &self.condition {
            WaitCommand::Hold { breakpoint } => Condition::Hold { breakpoint: breakpoint.clone() },
            WaitCommand::Rule { name, fired } => Condition::Rule { name: name.clone(), fired: *fired },
        };
        let timeout_ms = self.timeout.map_or(DEFAULT_TIMEOUT_MS, |ns| ns.div_ceil(1_000_000));
        Wait { condition, timeout_ms }
    }
}

/// Reads a rules file, or standard input.
fn read(file: &Path) -> Result<InjectionSpec, CommandError> {
    if file != Path::new("-") {
        return Ok(InjectionSpec::read(file)?);
    }
    let mut text = String::new();
    // A byte more than a file may have is enough to be refused.
    io::stdin().take(InjectionSpec::MAX_BYTES + 1).read_to_string(&mut text)?;
    Ok(InjectionSpec::parse(Path::new("standard input"), &text)?)
}

/// The requests that make a device do what a rules file says.
fn requests_of(spec: InjectionSpec) -> Result<Vec<Request>, CommandError> {
    let InjectionSpec { rules, breakpoints, timing } = spec;
    let timing = timing.into_iter().map(Request::SetTiming);
    let breakpoints = breakpoints.into_iter().map(Request::SetBreakpoint);
    Ok(timing.chain(breakpoints).chain(rules.into_iter().map(Request::AddRule)).collect())
}

/// The names of steps, known to clap so that it can list and suggest them.
fn steps() -> impl TypedValueParser<Value = Step> {
    let find = |name: String| Step::ALL.iter().copied().find(|step| step.name() == name).ok_or("no such step");
    PossibleValuesParser::new(Step::ALL.iter().map(|step| step.name())).try_map(find)
}

/// A number, or else a name.
fn selector(text: &str) -> Result<Selector, String> {
    Ok(text.parse().map_or_else(|_| Selector::Name(text.to_owned()), Selector::Number))
}

/// An offset in VRAM: hexadecimal, or as a size.
fn offset(text: &str) -> Result<u64, String> {
    let hexadecimal = text.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16));
    let value = hexadecimal.map_or_else(|| size::parse(text).ok(), Result::ok);
    value.ok_or_else(|| format!("{text:?} is not an offset; type for example 0x200000 or 2M"))
}

/// A time with its unit, in nanoseconds.
fn nanoseconds(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
    let wrong = || format!("{text:?} is not a time; type a number and ns, us, ms or s, for example 500ms or 2s");
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit))).ok_or_else(wrong)?;
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(
            [nanoseconds("5ns"), nanoseconds("3us"), nanoseconds("500ms"), nanoseconds("2s")],
            [5, 3_000, 500_000_000, 2_000_000_000].map(Ok)
        );
        for wrong in ["", "5", "s", "-1s", "1m", "99999999999999s"] {
            assert!(nanoseconds(wrong).unwrap_err().contains("500ms"), "{wrong}");
        }
    }

    #[test]
    fn offsets_are_hexadecimal_or_sizes() {
        assert_eq!([offset("0x200000"), offset("2M"), offset("4096")], [2 << 20, 2 << 20, 4096].map(Ok));
        for wrong in ["", "0x", "x", "-1", "0x10000000000000000"] {
            assert!(offset(wrong).unwrap_err().contains("2M"), "{wrong}");
        }
    }

    #[test]
    fn a_number_selects_by_number() {
        assert_eq!(selector("3"), Ok(Selector::Number(3)));
        assert_eq!(selector("3rd"), Ok(Selector::Name("3rd".to_owned())));
    }
}
