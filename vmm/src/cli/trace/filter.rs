// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The options that select events. What they mean is defined with the trace (`ersatz_device_model::trace::filter`).

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use ersatz_abi::command::Cause;
use ersatz_device_model::trace::{Filter, Kind};
use ersatz_device_model::trace::{filter, range::Range};

/// Several values of one option are alternatives; several options must all match.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only events of these kinds
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kinds(), hide_possible_values = true)]
    kind: Vec<Kind>,
    /// Only work for these causes
    #[arg(long, value_name = "CAUSE", value_delimiter = ',', value_parser = causes(), hide_possible_values = true)]
    cause: Vec<Cause>,
    /// Only events of these channels
    #[arg(long, value_name = "NUMBER", value_delimiter = ',')]
    channel: Vec<u8>,
    /// Only events of these engines
    #[arg(long, value_name = "NUMBER", value_delimiter = ',')]
    engine: Vec<u8>,
    /// Only events of these address spaces
    #[arg(long, value_name = "NUMBER", value_delimiter = ',')]
    asid: Vec<u8>,
    /// Only events about these addresses, in any aperture, virtual, or as the tag: 0x1000..0x3000, 0x1000+8K or 0x1000
    #[arg(long, value_name = "RANGE", value_parser = Range::of_addresses)]
    address: Option<Range>,
    /// Only events in this time from the first one on: 1.5ms..2s, ..10us or 3s..
    #[arg(long, value_name = "FROM..TO", value_parser = Range::of_times)]
    time: Option<Range>,
}

/// The names of kinds, known to clap so that it can list and suggest them.
fn kinds() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.iter().map(|kind| kind.name())).try_map(|name| name.parse::<Kind>())
}

/// The names of causes.
fn causes() -> impl TypedValueParser<Value = Cause> {
    PossibleValuesParser::new(Cause::ALL.iter().map(|cause| cause.name())).try_map(|name| filter::cause(&name))
}

impl FilterArgs {
    /// The filter that these options stand for.
    pub fn filter(&self) -> Filter {
        Filter {
            kinds: self.kind.clone(),
            causes: self.cause.clone(),
            channels: self.channel.clone(),
            engines: self.engine.clone(),
            asids: self.asid.clone(),
            addresses: self.address,
            times: self.time,
        }
    }
}
