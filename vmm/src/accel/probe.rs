// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether KVM really runs a kernel here.
//!
//! That `/dev/kvm` opens proves nothing: a KVM that runs in software may know simple instructions only, and stops in the
//! middle of a kernel's boot. So a tiny guest, run by this VMM's machine, does what every kernel does sooner or later: SSE2
//! moves, a switch of page tables in 64-bit mode, and BMI2 shifts where the processor has them.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use ersatz_guest_image::error_chain::chain;

use crate::machine::{CODE_ADDRESS, Console, End, Machine, MachineConfig, MachineError, Payload, VcpuError};
use crate::threads::{Role, spawn};

/// The KVM device.
const KVM: &str = "/dev/kvm";

/// Memory of the tiny guest: the code, and the page it copies its page table to.
const MEMORY: u64 = 2 << 20;

/// What it maps.
const MAPPED: u64 = 1 << 30;

/// The status that says every instruction did what it should.
const ALL_GOOD: u8 = 42;

/// How long the tiny guest may run; it takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether this machine's KVM runs kernels, or why it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It runs kernels.
    Works,
    /// There is no KVM device.
    NoDevice,
    /// This user may not open it.
    NoPermission,
    /// It cannot be opened for another reason.
    CannotOpen(String),
    /// It runs simple instructions only; this one it does not.
    OnlySimpleInstructions {
        /// The instruction's bytes, as far as KVM tells.
        instruction: Vec<u8>,
        /// Offset of the instruction in the probe's code.
        offset: u64,
    },
    /// It ran the tiny guest, but an instruction did something else than it should.
    WrongResult,
    /// The tiny guest did not come to its end.
    Hangs,
    /// It does not run the tiny guest, for the reason given.
    Fails(String),
}

impl Verdict {
    /// Whether a guest can be run on it.
    pub fn works(&self) -> bool {
        *self == Self::Works
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => write!(f, "KVM works"),
            Self::NoDevice => write!(f, "there is no {KVM}: no virtualization hardware, or its module is not loaded"),
            Self::NoPermission => write!(f, "this user may not open {KVM}: join the group that owns it (kvm)"),
            Self::CannotOpen(reason) => write!(f, "{KVM} cannot be opened: {reason}"),
            Self::OnlySimpleInstructions { instruction, offset } => {
                write!(f, "{KVM} runs only simple instructions, not a kernel: it stopped at")?;
                match name_of(*offset) {
                    Some(name) => write!(f, " {name}")?,
                    None => write!(f, " offset {offset:#x} of the probe")?,
                }
                // KVM tells more bytes than the instruction has.
                instruction.iter().take(5).enumerate().try_for_each(|(index, byte)| {
                    let before = if index == 0 { " (" } else { " " };
                    write!(f, "{before}{byte:02x}")
                })?;
                f.write_str(if instruction.is_empty() { "" } else { ")" })
            }
            Self::WrongResult => write!(f, "{KVM} runs instructions wrongly"),
            Self::Hangs => write!(f, "{KVM} does not bring a tiny guest to its end within {PATIENCE:?}"),
            Self::Fails(reason) => write!(f, "{KVM} does not run a tiny guest: {reason}"),
        }
    }
}

/// Probes KVM. Takes some milliseconds.
pub fn probe() -> Verdict {
    if let Err(error) = File::options().read(true).write(true).open(KVM) {
        return match error.kind() {
            io::ErrorKind::NotFound => Verdict::NoDevice,
            io::ErrorKind::PermissionDenied => Verdict::NoPermission,
            _ => Verdict::CannotOpen(error.to_string()),
        };
    }
    judge(run_tiny_guest())
}

/// Runs the probe's code; `None` if it did not come to an end.
fn run_tiny_guest() -> Result<Option<End>, MachineError> {
    let payload = Payload::Code { code: CODE.concat(), mapped: MAPPED };
    let config = MachineConfig { vcpus: 1, memory: MEMORY, payload };
    let console = Console { output: Box::new(io::sink()), input: None };
    let machine = Machine::new(&config, Vec::new(), console)?;
    let handle = machine.handle();
    let (done, guest_ended) = channel::<()>();
    let watchdog = spawn(Role::ProbeWatchdog, move || {
        if guest_ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            handle.stop();
        }
    });
    let watchdog = watchdog.map_err(|source| MachineError::System { doing: "start the probe's watchdog", source })?;
    let end = machine.run();
    drop(done);
    // The watchdog does nothing that can panic.
    let _ = watchdog.join();
    Ok(Some(end?).filter(|end| *end != End::Stopped))
}

/// Returns the verdict on how the probe's code ended.
fn judge(end: Result<Option<End>, MachineError>) -> Verdict {
    match end {
        Ok(Some(End::Exited(ALL_GOOD))) => Verdict::Works,
        Ok(Some(End::Exited(_))) => Verdict::WrongResult,
        Ok(Some(end)) => Verdict::Fails(format!("it ended with {end:?}")),
        Ok(None) => Verdict::Hangs,
        Err(MachineError::Vcpu { source: VcpuError::Emulation { bytes, state }, .. }) => {
            Verdict::OnlySimpleInstructions { instruction: bytes.0, offset: state.rip.wrapping_sub(CODE_ADDRESS) }
        }
        Err(error) => Verdict::Fails(chain(&error).to_string()),
    }
}

/// The name of the instruction at an offset of the code, if it is one that is there to be tried.
fn name_of(offset: u64) -> Option<&'static str> {
    match offset {
        0x22 => Some("a BMI2 shift"),
        0x36 | 0x3b => Some("an SSE2 move"),
        0x4d | 0x5c | 0x5f => Some("a switch of page tables"),
        _ => None,
    }
}

/// The tiny guest's code, position-independent. It uses 16 bytes below the stack pointer, and the page at 0x108000,
/// which is in [`MEMORY`] behind the code.
#[rustfmt::skip]
const CODE: &[&[u8]] = &[
    // BMI2, if CPUID has it: a processor without is good enough for a kernel.
    b"\x31\xc0",                                 // 00  xor eax, eax
    b"\x0f\xa2",                                 // 02  cpuid
    b"\x83\xf8\x07",                             // 04  cmp eax, 7
    b"\x72\x23",                                 // 07  jb sse
    b"\xb8\x07\x00\x00\x00",                     // 09  mov eax, 7
    b"\x31\xc9",                                 // 0e  xor ecx, ecx
    b"\x0f\xa2",                                 // 10  cpuid
    b"\x0f\xba\xe3\x08",                         // 12  bt ebx, 8
    b"\x73\x14",                                 // 16  jnc sse
    b"\xb8\x01\x00\x00\x00",                     // 18  mov eax, 1
    b"\xb9\x05\x00\x00\x00",                     // 1d  mov ecx, 5
    b"\xc4\xe2\x71\xf7\xc0",                     // 22  shlx eax, eax, ecx
    b"\x83\xf8\x20",                             // 27  cmp eax, 32
    b"\x75\x49",                                 // 2a  jne bad
    // sse: to memory and back to a general register.
    b"\x48\xb8\x88\x77\x66\x55\x44\x33\x22\x11", // 2c  mov rax, 0x1122334455667788
    b"\x66\x48\x0f\x6e\xc0",                     // 36  movq xmm0, rax
    b"\xf3\x0f\x7f\x44\x24\xf0",                 // 3b  movdqu [rsp-16], xmm0
    b"\x48\x39\x44\x24\xf0",                     // 41  cmp [rsp-16], rax
    b"\x75\x2d",                                 // 46  jne bad
    // A copy of the top-level page table becomes the page table; the stack must still be there.
    b"\xbb\x00\x80\x10\x00",                     // 48  mov ebx, 0x108000
    b"\x0f\x20\xde",                             // 4d  mov rsi, cr3
    b"\x48\x89\xdf",                             // 50  mov rdi, rbx
    b"\xb9\x00\x02\x00\x00",                     // 53  mov ecx, 512
    b"\xfc",                                     // 58  cld
    b"\xf3\x48\xa5",                             // 59  rep movsq
    b"\x0f\x22\xdb",                             // 5c  mov cr3, rbx
    b"\x0f\x20\xd8",                             // 5f  mov rax, cr3
    b"\x48\x39\xd8",                             // 62  cmp rax, rbx
    b"\x75\x0e",                                 // 65  jne bad
    b"\x81\x7c\x24\xf0\x88\x77\x66\x55",         // 67  cmp dword [rsp-16], 0x55667788
    b"\x75\x04",                                 // 6f  jne bad
    b"\xb0\x2a",                                 // 71  mov al, 42
    b"\xeb\x02",                                 // 73  jmp end
    b"\xb0\x01",                                 // 75  bad: mov al, 1
    b"\xe6\xf4",                                 // 77  end: out 0xf4, al
    b"\xf4",                                     // 79  halt: hlt
    b"\xeb\xfd",                                 // 7a  jmp halt
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::VcpuState;

    /// What the right answer is depends on the machine, but it is the same each time, and no guess.
    #[test]
    fn the_verdict_is_what_a_second_look_finds_too() {
        let verdict = probe();
        assert_eq!(probe(), verdict, "two probes differ");
        assert_ne!(verdict, Verdict::WrongResult);
        assert_ne!(verdict, Verdict::Hangs);
        if File::open(KVM).is_err() {
            assert!(!verdict.works());
        }
    }

    #[test]
    fn the_named_instructions_are_at_their_offsets() {
        let code = CODE.concat();
        assert_eq!(code.len(), 0x7c);
        assert!(code[0x22..].starts_with(b"\xc4\xe2\x71\xf7"));
        assert!(code[0x36..].starts_with(b"\x66\x48\x0f\x6e"));
        assert!(code[0x3b..].starts_with(b"\xf3\x0f\x7f"));
        for offset in [0x4d, 0x5c, 0x5f] {
            assert_eq!(code[offset], 0x0f);
        }
    }

    #[test]
    fn ends_are_judged() {
        assert!(judge(Ok(Some(End::Exited(ALL_GOOD)))).works());
        assert_eq!(judge(Ok(Some(End::Exited(1)))), Verdict::WrongResult);
        assert_eq!(judge(Ok(None)), Verdict::Hangs);
        assert!(matches!(judge(Ok(Some(End::Reset))), Verdict::Fails(_)));
        let state = VcpuState { vcpu: 0, rip: CODE_ADDRESS, rsp: 0, rflags: 2, cr3: 0, cpl: 0 };
        let triple = MachineError::Vcpu { vcpu: 0, source: VcpuError::TripleFault(state) };
        assert!(judge(Err(triple)).to_string().contains("triple fault"));
    }

    #[test]
    fn what_kvm_stopped_at_is_named() {
        let simple = |offset| Verdict::OnlySimpleInstructions { instruction: vec![0xc4, 0xe2], offset };
        let text = simple(0x22).to_string();
        assert!(text.ends_with("it stopped at a BMI2 shift (c4 e2)"), "{text}");
        assert!(simple(0x999).to_string().contains("offset 0x999"));
    }
}
