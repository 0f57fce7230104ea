// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The log's writer: nothing is lost, doubled or torn, whatever the threads and the disk do.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vm_memory::MmapRegion;

use super::*;
use crate::clock::HostClock;
use crate::dma::{DmaSpace, MAP_ALIGNMENT, MappedSpace};
use crate::trace::header::CLAIMED;
use crate::trace::record::RECORD_BYTES;
use crate::trace::{CHUNK_BYTES, TraceFile};

fn create(capacity: u64) -> (tempfile::TempDir, PathBuf, Tracer) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let tracer = Tracer::create(&path, &options(capacity), Arc::new(HostClock::new())).unwrap();
    (folder, path, tracer)
}

fn options(capacity: u64) -> TraceOptions {
    TraceOptions { identity: Identity { device: 3, vram: 1 << 30, channels: 2, copy_engines: 1 }, capacity }
}

fn marks(path: &Path) -> Vec<u64> {
    let file = TraceFile::open(path).unwrap();
    file.records()
        .map(|record| match record.unwrap().event() {
            Some(Event::Mark { value }) => value,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn what_was_written_is_read_back_while_the_log_is_open_and_after() {
    let (_folder, path, tracer) = create(100);
    for value in 0..10 {
        tracer.emit(Event::Mark { value });
    }
    assert_eq!(marks(&path), (0..10).collect::<Vec<_>>());
    let open = *TraceFile::open(&path).unwrap().header();
    assert!(!open.closed);
    assert_eq!(open.identity, options(100).identity);
    drop(tracer);
    assert_eq!(marks(&path), (0..10).collect::<Vec<_>>());
    let closed = *TraceFile::open(&path).unwrap().header();
    assert!(closed.closed);
    assert_eq!((closed.claimed, closed.dropped, closed.process), (10, 0, std::process::id()));
    assert_eq!(path.metadata().unwrap().len(), 4096 + 10 * 64, "no disk space is left over");
    assert!(TraceFile::open(&path).unwrap().records().all(|record| record.unwrap().fields.device == 3));
}

#[test]
fn what_finds_no_room_is_counted() {
    let (_folder, path, tracer) = create(7);
    for value in 0..10 {
        tracer.emit(Event::Mark { value });
    }
    drop(tracer);
    assert_eq!(marks(&path), (0..7).collect::<Vec<_>>());
    let header = *TraceFile::open(&path).unwrap().header();
    assert_eq!((header.claimed, header.dropped), (10, 3));
}

#[test]
fn the_file_grows_with_its_records() {
    let per_chunk = CHUNK_BYTES / RECORD_BYTES as u64;
    let (_folder, path, tracer) = create(10 * per_chunk);
    assert!(path.metadata().unwrap().len() <= CHUNK_BYTES);
    for value in 0..2 * per_chunk {
        tracer.emit(Event::Mark { value });
    }
    // The header takes the records into a third chunk, and a fourth may have been made ready.
    let length = path.metadata().unwrap().len();
    assert!([3, 4].map(|chunks| chunks * CHUNK_BYTES).contains(&length), "{length}");
    assert_eq!(marks(&path).len() as u64, 2 * per_chunk);
}

#[test]
fn events_of_one_moment_follow_upon_each_other() {
    let (_folder, path, tracer) = create(9);
    tracer.emit(Event::Mark { value: 0 });
    tracer.emit_all((1..=4).map(|value| Event::Mark { value }).collect::<Vec<_>>().into_iter());
    tracer.emit_all(std::iter::empty());
    tracer.emit_all((5..=12).map(|value| Event::Mark { value }).collect::<Vec<_>>().into_iter());
    assert_eq!(marks(&path), (0..9).collect::<Vec<_>>(), "as many as there is room for");
    let times: Vec<u64> = TraceFile::open(&path).unwrap().records().map(|record| record.unwrap().time).collect();
    assert!(times.is_sorted() && times[1] == times[4] && times[5] == times[8]);
    drop(tracer);
    let header = *TraceFile::open(&path).unwrap().header();
    assert_eq!((header.claimed, header.dropped), (13, 4));
}

/// What the log costs in resident memory, by the kernel's own account of the mapping: the chunks that are written to or allocated ahead, one that is
/// about to be let go, and the header.
#[test]
fn a_long_log_takes_little_memory() {
    let per_chunk = CHUNK_BYTES / RECORD_BYTES as u64;
    let (_folder, path, tracer) = create(20 * per_chunk);
    for value in 0..16 * per_chunk {
        tracer.emit(Event::Mark { value });
    }
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let ours = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
    let resident = ours.skip(1).find_map(|line| line.strip_prefix("Rss:")).unwrap();
    let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kibibytes > 0 && kibibytes <= 5 * CHUNK_BYTES / 1024, "{kibibytes} KiB");
    drop(tracer);
    assert_eq!(marks(&path), (0..16 * per_chunk).collect::<Vec<_>>(), "nothing is lost by it");
}

/// A file that may not grow any more stands for a full disk.
#[test]
fn a_full_disk_costs_events_that_are_counted_and_nothing_else() {
    let file = memfd_create("trace", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let tracer = Tracer::create(&path, &options(100_000), Arc::new(HostClock::new())).unwrap();
    fcntl_add_seals(&file, SealFlags::GROW).unwrap();
    let room = (CHUNK_BYTES - 4096) / RECORD_BYTES as u64;
    for value in 0..room + 50 {
        tracer.emit(Event::Mark { value });
    }
    drop(tracer);
    assert_eq!(marks(&path), (0..room).collect::<Vec<_>>());
    let header = *TraceFile::open(&path).unwrap().header();
    assert_eq!((header.claimed, header.dropped), (room + 50, 50));
}

#[test]
fn a_log_is_written_by_one_process_at_a_time() {
    let (_folder, path, tracer) = create(7);
    let clock = Arc::new(HostClock::new());
    let again = Tracer::create(&path, &options(7), clock.clone());
    assert!(matches!(again, Err(CreateError::InUse(_))), "{again:?}");
    tracer.emit(Event::Mark { value: 1 });
    assert_eq!(marks(&path), [1], "the refused writer changed nothing");
    drop(tracer);
    drop(Tracer::create(&path, &options(7), clock).unwrap());
    assert!(marks(&path).is_empty(), "a later log replaces an earlier one");
}

#[test]
fn bad_logs_are_refused_with_a_reason() {
    let create = |path: &str, capacity| {
        Tracer::create(Path::new(path), &options(capacity), Arc::new(HostClock::new())).unwrap_err()
    };
    assert!(matches!(create("/dev/null", 1), CreateError::NotAFile(_)));
    assert!(matches!(create("/nonexistent/trace", 1), CreateError::File { .. }));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    assert!(matches!(create(path.to_str().unwrap(), 0), CreateError::Capacity(0)));
    assert!(matches!(create(path.to_str().unwrap(), u64::MAX), CreateError::Capacity(u64::MAX)));
    assert!(!path.exists(), "nothing is left behind");
}

#[test]
fn an_observer_of_maps_does_not_keep_the_log_open() {
    let (_folder, path, tracer) = create(7);
    let space = MappedSpace::new();
    let map = |address| {
        let region = Arc::new(MmapRegion::new(MAP_ALIGNMENT as usize).unwrap());
        space.map_region(address, region, MapAccess::ReadWrite).unwrap();
    };
    map(0);
    space.observe_maps(tracer.map_observer().unwrap());
    map(MAP_ALIGNMENT);
    assert_eq!(space.unmap(0, MAP_ALIGNMENT).unwrap(), 1);
    drop(tracer);
    map(2 * MAP_ALIGNMENT);
    assert!(TraceFile::open(&path).unwrap().header().closed);
    let mapped = |address| Event::DmaMap { address, length: MAP_ALIGNMENT, writable: true };
    let unmapped = Event::DmaUnmap { address: 0, length: MAP_ALIGNMENT };
    let file = TraceFile::open(&path).unwrap();
    let events: Vec<Event> = file.records().map(|record| record.unwrap().event().unwrap()).collect();
    assert_eq!(events, [mapped(0), mapped(MAP_ALIGNMENT), unmapped]);
}

#[test]
fn a_disabled_tracer_takes_events() {
    let tracer = Tracer::disabled();
    assert!(tracer.map_observer().is_none());
    assert!(!tracer.enabled());
    tracer.emit(Event::Mark { value: 1 });
}

/// A reader in the middle of everything never sees a record that is not whole.
#[test]
fn a_live_log_never_shows_a_torn_record() {
    let (_folder, path, tracer) = create(60_000);
    let whole = |value: u64| Event::DmaMap { address: value, length: !value, writable: value % 2 == 0 };
    let check = || {
        let file = TraceFile::open(&path).unwrap();
        for record in file.records() {
            match record.unwrap().event() {
                Some(Event::DmaMap { address, length, writable }) => {
                    assert_eq!((length, writable), (!address, address % 2 == 0));
                }
                other => panic!("{other:?}"),
            }
        }
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3u64)
            .map(|thread| {
                let tracer = tracer.clone();
                scope.spawn(move || (1..=20_000).for_each(|value| tracer.emit(whole(thread << 32 | value))))
            })
            .collect();
        while !writers.iter().all(|writer| writer.is_finished()) {
            check();
        }
    });
    check();
    let file = TraceFile::open(&path).unwrap();
    assert_eq!(file.records().count(), 60_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn nothing_is_lost_or_doubled_by_many_threads(
        counts in proptest::collection::vec(0u64..3000, 1..6),
        capacity in 1u64..12_000,
    ) {
        let (_folder, path, tracer) = create(capacity);
        std::thread::scope(|scope| {
            for (thread, &count) in counts.iter().enumerate() {
                let tracer = tracer.clone();
                scope.spawn(move || (0..count).for_each(|n| tracer.emit(Event::Mark { value: (thread as u64) << 32 | n })));
            }
        });
        drop(tracer);
        let total: u64 = counts.iter().sum();
        let marks = marks(&path);
        let kept = total.min(capacity);
        let header = *TraceFile::open(&path).unwrap().header();
        prop_assert_eq!((header.claimed, header.dropped), (total, total - kept));
        prop_assert_eq!(marks.len() as u64, kept);
        prop_assert_eq!(marks.iter().collect::<BTreeSet<_>>().len() as u64, kept, "none twice");
        for thread in 0..counts.len() as u64 {
            let own: Vec<_> = marks.iter().filter(|&mark| mark >> 32 == thread).collect();
            prop_assert!(own.is_sorted(), "a thread's own events are in its order");
        }
    }
}

/// The count of claims is in the file: a process that writes nonsense there loses events, and stops no writer.
#[test]
fn a_count_that_others_have_overwritten_costs_events_only() {
    let (_folder, path, tracer) = create(9);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    for claimed in [u64::MAX, u64::MAX - 1, 1 << 63] {
        file.write_all_at(&claimed.to_le_bytes(), CLAIMED as u64).unwrap();
        tracer.emit(Event::Mark { value: 1 });
        file.write_all_at(&claimed.to_le_bytes(), CLAIMED as u64).unwrap();
        tracer.emit_all((0..4).map(|value| Event::Mark { value }).collect::<Vec<_>>().into_iter());
    }
    assert_eq!(TraceFile::open(&path).unwrap().header().dropped, 15);
}
