// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads a step.

use std::time::Duration;

use ersatz_uapi::{Direction, PageState};

use super::error::Trouble;
use super::verbs::{VERBS, Verb};
use super::words::{self, Words};
use crate::advice::{ALL as ADVICES, Advice};
use crate::call::{Awaited, Call, Expectation, Hold, MapOptions, PagemapBit, Point, Protection, Uffd, UffdMode};
use crate::disk::{Transfer, UringTransfer};
use crate::limits;
use crate::quantity::{Size, Time, byte};
use crate::scenario::Step;
use crate::symptom::Aspect;

/// Ends a call and begins the list of what may differ.
const MAY_DIFFER: &str = "may-differ";

/// Reads a line that is not empty.
pub(super) fn read(words: &mut Words<'_>) -> Result<Step, Trouble> {
    let expected = || VERBS.iter().map(|verb| verb.name).collect::<Vec<_>>().join(", ");
    let name = words.word(expected())?;
    let Some(verb) = Verb::find(name) else {
        return Err(words.trouble_before("there is no such step", expected()));
    };
    let call = call(verb.name, words)?;
    let may_differ = may_differ(words)?;
    words.end()?;
    Ok(Step { line: words.line(), call, may_differ })
}

fn may_differ(words: &mut Words<'_>) -> Result<Vec<Aspect>, Trouble> {
    let mut aspects = Vec::new();
    if words.take(MAY_DIFFER) {
        aspects.push(words.one_of(Aspect::NAMES)?);
        while let Some(word) = words.next() {
            let aspect = word.parse();
            aspects.push(aspect.map_err(|_| words.trouble_before("that is something else", Aspect::NAMES.join(", ")))?);
        }
    }
    Ok(aspects)
}

fn call(verb: &str, words: &mut Words<'_>) -> Result<Call, Trouble> {
    Ok(match verb {
        "map" => Call::Map { name: words.name("the range's name")?, size: size(words)?, options: map_options(words)? },
        "munmap" => Call::Munmap(words.range()?),
        "fill" => Call::Fill { range: words.range()?, byte: content(words)? },
        "write" => Call::Write { range: words.range()?, byte: content(words)? },
        "read" => Call::Read(words.range()?),
        "touch" => Call::Touch(words.range()?),
        "migrate" => Call::Migrate { range: words.range()?, direction: direction(words)?, all: words.take("all") },
        "evict" => Call::Evict,
        "device-read" => Call::DeviceRead(words.range()?),
        "device-write" => Call::DeviceWrite { range: words.range()?, byte: content(words)? },
        "device-add" => Call::DeviceAdd { range: words.range()?, byte: content(words)? },
        "exclusive" => Call::Exclusive(words.range()?),
        "expect" if words.take("device-empty") => Call::Expect(Expectation::DeviceEmpty),
        "expect" => Call::Expect(Expectation::Pages { range: words.range()?, state: state(words)? }),
        "madvise" => Call::Madvise { range: words.range()?, advice: advice(words)? },
        "mprotect" => Call::Mprotect { range: words.range()?, protection: words.one_of(Protection::NAMES)? },
        "mremap" => mremap(words)?,
        "mlock" => Call::Mlock { range: words.range()?, on_fault: words.take("onfault") },
        "munlock" => Call::Munlock(words.range()?),
        "pagemap" => Call::Pagemap { range: words.range()?, bit: words.one_of(PagemapBit::NAMES)? },
        "scan-written" => Call::ScanWritten(words.range()?),
        "clear-soft-dirty" => Call::ClearSoftDirty,
        "fork" => Call::Fork(words.name("a name for the child")?),
        "exit" => Call::Exit,
        "exec" => Call::Exec,
        "kill" => Call::Kill(words.name("a child's name")?),
        "join" => Call::Join(words.name("a child's name")?),
        "uffd" => Call::Uffd(uffd(words)?),
        "ksm" => ksm(words)?,
        "swap-out" => Call::SwapOut(words.range()?),
        "compact" => Call::Compact,
        "vmread" => Call::Vmread { process: process(words)?, range: words.range()? },
        "vmwrite" => Call::Vmwrite { process: process(words)?, range: words.range()?, byte: content(words)? },
        "ptrace" => ptrace(words)?,
        "direct" => Call::Direct { transfer: words.one_of(Transfer::NAMES)?, range: words.range()? },
        "uring" => Call::Uring(uring(words)?),
        "cgroup" => {
            words.read("limit", |word| (word == "limit").then_some(()))?;
            Call::Cgroup { limit: size(words)? }
        }
        "set" => Call::Set {
            setting: words.read("a path below /sys/kernel/mm without .., or vm.NAME", setting)?,
            value: words.word("a value")?.to_owned(),
        },
        "hold" => Call::Hold(hold(words)?),
        "wait" => Call::Wait { thread: words.name("a thread's name")?, awaited: words.one_of(Awaited::NAMES)? },
        "resume" => Call::Resume(words.name("a thread's name")?),
        "barrier" => Call::Barrier(words.name("a barrier's name")?),
        "sleep" => Call::Sleep(sleep(words)?),
        _ => return Err(words.trouble_before("there is no such step", "another step")),
    })
}

fn size(words: &mut Words<'_>) -> Result<u64, Trouble> {
    let most = Size(limits::RANGE_BYTES);
    let expected = format!("a size, a multiple of 4K, at most {most}: 64K, 2M");
    let fits = |&bytes: &u64| bytes != 0 && bytes <= limits::RANGE_BYTES && bytes % limits::PAGE == 0;
    words.read(expected, |word| Size::parse(word).map(|size| size.0).filter(fits))
}

fn content(words: &mut Words<'_>) -> Result<u8, Trouble> {
    words.read("a byte: 7, 0xa5", byte)
}

fn map_options(words: &mut Words<'_>) -> Result<MapOptions, Trouble> {
    let mut options = MapOptions::default();
    for _ in 0..6 {
        if words.take("huge") {
            options.huge = Some(true);
        } else if words.take("nohuge") {
            options.huge = Some(false);
        } else if words.take("shared") {
            options.shared = true;
        } else if words.take("ro") {
            options.protection = Some(Protection::Read);
        } else if words.take("none") {
            options.protection = Some(Protection::None);
        } else if words.take("noreserve") {
            options.noreserve = true;
        } else if words.take("populate") {
            options.populate = true;
        }
    }
    Ok(options)
}

fn direction(words: &mut Words<'_>) -> Result<Direction, Trouble> {
    words.read("to-device, to-system", |word| match word {
        "to-device" => Some(Direction::ToDevice),
        "to-system" => Some(Direction::ToSystem),
        _ => None,
    })
}

fn state(words: &mut Words<'_>) -> Result<PageState, Trouble> {
    words.read("device, system, swapped, hole", |word| match word {
        "device" => Some(PageState::Device),
        "system" => Some(PageState::System),
        "swapped" => Some(PageState::Swapped),
        "hole" => Some(PageState::None),
        _ => None,
    })
}

fn advice(words: &mut Words<'_>) -> Result<Advice, Trouble> {
    let names: Vec<_> = ADVICES.iter().map(|advice| advice.name()).collect();
    words.read(names.join(", "), Advice::parse)
}

fn mremap(words: &mut Words<'_>) -> Result<Call, Trouble> {
    let range = words.range()?;
    match words.word("onto RANGE, or resize SIZE")? {
        "onto" => Ok(Call::MremapOnto { range, target: words.range()?, keep: words.take("dontunmap") }),
        "resize" if range.part.is_none() => Ok(Call::Resize { name: range.name, size: size(words)? }),
        "resize" => Err(words.trouble_before("only a whole range gets another size", "onto RANGE")),
        _ => Err(words.trouble_before("that is something else", "onto RANGE, or resize SIZE")),
    }
}

fn uffd(words: &mut Words<'_>) -> Result<Uffd, Trouble> {
    const EXPECTED: &str = "register, unregister, protect, unprotect, copy, zeropage, move, wait";
    Ok(match words.word(EXPECTED)? {
        "register" => Uffd::Register { range: words.range()?, mode: words.one_of(UffdMode::NAMES)? },
        "unregister" => Uffd::Unregister(words.range()?),
        "protect" => Uffd::Protect(words.range()?),
        "unprotect" => Uffd::Unprotect(words.range()?),
        "copy" => Uffd::Copy { range: words.range()?, byte: content(words)? },
        "zeropage" => Uffd::Zeropage(words.range()?),
        "move" => {
            let range = words.range()?;
            words.read("from", |word| (word == "from").then_some(()))?;
            Uffd::Move { range, from: words.range()? }
        }
        "wait" => Uffd::Wait(words.range()?),
        _ => return Err(words.trouble_before("that is something else", EXPECTED)),
    })
}

fn ksm(words: &mut Words<'_>) -> Result<Call, Trouble> {
    match words.word("merge RANGE, or scan")? {
        "merge" => Ok(Call::KsmMerge(words.range()?)),
        "scan" => Ok(Call::KsmScan),
        _ => Err(words.trouble_before("that is something else", "merge RANGE, or scan")),
    }
}

/// The name of another process.
fn process(words: &mut Words<'_>) -> Result<String, Trouble> {
    words.name("a child's name, or parent")
}

fn ptrace(words: &mut Words<'_>) -> Result<Call, Trouble> {
    const EXPECTED: &str = "peek PROCESS RANGE, or poke PROCESS RANGE BYTE";
    match words.word(EXPECTED)? {
        "peek" => Ok(Call::Peek { process: process(words)?, range: words.range()? }),
        "poke" => Ok(Call::Poke { process: process(words)?, range: words.range()?, byte: content(words)? }),
        _ => Err(words.trouble_before("that is something else", EXPECTED)),
    }
}

fn uring(words: &mut Words<'_>) -> Result<UringTransfer, Trouble> {
    let (transfer, range) = (words.one_of(Transfer::NAMES)?, words.range()?);
    Ok(UringTransfer { transfer, range, direct: words.take("direct"), fixed: words.take("fixed") })
}

/// A path that stays below its folder.
fn setting(word: &str) -> Option<String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    let stays = !word.contains("..") && !word.starts_with('/') && word.bytes().all(is_part);
    let is_vm = word.strip_prefix("vm.").is_none_or(|name| !name.contains('/'));
    (stays && is_vm && word.len() <= 128).then(|| word.to_owned())
}

fn hold(words: &mut Words<'_>) -> Result<Hold, Trouble> {
    let point = words.read("a function of the kernel, or device:STEP", point)?;
    let mut hold = Hold { point, nth: 1, argument: None };
    for _ in 0..2 {
        let Some(word) = words.next() else { break };
        match word.split_once('=') {
            Some(("nth", _)) => {
                hold.nth = words.value(word, "a number of 1 to 1000000", |nth| (1..=1_000_000).contains(nth))?
            }
            Some((key, value)) if argument(key).is_some() => {
                let range = words::range(value);
                let range = range.ok_or_else(|| words.trouble_before("the value does not fit", "a range"))?;
                hold.argument = argument(key).map(|number| (number, range));
            }
            _ => return Err(words.trouble_before("that is something else", "nth=N, argN=RANGE with N of 0 to 5")),
        }
    }
    Ok(hold)
}

/// The number in `arg0` to `arg5`.
fn argument(key: &str) -> Option<u8> {
    key.strip_prefix("arg")?.parse().ok().filter(|&number| number <= 5 && key.len() == 4)
}

fn point(word: &str) -> Option<Point> {
    let is_symbol = |name: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'$');
        (1..=limits::FUNCTION_BYTES).contains(&name.len()) && name.bytes().all(is_part)
    };
    match word.strip_prefix("device:") {
        Some(step) => is_symbol(step).then(|| Point::Device(step.to_owned())),
        None => is_symbol(word).then(|| Point::Kernel(word.to_owned())),
    }
}

fn sleep(words: &mut Words<'_>) -> Result<Duration, Trouble> {
    let expected = format!("a time of at most {}: 5ms, 1s", Time(limits::TIME));
    words.read(expected, |word| Time::parse(word).filter(|time| time.0 <= limits::TIME)).map(|time| time.0)
}
