// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tasks are held at the entry of functions of the kernel, and go on when they are told to.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ersatz_uapi::Direction;
use ersatz_uapi::hold::{Arm, ConditionKind, NAME_SIZE, TaskKind};
use nix::errno::Errno;
use nix::sys::mman::MmapAdvise;
use nix::sys::signal::Signal;
use nix::unistd::{Uid, getppid, gettid, seteuid};

use super::cpu::run_on;
use crate::device::Device;
use crate::hold::{
    Condition, Hold, HoldError, Holder, MAX_DEADLINE_MS, MAX_HOLDS, PATH, Spec, State, Task, load, unload,
};
use crate::pattern::{PAGE, Pattern};
use crate::points;
use crate::process::{Child, Event};
use crate::region::Region;
use crate::suite::{Need, test_list};

test_list! { "hold":
    a_held_thread_goes_on_when_resumed;
    the_deadline_releases;
    the_nth_entry_is_held;
    only_what_an_argument_says_is_held;
    only_what_a_field_says_is_held;
    only_the_named_task_is_held;
    two_holds_one_after_the_other;
    a_cancelled_hold_holds_nothing;
    what_cannot_be_probed_is_refused;
    wrong_values_are_refused;
    there_are_limits;
    others_have_no_access;
    closing_releases;
    the_end_of_the_process_that_armed_releases;
    a_killed_task_is_held_on;
    an_open_file_keeps_the_module;
    every_point_can_be_held.needs(POINTS).patience(6);
    discarding_a_page_on_its_way_back.patience(2);
}

/// What does not depend on the type of memory is tried with one.
const POINTS: &[Need] = &[Need::Private, Need::Gcc];

/// A function that a thread enters when it likes, and otherwise never: by getppid().
const FUNCTION: &str = "__x64_sys_getppid";

/// Enters it.
fn enter() {
    getppid();
}

/// How long a thread may take to come to a function.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `body` on a thread on CPU 1 that arms a hold for itself first. `meanwhile` runs on CPU 0 while the thread is held, and must
/// release it.
fn beside_held<R: Send>(
    holder: &Holder,
    spec: impl FnOnce(Task) -> Spec + Send,
    body: impl FnOnce() -> R + Send,
    meanwhile: impl FnOnce(&Hold),
) -> (R, Hold) {
    run_on(0);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let thread = scope.spawn(move || {
            run_on(1);
            let hold = holder.arm(&spec(Task::current())).expect("arming a hold");
            sender.send(hold).expect("the thread that waits");
            body()
        });
        let hold = receiver.recv().expect("the thread that is to be held");
        assert_eq!(hold.wait_held(PATIENCE), Ok(State::Held));
        meanwhile(&hold);
        (thread.join().expect("the held thread"), hold)
    })
}

fn a_held_thread_goes_on_when_resumed() {
    let holder = Holder::open().expect("the module");
    let id = mpsc::channel();
    let body = || {
        id.0.send(gettid()).expect("a receiver");
        enter();
        Instant::now()
    };
    let mut resumed_at = None;
    let (went_on_at, hold) = beside_held(
        &holder,
        |task| Spec::new(FUNCTION, task),
        body,
        |hold| {
            assert_eq!(hold.wait_held(Duration::ZERO), Ok(State::Held), "of a thread that is held already");
            thread::sleep(Duration::from_millis(30));
            let status = hold.status();
            assert_eq!((status.state, status.hits, status.released_at_ns), (State::Held, 1, None));
            resumed_at = Some(Instant::now());
            hold.resume().expect("resuming a held thread");
        },
    );
    assert!(resumed_at.is_some_and(|at| at < went_on_at), "the thread went on before it was resumed");
    let status = hold.status();
    assert_eq!((status.state, status.hits, status.unholdable), (State::Resumed, 1, 0));
    assert_eq!(status.task, id.1.recv().ok());
    let (from, to) = (status.held_at_ns.expect("a time"), status.released_at_ns.expect("a time"));
    assert!((30_000_000..4_000_000_000).contains(&(to - from)), "held for {} ns", to - from);
    assert_eq!(hold.resume(), Err(Errno::EAGAIN), "of a thread that has gone on");
}

fn the_deadline_releases() {
    const DEADLINE: Duration = Duration::from_millis(50);
    let holder = Holder::open().expect("the module");
    let hold = holder.arm(&Spec::new(FUNCTION, Task::current()).deadline(DEADLINE)).expect("arming a hold");
    assert_eq!(hold.wait_held(Duration::from_millis(5)), Err(Errno::ETIMEDOUT));
    let begin = Instant::now();
    enter();
    let took = begin.elapsed();
    assert!((DEADLINE..Duration::from_secs(2)).contains(&took), "held for {took:?}, not {DEADLINE:?}");
    assert_eq!(hold.wait_held(PATIENCE), Ok(State::Expired));
    assert_eq!(hold.resume(), Err(Errno::EAGAIN));
    // A hold holds once.
    let begin = Instant::now();
    enter();
    assert!(begin.elapsed() < DEADLINE);
}

/// A hold that ends by itself, at once: of the thread that looks at it.
fn brief(function: &str) -> Spec {
    Spec::new(function, Task::current()).deadline(Duration::from_millis(1))
}

fn the_nth_entry_is_held() {
    let holder = Holder::open().expect("the module");
    let hold = holder.arm(&brief(FUNCTION).nth(3)).expect("arming a hold");
    for entry in 1..=5 {
        enter();
        let expected = if entry < 3 { (State::Armed, entry) } else { (State::Expired, 3) };
        assert_eq!((hold.state(), hold.status().hits), expected, "after entry {entry}");
    }
}

/// Memory in small pages.
fn small_pages(pages: usize) -> Region {
    let region = Region::new(pages);
    region.advise(0..pages, MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
    region
}

fn addresses(region: &Region, index: usize) -> std::ops::RangeInclusive<u64> {
    let start = region.page(index).address;
    start..=start + PAGE as u64 - 1
}

fn only_what_an_argument_says_is_held() {
    const FAULT: &str = "handle_mm_fault";
    let (holder, region) = (Holder::open().expect("the module"), small_pages(8));
    let within = points::find(FAULT).and_then(|point| point.address.within(addresses(&region, 5)));
    let hold = holder.arm(&brief(FAULT).condition(within.expect("a point with an address"))).expect("arming a hold");
    for index in [0, 4, 6, 7] {
        region.touch(index);
    }
    assert_eq!((hold.state(), hold.status().hits), (State::Armed, 0));
    region.touch(5);
    assert_eq!((hold.state(), hold.status().hits), (State::Expired, 1));
}

fn only_what_a_field_says_is_held() {
    const SETUP: &str = "migrate_vma_setup";
    let (holder, device, region) = (Holder::open().expect("the module"), Device::open(), small_pages(4));
    let pattern = Pattern::new(1);
    region.fill(pattern);
    let within = points::find(SETUP).and_then(|point| point.address.within(addresses(&region, 2)));
    let hold = holder.arm(&brief(SETUP).condition(within.expect("a point with an address"))).expect("arming a hold");
    device.to_device(region.page(1));
    assert_eq!((hold.state(), hold.status().hits), (State::Armed, 0));
    device.to_device(region.page(2));
    assert_eq!(hold.state(), State::Expired);
    // A field of something that is no pointer is no match.
    let wild = Condition::Field { argument: 1, offset: 0, values: 0..=u64::MAX };
    let hold = holder.arm(&brief("handle_mm_fault").condition(wild)).expect("arming a hold");
    drop(Region::filled(4, pattern));
    assert_eq!((hold.state(), hold.status().hits), (State::Armed, 0));
    region.check(pattern);
}

fn only_the_named_task_is_held() {
    let holder = Holder::open().expect("the module");
    let own = nix::unistd::getpid();
    let process = holder.arm(&brief(FUNCTION).nth(2)).expect("arming a hold");
    let other = thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let (end, wait) = mpsc::channel::<()>();
        scope.spawn(move || {
            sender.send(gettid()).expect("a receiver");
            wait.recv().ok();
        });
        let spec = Spec { task: Task::Thread(receiver.recv().expect("a thread")), ..brief(FUNCTION) };
        let hold = holder.arm(&spec).expect("arming a hold");
        enter();
        drop(end);
        hold
    });
    assert_eq!((other.state(), other.status().hits), (State::Armed, 0), "of a thread that never came");
    assert_eq!((process.state(), process.status().hits), (State::Armed, 1));
    let by_process = holder.arm(&Spec { task: Task::Process(own), ..brief(FUNCTION) }).expect("arming a hold");
    Child::spawn(enter).succeed();
    assert_eq!(by_process.state(), State::Armed, "after another process came");
    thread::spawn(enter).join().expect("a thread");
    assert_eq!(by_process.state(), State::Expired, "after a thread of the process came");
}

fn two_holds_one_after_the_other() {
    const SECOND: &str = "__x64_sys_getpgid";
    let holder = Holder::open().expect("the module");
    let mut second = None;
    let body = || {
        enter();
        nix::unistd::getpgid(None).expect("getpgid");
    };
    beside_held(
        &holder,
        |task| Spec::new(FUNCTION, task),
        body,
        |first| {
            // Armed while a task is held, which must not have to wait for it.
            let begin = Instant::now();
            let task = Task::Thread(first.status().task.expect("a held thread"));
            let hold = holder.arm(&Spec::new(SECOND, task)).expect("arming a hold");
            assert!(begin.elapsed() < Duration::from_secs(2), "arming took {:?}", begin.elapsed());
            assert_eq!((first.state(), hold.state()), (State::Held, State::Armed));
            assert_eq!((first.function(), hold.function()), (FUNCTION, SECOND));
            first.resume().expect("resuming a held thread");
            assert_eq!(hold.wait_held(PATIENCE), Ok(State::Held));
            hold.resume().expect("resuming a held thread");
            second = Some((first.status(), hold));
        },
    );
    let (first, second) = second.expect("a second hold");
    assert!(first.released_at_ns < second.status().held_at_ns);
    assert_eq!(second.state(), State::Resumed);
}

fn a_cancelled_hold_holds_nothing() {
    let holder = Holder::open().expect("the module");
    let hold = holder.arm(&Spec::new(FUNCTION, Task::current())).expect("arming a hold");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| hold.wait_held(PATIENCE));
        thread::sleep(Duration::from_millis(10));
        hold.cancel();
        assert_eq!(waiter.join().expect("the thread that waits"), Ok(State::Cancelled));
    });
    let begin = Instant::now();
    enter();
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!((hold.state(), hold.status().task), (State::Cancelled, None));
    let ((), hold) = beside_held(&holder, |task| Spec::new(FUNCTION, task), enter, Hold::cancel);
    assert_eq!(hold.state(), State::Resumed, "of a hold that was cancelled while it held");
}

fn what_cannot_be_probed_is_refused() {
    let holder = Holder::open().expect("the module");
    let refused = |function| holder.arm(&brief(function)).expect_err(function);
    assert!(matches!(refused("no_such_function_at_all"), HoldError::NoFunction(_)));
    // One that kprobes are themselves made of, and one whose entry the kernel does not trace.
    for function in ["aggr_pre_handler", "ktime_get_mono_fast_ns"] {
        assert!(matches!(refused(function), HoldError::NotProbeable(_)), "{function}: {:?}", refused(function));
    }
    let nobody = Spec { task: Task::Thread(nix::unistd::Pid::from_raw(4_000_000)), ..brief(FUNCTION) };
    assert!(matches!(holder.arm(&nobody), Err(HoldError::NoTask(_))));
}

fn wrong_values_are_refused() {
    let holder = Holder::open().expect("the module");
    let mut good = Arm {
        task_kind: TaskKind::Thread as u32,
        task: gettid().as_raw() as u32,
        nth: 1,
        deadline_ms: 1,
        ..Arm::default()
    };
    good.function[..FUNCTION.len()].copy_from_slice(FUNCTION.as_bytes());
    let argument = ConditionKind::Argument as u32;
    let field = ConditionKind::Field as u32;
    let mut unprintable = good;
    unprintable.function[2] = b'\n';
    let wrong = [
        ("no name", Arm { function: [0; NAME_SIZE], ..good }),
        ("a name with no end", Arm { function: [b'f'; NAME_SIZE], ..good }),
        ("a name that is not one", unprintable),
        ("a kind of task", Arm { task_kind: 3, ..good }),
        ("any task with a number", Arm { task_kind: TaskKind::Any as u32, ..good }),
        ("entry 0", Arm { nth: 0, ..good }),
        ("no deadline", Arm { deadline_ms: 0, ..good }),
        ("a long deadline", Arm { deadline_ms: MAX_DEADLINE_MS + 1, ..good }),
        ("a kind of condition", Arm { condition_kind: 3, ..good }),
        ("an argument on the stack", Arm { condition_kind: argument, argument: 6, ..good }),
        ("an offset of an argument", Arm { condition_kind: argument, offset: 8, ..good }),
        ("a large offset", Arm { condition_kind: field, offset: 4096, ..good }),
        ("an empty range", Arm { condition_kind: argument, minimum: 2, maximum: 1, ..good }),
        ("values without a condition", Arm { maximum: 1, ..good }),
        ("the reserved field", Arm { reserved: 1, ..good }),
    ];
    for (what, request) in wrong {
        assert_eq!(holder.try_arm_raw(request).map(|done| done.id), Err(Errno::EINVAL), "{what}");
    }
    for task in [0, u32::MAX] {
        assert_eq!(holder.try_arm_raw(Arm { task, ..good }).map(|done| done.id), Err(Errno::ESRCH), "task {task}");
    }
    assert!(holder.try_arm_raw(good).is_ok());
    // SAFETY: the call writes nothing: the module does not know it.
    let unknown = unsafe { nix::libc::ioctl(holder.descriptor(), 0x5401) };
    assert_eq!(Errno::result(unknown), Err(Errno::ENOTTY));
}

fn there_are_limits() {
    let holder = Holder::open().expect("the module");
    let holds: Vec<Hold> = (0..MAX_HOLDS).map(|_| holder.arm(&brief(FUNCTION)).expect("arming a hold")).collect();
    let second = Holder::open().expect("the module");
    for holder in [&holder, &second] {
        assert!(matches!(holder.arm(&brief(FUNCTION)), Err(HoldError::TooMany)));
    }
    holds[3].cancel();
    let hold = second.arm(&brief(FUNCTION)).expect("arming a hold in place of a cancelled one");
    drop((hold, second));
    drop((holds, holder));
    let holder = Holder::open().expect("the module");
    let long = |task| Spec { task, ..brief(FUNCTION) }.deadline(Duration::from_secs(6));
    let own = long(Task::current());
    let hold = holder.arm(&own).expect("arming a hold");
    let process = long(Task::Process(nix::unistd::getpid()));
    for spec in [&own, &process, &long(Task::Any)] {
        assert!(matches!(holder.arm(spec), Err(HoldError::TooLong(_))), "{spec:?}");
    }
    holder.arm(&long(Task::Thread(nix::unistd::Pid::from_raw(1)))).expect("a hold for another thread");
    holder.arm(&Spec { function: "__x64_sys_getpgid".to_owned(), ..own.clone() }).expect("a hold at another function");
    hold.cancel();
    holder.arm(&own).expect("a hold in place of a cancelled one");
}

fn others_have_no_access() {
    drop(Holder::open().expect("the module"));
    let set_mode = |mode| std::fs::set_permissions(PATH, std::fs::Permissions::from_mode(mode)).expect("chmod");
    // What the file's mode permits, the module does not.
    for (mode, expected) in [(0o600, Errno::EACCES), (0o666, Errno::EPERM)] {
        set_mode(mode);
        Child::spawn(|| {
            seteuid(Uid::from_raw(65534)).expect("seteuid");
            let error = File::open(PATH).expect_err("opening as a user");
            assert_eq!(error.raw_os_error(), Some(expected as i32));
        })
        .succeed();
    }
    set_mode(0o600);
}

fn closing_releases() {
    let holder = Holder::open().expect("the module");
    run_on(0);
    let (sender, receiver) = mpsc::channel();
    let (go, armed) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        run_on(1);
        sender.send(gettid()).expect("a receiver");
        armed.recv().expect("the thread that arms");
        let begin = Instant::now();
        enter();
        begin.elapsed()
    });
    let task = Task::Thread(receiver.recv().expect("a thread"));
    let armed = holder.arm(&Spec::new("__x64_sys_getpgid", task)).expect("arming a hold");
    let hold = holder.arm(&Spec::new(FUNCTION, task)).expect("arming a hold");
    go.send(()).expect("a receiver");
    assert_eq!(hold.wait_held(PATIENCE), Ok(State::Held));
    let begin = Instant::now();
    // All that keep the file open.
    drop((hold, armed, holder));
    assert!(begin.elapsed() < Duration::from_secs(2), "closing took {:?}", begin.elapsed());
    let took = thread.join().expect("the held thread");
    assert!(took < Duration::from_secs(3), "held for {took:?}");
    unload().expect("unloading a module that nothing uses");
    load().expect("loading it again");
}

fn the_end_of_the_process_that_armed_releases() {
    load().expect("the module");
    run_on(0);
    let (armed, held, over) = (Event::new(), Event::new(), Event::new());
    let subject = Child::spawn(|| {
        run_on(1);
        armed.wait();
        let begin = Instant::now();
        enter();
        assert!(begin.elapsed() < Duration::from_secs(3), "held for {:?}", begin.elapsed());
        over.signal();
    });
    let pid = subject.pid();
    let holding = Child::spawn(|| {
        let hold = Holder::open().and_then(|holder| holder.arm(&Spec::new(FUNCTION, Task::Process(pid))));
        let hold = hold.expect("arming a hold");
        armed.signal();
        assert_eq!(hold.wait_held(PATIENCE), Ok(State::Held));
        held.signal();
        over.wait();
    });
    held.wait();
    holding.signal(Signal::SIGKILL);
    holding.die_of(Signal::SIGKILL);
    subject.succeed();
}

fn a_killed_task_is_held_on() {
    let holder = Holder::open().expect("the module");
    run_on(0);
    let armed = Event::new();
    let child = Child::spawn(|| {
        run_on(1);
        armed.wait();
        enter();
    });
    let hold = holder.arm(&Spec::new(FUNCTION, Task::Process(child.pid()))).expect("arming a hold");
    armed.signal();
    assert_eq!(hold.wait_held(PATIENCE), Ok(State::Held));
    child.signal(Signal::SIGKILL);
    thread::sleep(Duration::from_millis(30));
    assert_eq!(hold.state(), State::Held, "of a task that was killed");
    hold.resume().expect("resuming a killed task");
    child.die_of(Signal::SIGKILL);
    assert_eq!(hold.state(), State::Resumed);
}

fn an_open_file_keeps_the_module() {
    let holder = Holder::open().expect("the module");
    assert_eq!(unload(), Err(Errno::EWOULDBLOCK), "with nothing armed");
    beside_held(
        &holder,
        |task| Spec::new(FUNCTION, task),
        enter,
        |hold| {
            assert_eq!(unload(), Err(Errno::EWOULDBLOCK), "with a task held");
            hold.resume().expect("resuming a held thread");
        },
    );
    let armed = holder.arm(&Spec::new(FUNCTION, Task::Any).nth(u32::MAX)).expect("arming a hold");
    assert_eq!(unload(), Err(Errno::EWOULDBLOCK), "with a hold armed");
    drop((armed, holder));
    unload().expect("unloading a module that nothing uses");
    enter();
    load().expect("loading it again");
}

fn every_point_can_be_held() {
    let symbols = std::fs::read_to_string("/proc/kallsyms").expect("/proc/kallsyms");
    let functions: Vec<&str> = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().collect::<Vec<_>>().try_into().ok())
        .filter(|[_, kind, _]: &[&str; 3]| kind.eq_ignore_ascii_case("t"))
        .map(|[_, _, name]| name)
        .collect();
    let mut wrong = Vec::new();
    for point in points::all() {
        let count = functions.iter().filter(|name| **name == point.function).count();
        if count != 1 {
            wrong.push(format!("{}: {} functions of this name", point.function, count));
            continue;
        }
        // A file for each: there are more points than holds.
        let holder = Holder::open().expect("the module");
        if let Err(error) = holder.arm(&brief(point.function).nth(u32::MAX)) {
            wrong.push(format!("{}: {error}", point.function));
        }
    }
    assert!(wrong.is_empty(), "points that this kernel does not have:\n{}", wrong.join("\n"));
}

/// What a 2 MiB page makes the kernel stumble over (museum A14) is sound with a small one.
fn discarding_a_page_on_its_way_back() {
    const PAGES: &str = "migrate_vma_pages";
    const ROUNDS: usize = 20;
    let (holder, device, pattern) = (Holder::open().expect("the module"), Device::open(), Pattern::new(1));
    for round in 0..ROUNDS {
        let region = small_pages(1);
        region.fill(pattern);
        device.to_device(region.span());
        let spec = |task| {
            let within = points::find(PAGES).and_then(|point| point.address.within(addresses(&region, 0)));
            Spec::new(PAGES, task).condition(within.expect("a point with an address"))
        };
        let body = || device.migrate(region.span(), Direction::ToSystem);
        let mut discarded_ns = None;
        let (_, hold) = beside_held(&holder, spec, body, |hold| {
            region.advise(0..1, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
            assert_eq!(hold.state(), State::Held, "after MADV_DONTNEED in round {round}");
            discarded_ns = Some(now_ns());
            hold.resume().expect("resuming a held thread");
        });
        let status = hold.status();
        assert_eq!(status.state, State::Resumed, "round {round}");
        assert!(status.held_at_ns < discarded_ns && discarded_ns < status.released_at_ns, "round {round}: {status:?}");
        region.check_zero(0..1);
    }
}

/// The time of `CLOCK_MONOTONIC`.
fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("clock_gettime");
    u64::try_from(Duration::from(now).as_nanos()).expect("a time since the system booted")
}
