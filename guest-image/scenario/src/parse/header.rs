// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Headers: what the guest is like, and what is expected.

use std::time::Duration;

use ersatz_uapi::MemoryType;

use super::error::Trouble;
use super::words::Words;
use crate::limits;
use crate::quantity::{Size, Time};
use crate::scenario::{DEBUG, Guest, Scenario, Shows};
use crate::symptom::Symptom;

const HEADERS: &str = "guest, kernel-args, driver-args, shows, holds-at-most, deadline, or the block setup or thread";
const PROPERTIES: &str = "memory=private, memory=coherent, memory=private,coherent, vram=SIZE, vcpus=N, or ram=SIZE";

/// Reads a line before the first block.
pub(super) fn read(scenario: &mut Scenario, words: &mut Words<'_>) -> Result<(), Trouble> {
    match words.word(HEADERS)? {
        "guest" => guest(&mut scenario.guest, words),
        "kernel-args" => arguments(&mut scenario.guest.kernel_args, words),
        "driver-args" => arguments(&mut scenario.guest.driver_args, words),
        "shows" => {
            let shows = shows(words)?;
            scenario.shows.extend(shows);
            Ok(())
        }
        "holds-at-most" => {
            scenario.hold_limit = time(words, limits::HOLD)?;
            words.end()
        }
        "deadline" => {
            scenario.deadline = time(words, limits::TIME)?;
            words.end()
        }
        _ => Err(words.trouble_before("there is no such header", HEADERS)),
    }
}

fn guest(guest: &mut Guest, words: &mut Words<'_>) -> Result<(), Trouble> {
    const SIZES: &str = "a size of 1M to 64G, a multiple of 1M";
    let is_size = |bytes: u64| (1 << 20..=64 << 30).contains(&bytes) && bytes % (1 << 20) == 0;
    let mut word = words.word(PROPERTIES)?;
    loop {
        let size = |value: &str| {
            let size = Size::parse(value).map(|size| size.0).filter(|&bytes| is_size(bytes));
            size.ok_or_else(|| words.trouble_before("the value does not fit", SIZES)).map(Some)
        };
        match word.split_once('=') {
            Some(("memory", types)) => guest.memory = memory_types(types, words)?,
            Some(("vram", value)) => guest.vram = size(value)?,
            Some(("ram", value)) => guest.ram = size(value)?,
            Some(("vcpus", _)) => {
                guest.vcpus = Some(words.value(word, "a number of CPUs, 1 to 64", |count| (1..=64).contains(count))?);
            }
            _ => return Err(words.trouble_before("a guest has no such property", PROPERTIES)),
        }
        match words.next() {
            Some(next) => word = next,
            None => return Ok(()),
        }
    }
}

fn memory_types(text: &str, words: &Words<'_>) -> Result<Vec<MemoryType>, Trouble> {
    let mut types = Vec::new();
    for name in text.split(',') {
        let memory = match name {
            "private" => MemoryType::Private,
            "coherent" => MemoryType::Coherent,
            _ => return Err(words.trouble_before("the value does not fit", "private, coherent, or both with a comma")),
        };
        if types.contains(&memory) {
            return Err(words.trouble_before("one type stands there twice", "each type once"));
        }
        types.push(memory);
    }
    Ok(types)
}

fn arguments(arguments: &mut Vec<String>, words: &mut Words<'_>) -> Result<(), Trouble> {
    arguments.push(words.word("words to pass on")?.to_owned());
    arguments.extend(words.rest());
    Ok(())
}

/// `shows SYMPTOM... [on VERSION...]`.
fn shows(words: &mut Words<'_>) -> Result<Vec<Shows>, Trouble> {
    let mut symptoms: Vec<Symptom> = vec![words.one_of(Symptom::NAMES)?];
    let mut kernels = Vec::new();
    while let Some(word) = words.next() {
        if word == "on" {
            kernels.push(words.read(VERSIONS, version)?);
            while let Some(word) = words.next() {
                kernels.push(version(word).ok_or_else(|| words.trouble_before("that is something else", VERSIONS))?);
            }
        } else {
            let expected = || format!("{}, or on and versions", Symptom::NAMES.join(", "));
            symptoms.push(word.parse().map_err(|_| words.trouble_before("that is something else", expected()))?);
        }
    }
    Ok(symptoms.into_iter().map(|symptom| Shows { symptom, kernels: kernels.clone() }).collect())
}

const VERSIONS: &str = "versions of kernels, major and minor: 7.2; or debug";

fn version(word: &str) -> Option<String> {
    let is_number = |part: &str| !part.is_empty() && part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
    if word == DEBUG {
        return Some(word.to_owned());
    }
    let (major, minor) = word.split_once('.')?;
    (is_number(major) && is_number(minor)).then(|| word.to_owned())
}

fn time(words: &mut Words<'_>, most: Duration) -> Result<Duration, Trouble> {
    let expected = format!("a time of 1ms to {}: 5ms, 4s", Time(most));
    let fits = |time: &Time| (Duration::from_millis(1)..=most).contains(&time.0);
    words.read(expected, |word| Time::parse(word).filter(fits)).map(|time| time.0)
}
