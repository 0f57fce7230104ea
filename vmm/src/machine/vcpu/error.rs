// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a vCPU cannot go on: KVM's fatal exits in words.

use std::fmt;

use kvm_bindings::{KVM_INTERNAL_ERROR_DELIVERY_EV, KVM_INTERNAL_ERROR_EMULATION, kvm_run};
use thiserror::Error;
use vmm_sys_util::errno;

use super::state::VcpuState;

/// Flag of an emulation failure: the bytes of the instruction are there.
const INSTRUCTION_BYTES_VALID: u64 = 1;

/// Why a vCPU cannot go on.
#[derive(Debug, Error)]
pub enum VcpuError {
    /// `KVM_RUN` or reading registers failed.
    #[error("KVM cannot run it")]
    Run(#[source] errno::Error),
    /// An NMI could not be injected.
    #[error("KVM cannot inject a non-maskable interrupt")]
    Nmi(#[source] errno::Error),
    /// KVM cannot execute an instruction of the guest.
    #[error(
        "KVM cannot execute the instruction{bytes} ({state}); if this is a host whose KVM runs in software, or \
         nested, it may not be able to run this guest: try another --accel"
    )]
    Emulation {
        /// The instruction, if KVM says.
        bytes: InstructionBytes,
        /// Where.
        state: VcpuState,
    },
    /// KVM could not deliver an exception or interrupt.
    #[error("KVM failed while it delivered an event to the guest, with data {data:#x?} ({state})")]
    EventDelivery {
        /// What KVM says of it.
        data: Vec<u64>,
        /// Where.
        state: VcpuState,
    },
    /// Another internal error of KVM.
    #[error("KVM internal error {suberror} with data {data:#x?} ({state})")]
    Internal {
        /// KVM's number for it.
        suberror: u32,
        /// What KVM says of it.
        data: Vec<u64>,
        /// Where.
        state: VcpuState,
    },
    /// An exception while handling an exception while handling an exception.
    #[error("the guest came to a triple fault ({0})")]
    TripleFault(VcpuState),
    /// The processor refused the guest's state.
    #[error("the processor refuses to enter the guest: reason {reason:#x} on host CPU {cpu} ({state})")]
    FailEntry {
        /// The processor's reason.
        reason: u64,
        /// The host's processor.
        cpu: u32,
        /// Where.
        state: VcpuState,
    },
    /// Memory of the guest is not there.
    #[error("the host has no memory for guest address {address:#x} ({state})")]
    MemoryFault {
        /// Guest physical address.
        address: u64,
        /// Where.
        state: VcpuState,
    },
    /// An exit that this machine never asks for.
    #[error("unexpected exit {exit} ({state})")]
    Unexpected {
        /// The exit.
        exit: String,
        /// Where.
        state: VcpuState,
    },
}

/// The bytes of an instruction; may be none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstructionBytes(pub Vec<u8>);

impl fmt::Display for InstructionBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0 {
            write!(f, " {byte:02x}")?;
        }
        Ok(())
    }
}

/// Which `KVM_EXIT_INTERNAL_ERROR` is in `run`.
pub fn suberror(run: &kvm_run) -> u32 {
    // SAFETY: plain numbers, valid whatever the union holds.
    unsafe { run.__bindgen_anon_1.internal.suberror }
}

/// What `KVM_EXIT_INTERNAL_ERROR` in `run` means.
pub fn internal_error(run: &kvm_run, state: VcpuState) -> VcpuError {
    // SAFETY: plain numbers, valid whatever the union holds.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let count = (internal.ndata as usize).min(internal.data.len());
    explain(internal.suberror, &internal.data[..count], state)
}

fn explain(suberror: u32, data: &[u64], state: VcpuState) -> VcpuError {
    match suberror {
        KVM_INTERNAL_ERROR_EMULATION => VcpuError::Emulation { bytes: instruction(data), state },
        KVM_INTERNAL_ERROR_DELIVERY_EV => VcpuError::EventDelivery { data: data.to_vec(), state },
        _ => VcpuError::Internal { suberror, data: data.to_vec(), state },
    }
}

/// The instruction in the data of an emulation failure: flags, then a byte of length and 15 bytes of instruction.
fn instruction(data: &[u64]) -> InstructionBytes {
    let [flags, low, high, ..] = *data else {
        return InstructionBytes::default();
    };
    if flags & INSTRUCTION_BYTES_VALID == 0 {
        return InstructionBytes::default();
    }
    let mut bytes = [low.to_ne_bytes(), high.to_ne_bytes()].concat();
    let length = usize::from(bytes.remove(0)).min(bytes.len());
    bytes.truncate(length);
    InstructionBytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: VcpuState = VcpuState { vcpu: 1, rip: 0x1000, rsp: 0, rflags: 2, cr3: 0, cpl: 0 };

    #[test]
    fn an_emulation_failure_shows_the_instruction() {
        let low = u64::from_ne_bytes([3, 0xc4, 0xe2, 0xf9, 0, 0, 0, 0]);
        let text = explain(KVM_INTERNAL_ERROR_EMULATION, &[1, low, 0], STATE).to_string();
        assert!(text.contains("instruction c4 e2 f9 (vCPU 1: rip 0x0000000000001000"), "{text}");
    }

    #[test]
    fn data_that_is_not_there_is_not_shown() {
        assert_eq!(instruction(&[]), InstructionBytes::default());
        assert_eq!(instruction(&[0, 3, 0]), InstructionBytes::default());
        // A length beyond the bytes there are.
        assert_eq!(instruction(&[1, u64::MAX, u64::MAX]).0.len(), 15);
        assert!(matches!(explain(99, &[7], STATE), VcpuError::Internal { suberror: 99, .. }));
    }
}
