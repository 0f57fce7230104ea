// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One GPU: the options that describe it are the description.

use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use ersatz_abi::pci::{VRAM_MAX, VRAM_MIN};
use ersatz_device_model::size;
use ersatz_guest_image::error_chain::chain;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::injection::InjectionSpec;
use super::path::{PathMapping, WrittenPath};

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Device")]
pub struct GpuSpec {
    /// VRAM of each GPU: a power of two from 2M to 1T; only what is touched takes memory
    #[arg(long, value_name = "SIZE", value_parser = vram_size, default_value = "1G")]
    pub vram: u64,
    /// VRAM that BAR2 of each GPU shows until the guest resizes it: a power of two from 2M on [default: all]
    #[arg(long, value_name = "SIZE", value_parser = vram_size)]
    pub bar: Option<u64>,
    /// Write what the device sees to FILE (or to gpu0.trace, gpu1.trace... in the folder DIR)
    #[arg(long, value_name = "FILE|DIR")]
    pub trace: Option<WrittenPath>,
    /// Have each GPU fail, hold or take its time as the rules in FILE say, from its start on (see docs/injection.md)
    #[arg(long = "rules", value_name = "FILE", value_parser = injection())]
    pub injection: Option<InjectionSpec>,
    /// Let programs in the guest do what `ersatz ctl` does, by BAR5 of each GPU (see docs/injection.md)
    #[arg(long)]
    #[serde(default)]
    pub control_window: bool,
}

/// `--bar` is larger than `--vram`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a BAR of {} cannot show {} of VRAM; give less with --bar, or more with --vram", size::format(*.bar), size::format(*.vram))]
pub struct BarError {
    /// Size of the BAR in bytes.
    pub bar: u64,
    /// VRAM in bytes.
    pub vram: u64,
}

impl GpuSpec {
    /// Returns a GPU with `vram` bytes of VRAM, all of it in BAR2, no trace, no rules and no control window.
    pub const fn new(vram: u64) -> Self {
        Self { vram, bar: None, trace: None, injection: None, control_window: false }
    }

    /// Returns the size of BAR2 in bytes.
    pub fn bar_size(&self) -> u64 {
        self.bar.unwrap_or(self.vram)
    }

    /// Returns `count` GPUs like this one, each with a trace of its own: in the folder `trace` by number, or beside the file `trace`
    /// by number unless there is one GPU.
    ///
    /// # Errors
    ///
    /// Fails if BAR2 is larger than VRAM.
    pub fn repeat(&self, count: u8) -> Result<Vec<Self>, BarError> {
        if self.bar_size() > self.vram {
            return Err(BarError { bar: self.bar_size(), vram: self.vram });
        }
        let trace = |number| self.trace.as_ref().map(|path| numbered(path, number, count));
        Ok((0..count).map(|number| Self { trace: trace(number), ..self.clone() }).collect())
    }

    /// Returns the same GPU with its paths mapped.
    ///
    /// # Errors
    ///
    /// Those of `mapping`.
    pub fn map_paths<M: PathMapping>(&self, mapping: &mut M) -> Result<Self, M::Error> {
        let Self { vram, bar, trace, injection, control_window } = self;
        let trace = trace.as_ref().map(|path| mapping.written(path)).transpose()?;
        Ok(Self { vram: *vram, bar: *bar, trace, injection: injection.clone(), control_window: *control_window })
    }
}

/// The trace of one of `count` GPUs.
fn numbered(path: &WrittenPath, number: u8, count: u8) -> WrittenPath {
    if path.is_dir() {
        return path.join(format!("gpu{number}.trace")).into();
    }
    if count == 1 { path.clone() } else { path.with_suffix(&number.to_string()) }
}

/// Reads the file of `--rules`.
fn injection() -> impl TypedValueParser<Value = InjectionSpec> {
    PathBufValueParser::new().try_map(|path| InjectionSpec::read(&path).map_err(|error| chain(&error).to_string()))
}

/// Reads `--vram` and `--bar`.
fn vram_size(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text).map_err(|error| error.to_string())?;
    check_vram(bytes).map(|()| bytes)
}

/// Checks that a GPU may have this much VRAM, in bytes.
///
/// # Errors
///
/// Fails with what it may have instead.
pub fn check_vram(bytes: u64) -> Result<(), String> {
    if !(VRAM_MIN..=VRAM_MAX).contains(&bytes) {
        return Err(format!("VRAM may have {} to {}", size::format(VRAM_MIN), size::format(VRAM_MAX)));
    }
    if !bytes.is_power_of_two() {
        let below = 1 << bytes.ilog2();
        return Err(format!(
            "VRAM fills a BAR, so it is a power of two; type {} or {}",
            size::format(below),
            size::format(below * 2)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vram_has_limits() {
        assert_eq!(vram_size("2M"), Ok(2 << 20));
        assert_eq!(vram_size("1T"), Ok(1 << 40));
        assert!(vram_size("1M").is_err());
        assert!(vram_size("2T").is_err());
        assert!(vram_size("3G").unwrap_err().contains("2G or 4G"));
    }

    #[test]
    fn each_gpu_gets_its_trace() {
        let traces = |path: &str, count| {
            let spec = GpuSpec { trace: Some(path.into()), ..GpuSpec::new(1 << 30) };
            spec.repeat(count).unwrap().into_iter().map(|gpu| gpu.trace.unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(traces("a/b.trace", 1), ["a/b.trace".into()]);
        assert_eq!(traces("a/b.trace", 2), ["a/b-0.trace".into(), "a/b-1.trace".into()]);
        assert_eq!(traces("/", 2), ["/gpu0.trace".into(), "/gpu1.trace".into()]);
    }

    #[test]
    fn a_bar_shows_all_of_vram_or_less() {
        let gpu = GpuSpec::new(1 << 30);
        assert_eq!(gpu.bar_size(), 1 << 30);
        assert_eq!(GpuSpec { bar: Some(2 << 20), ..gpu.clone() }.repeat(1).unwrap()[0].bar_size(), 2 << 20);
        let error = GpuSpec { bar: Some(2 << 30), ..gpu }.repeat(1).unwrap_err();
        assert!(error.to_string().contains("2G cannot show 1G"), "{error}");
    }
}
