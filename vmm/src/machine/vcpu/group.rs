// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All vCPUs of a machine, as other threads see them.

use std::sync::Arc;

use super::control::VcpuControl;

/// The mailboxes of a machine's vCPUs, by number. Cheap to clone.
#[derive(Clone, Default)]
pub struct VcpuGroup(Arc<[Arc<VcpuControl>]>);

impl VcpuGroup {
    /// The mailboxes of `count` vCPUs that do not run yet.
    pub fn new(count: u8) -> Self {
        Self((0..count).map(|_| Arc::default()).collect())
    }

    /// Each vCPU's mailbox, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<VcpuControl>> {
        self.0.iter()
    }

    /// Keeps all vCPUs out of the guest, whose clocks go on, until [`VcpuGroup::resume`] was called as often as this. Returns once all their threads wait, or
    /// have ended. Must not be called by the thread of a vCPU, which it would wait for.
    pub fn pause(&self) {
        self.iter().for_each(|vcpu| vcpu.pause());
    }

    /// Ends one [`VcpuGroup::pause`].
    pub fn resume(&self) {
        self.iter().for_each(|vcpu| vcpu.resume());
    }

    /// Does something while no vCPU is in the guest. Any thread may call this, one that serves a vCPU's exit as well: a vCPU is out of the guest
    /// while its exit is served.
    pub fn while_outside<T>(&self, action: impl FnOnce() -> T) -> T {
        let held: Vec<_> = self.iter().map(|vcpu| vcpu.keep_outside()).collect();
        let result = action();
        drop(held);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use super::super::control::install_kick_handler;
    use super::*;

    /// Threads that do as those of vCPUs do, where being in the guest is to have the flag set, and each of them now and then does something
    /// while all are outside: none is inside then, and all come to their end.
    #[test]
    fn nobody_is_inside_even_if_several_threads_that_serve_exits_ask_for_it() {
        const VCPUS: usize = 3;
        install_kick_handler().unwrap();
        let group = VcpuGroup::new(VCPUS as u8);
        let inside: Arc<[AtomicBool]> = (0..VCPUS).map(|_| AtomicBool::new(false)).collect();
        let quiet = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..VCPUS)
            .map(|number| {
                let (group, inside, quiet) = (group.clone(), Arc::clone(&inside), Arc::clone(&quiet));
                thread::spawn(move || {
                    let control = Arc::clone(group.iter().nth(number).unwrap());
                    let _running = control.enter();
                    let mut round = 0;
                    while round < 300 {
                        let requests = control.take();
                        if requests.pause {
                            control.stay_out();
                            continue;
                        }
                        inside[number].store(true, Ordering::SeqCst);
                        for _ in 0..50 {
                            std::hint::spin_loop();
                        }
                        inside[number].store(false, Ordering::SeqCst);
                        control.left_guest();
                        round += 1;
                        if round % 7 == number {
                            group.while_outside(|| {
                                thread::yield_now();
                                assert!(inside.iter().all(|inside| !inside.load(Ordering::SeqCst)));
                                quiet.fetch_add(1, Ordering::SeqCst);
                            });
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(quiet.load(Ordering::SeqCst) > VCPUS * 40);
    }

    #[test]
    fn a_pause_lasts_until_each_has_ended() {
        let group = VcpuGroup::new(1);
        group.pause();
        group.while_outside(|| ());
        assert!(group.iter().all(|vcpu| vcpu.take().pause), "the first pause has not ended");
        group.resume();
        assert!(group.iter().all(|vcpu| !vcpu.take().pause));
        group.resume();
        group.pause();
        assert!(group.iter().all(|vcpu| vcpu.take().pause), "one end too many ends nothing that comes later");
    }
}
