// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The fabric: links by which the GPUs of one process reach each other's VRAM, beside the PCI bus.
//!
//! An embedder makes one [`Fabric`], gives each GPU a [`FabricPort`] of it, and is done: a GPU is plugged in when it is made
//! and unplugged when it is dropped. The number of its port is the peer number by which the others name it.
//!
//! A GPU's VRAM cannot be reached while the GPU is reset, sleeps in D3hot, or is gone. An engine holds a [`PeerPass`] for one
//! piece of its work, as it holds a pass of its own device's gate; resetting a GPU, putting it to sleep or dropping it waits
//! for the passes that are out, and none is given out until that is done. No thread ever waits *for* a pass: it is given at
//! once or refused. So a pass may be taken under any lock, several at once too, and two GPUs that copy from each other while both are
//! reset cannot stand in each other's way.

use std::sync::{Arc, RwLockReadGuard, Weak};

use ersatz_abi::error::ErrorCode;
use ersatz_abi::mmu::MAX_PEERS;
use thiserror::Error;
use vm_memory::VolatileSlice;

use crate::sync::RwLock;
use crate::vram::Vram;

/// Number of ports of a fabric; peers are numbered from zero.
pub const FABRIC_PORTS: u8 = MAX_PEERS;

/// Why a GPU cannot be plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FabricError {
    /// There is no such port.
    #[error("fabric port {0}: a fabric has ports 0 to {last}", last = FABRIC_PORTS - 1)]
    NoPort(u8),
    /// Another GPU is there.
    #[error("fabric port {0} has a GPU already; give each GPU a port of its own")]
    Taken(u8),
}

// A mask of peers has a bit for each.
const _: () = assert!(FABRIC_PORTS as u32 <= u8::BITS);

type Endpoints = [Weak<Endpoint>; FABRIC_PORTS as usize];

/// What connects GPUs.
#[derive(Clone, Debug, Default)]
pub struct Fabric {
    /// Locked for moments only, with no other lock of this module held.
    ports: Arc<RwLock<Endpoints>>,
}

/// A place on a fabric for one GPU.
#[derive(Clone, Debug)]
pub struct FabricPort {
    fabric: Fabric,
    number: u8,
}

impl Fabric {
    /// A fabric with nothing plugged in.
    pub fn new() -> Self {
        Self::default()
    }

    /// The port of this number.
    ///
    /// # Errors
    ///
    /// [`FabricError::NoPort`] if it is not below [`FABRIC_PORTS`].
    pub fn port(&self, number: u8) -> Result<FabricPort, FabricError> {
        if number >= FABRIC_PORTS {
            return Err(FabricError::NoPort(number));
        }
        Ok(FabricPort { fabric: self.clone(), number })
    }
}

/// One GPU's VRAM as the others see it.
#[derive(Debug)]
struct Endpoint {
    vram: Arc<Vram>,
    /// Read by those who access, for one piece; written by those who take access away or give it back.
    reachable: RwLock<bool>,
}

/// A GPU's side of its link: others reach its VRAM, and it reaches theirs.
#[derive(Debug)]
pub(crate) struct Link {
    endpoint: Arc<Endpoint>,
    port: Option<FabricPort>,
}

impl Link {
    /// Plugs a GPU with this VRAM in, awake.
    pub(crate) fn new(vram: Arc<Vram>, port: Option<FabricPort>) -> Result<Self, FabricError> {
        let endpoint = Arc::new(Endpoint { vram, reachable: RwLock::new(true) });
        if let Some(FabricPort { fabric, number }) = &port {
            let slot = &mut fabric.ports.write()[usize::from(*number)];
            if slot.strong_count() > 0 {
                return Err(FabricError::Taken(*number));
            }
            *slot = Arc::downgrade(&endpoint);
        }
        Ok(Self { endpoint, port })
    }

    /// The peer of this number; `None` if there is none, or it is this GPU itself.
    pub(crate) fn peer(&self, number: u8) -> Option<PeerVram> {
        let FabricPort { fabric, number: own } = self.port.as_ref()?;
        if number == *own {
            return None;
        }
        let endpoint = fabric.ports.read().get(usize::from(number))?.upgrade()?;
        Some(PeerVram { endpoint })
    }

    /// The number of this GPU's own port, if it has one.
    pub(crate) fn number(&self) -> Option<u8> {
        self.port.as_ref().map(|port| port.number)
    }

    /// The peers that are plugged in: bit *n* for number *n*.
    pub(crate) fn peers(&self) -> u8 {
        (0..FABRIC_PORTS).filter(|number| self.peer(*number).is_some()).fold(0, |mask, number| mask | 1 << number)
    }

    /// Makes the VRAM reachable for peers, or not; once it is not, no access of a peer is under way.
    pub(crate) fn set_reachable(&self, reachable: bool) {
        *self.endpoint.reachable.write() = reachable;
    }

    /// Runs `work` with peers kept out, and lets them in afterwards.
    pub(crate) fn close<R>(&self, work: impl FnOnce() -> R) -> R {
        let mut reachable = self.endpoint.reachable.write();
        let result = work();
        *reachable = true;
        result
    }

    /// Keeps peers out for good and gives the port back.
    pub(crate) fn unplug(&self) {
        self.set_reachable(false);
        if let Some(FabricPort { fabric, number }) = &self.port {
            let slot = &mut fabric.ports.write()[usize::from(*number)];
            if slot.as_ptr() == Arc::as_ptr(&self.endpoint) {
                *slot = Weak::new();
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.unplug();
    }
}

/// The VRAM of a peer. Keeps the memory, not the peer: a peer that is gone cannot be entered.
#[derive(Clone, Debug)]
pub struct PeerVram {
    endpoint: Arc<Endpoint>,
}

impl PeerVram {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.endpoint.vram.size()
    }

    /// Returns a permit for one piece of work, without waiting; `None` while the peer is reset, sleeps, or is gone.
    pub fn enter(&self) -> Option<PeerPass<'_>> {
        // Only a thread that makes the peer unreachable, or is about to, holds this lock.
        let reachable = self.endpoint.reachable.try_read()?;
        reachable.then_some(PeerPass { vram: &self.endpoint.vram, _reachable: reachable })
    }
}

/// Leave to access a peer's VRAM; the peer is not reset before this is dropped.
#[derive(Debug)]
pub struct PeerPass<'a> {
    vram: &'a Vram,
    _reachable: RwLockReadGuard<'a, bool>,
}

impl PeerPass<'_> {
    /// Part of the peer's VRAM; `None` if the range does not lie wholly inside.
    pub fn slice(&self, offset: u64, length: u64) -> Option<VolatileSlice<'_>> {
        self.vram.slice(offset, length)
    }

    /// As [`Vram::refusal`].
    #[inline]
    pub(crate) fn refusal(&self, offset: u64, length: u64) -> Option<(ErrorCode, u64)> {
        self.vram.refusal(offset, length)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use ersatz_abi::pci::VRAM_MIN;
    use vm_memory::Bytes;

    use super::*;

    fn link(fabric: &Fabric, number: u8) -> Link {
        let vram = Arc::new(Vram::new(VRAM_MIN).unwrap());
        Link::new(vram, Some(fabric.port(number).unwrap())).unwrap()
    }

    #[test]
    fn a_peer_is_the_memory_of_the_other_one() {
        let fabric = Fabric::new();
        let (zero, three) = (link(&fabric, 0), link(&fabric, 3));
        let peer = zero.peer(3).unwrap();
        let pass = peer.enter().unwrap();
        pass.slice(4096, 8).unwrap().write_obj(7_u64, 0).unwrap();
        assert_eq!(three.endpoint.vram.slice(4096, 8).unwrap().read_obj::<u64>(0).unwrap(), 7);
        assert_eq!(zero.endpoint.vram.slice(4096, 8).unwrap().read_obj::<u64>(0).unwrap(), 0);
        assert!(pass.slice(VRAM_MIN - 7, 8).is_none() && peer.size() == VRAM_MIN);
        assert_eq!((zero.peers(), three.peers()), (1 << 3, 1 << 0));
    }

    #[test]
    fn who_is_no_peer() {
        let fabric = Fabric::new();
        let zero = link(&fabric, 0);
        for number in [0, 1, FABRIC_PORTS - 1, FABRIC_PORTS, u8::MAX] {
            assert!(zero.peer(number).is_none(), "{number}");
        }
        let elsewhere = link(&Fabric::new(), 1);
        let alone = Link::new(Arc::new(Vram::new(VRAM_MIN).unwrap()), None).unwrap();
        assert!(zero.peer(1).is_none() && elsewhere.peer(0).is_none() && alone.peer(0).is_none());
    }

    #[test]
    fn ports_are_few_and_each_has_one_gpu() {
        let fabric = Fabric::new();
        assert!(matches!(fabric.port(FABRIC_PORTS), Err(FabricError::NoPort(FABRIC_PORTS))));
        let first = link(&fabric, 2);
        let vram = Arc::new(Vram::new(VRAM_MIN).unwrap());
        let second = Link::new(vram.clone(), Some(fabric.port(2).unwrap()));
        assert_eq!(second.unwrap_err(), FabricError::Taken(2));
        first.unplug();
        let second = Link::new(vram, Some(fabric.port(2).unwrap())).unwrap();
        drop(first);
        assert_eq!(link(&fabric, 0).peers(), 1 << 2, "the one that left does not take the other along");
        drop(second);
    }

    #[test]
    fn a_peer_that_left_is_not_entered_though_its_memory_is_held() {
        let fabric = Fabric::new();
        let zero = link(&fabric, 0);
        let one = link(&fabric, 1);
        let held = zero.peer(1).unwrap();
        drop(one);
        assert!(zero.peer(1).is_none() && held.enter().is_none());
    }

    #[test]
    fn sleep_and_reset_keep_peers_out() {
        let fabric = Fabric::new();
        let (zero, one) = (link(&fabric, 0), link(&fabric, 1));
        let peer = zero.peer(1).unwrap();
        one.set_reachable(false);
        assert!(peer.enter().is_none());
        one.close(|| assert!(peer.enter().is_none()));
        assert!(peer.enter().is_some(), "a reset wakes up");
    }

    /// This would hang if a pass were not refused while a thread waits for the passes that are out: each thread holds its own
    /// lock and wants the other's, and a third waits for either.
    #[test]
    fn crossed_accesses_and_resets_do_not_wait_for_each_other() {
        let fabric = Fabric::new();
        let (zero, one) = (link(&fabric, 0), link(&fabric, 1));
        let gates = [RwLock::new(()), RwLock::new(())];
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let copiers = [(&zero, 1, &gates[0]), (&one, 0, &gates[1])].map(|(link, number, gate)| {
                let done = &done;
                scope.spawn(move || {
                    let (mut entered, mut refused) = (0_u64, 0_u64);
                    while !done.load(Ordering::Relaxed) || entered == 0 {
                        let _own = gate.read();
                        match link.peer(number).unwrap().enter() {
                            Some(pass) => {
                                pass.slice(0, 8).unwrap().write_obj(entered, 0).unwrap();
                                entered += 1;
                            }
                            None => refused += 1,
                        }
                    }
                    (entered, refused)
                })
            });
            let resets = [(&zero, &gates[0]), (&one, &gates[1])].map(|(link, gate)| {
                scope.spawn(move || {
                    for _ in 0..500 {
                        let _closed = gate.write();
                        link.close(|| ());
                    }
                })
            });
            resets.into_iter().for_each(|thread| thread.join().unwrap());
            done.store(true, Ordering::Relaxed);
            copiers.into_iter().for_each(|thread| assert!(thread.join().unwrap().0 > 0));
        });
    }
}
