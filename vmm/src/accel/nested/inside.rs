// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The two ends of one call: `ersatz run` on the host makes `ersatz` in the outer machine run a guest.
//!
//! The guest's description goes in as JSON, its paths replaced by those of the copies there; how the guest ended comes out
//! as JSON. Both ends are this program, built at the same time.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::image::gpu_addresses;
use super::paths::{OuterPaths, outputs};
use super::{Artifacts, Console, NestedError, OuterJob, Source};
use crate::outcome::{Outcome, STATUS_FAILED};
use crate::spec::GuestSpec;

/// The hidden command that runs a guest by its description: `ersatz boot-spec [--input] SPEC OUTCOME`.
pub const COMMAND: &str = "boot-spec";

/// Its option for a guest that gets standard input.
const INPUT: &str = "--input";
pub(super) const VMM: &str = "/ersatz/vmm";
const SPEC: &str = "/ersatz/spec.json";
pub(super) const OUTCOME: &str = "/ersatz/outcome.json";

/// Returns the job that runs a guest in the outer machine, and the files on the host that it fills with the guest's, behind its
/// outcome. `console` is what the guest is to be connected to.
pub(super) fn job(
    spec: &GuestSpec,
    artifacts: &Artifacts,
    console: &Console,
) -> Result<(OuterJob, Vec<PathBuf>), NestedError> {
    let mut paths = OuterPaths::default();
    let mut spec = spec.clone();
    // The GPUs that this process serves write their traces here.
    let gpus = if artifacts.via_vfio { std::mem::take(&mut spec.run.devices) } else { Vec::new() };
    spec.run.vfio = gpu_addresses(&gpus);
    let inside = spec.map_paths(&mut paths)?;
    let text = serde_json::to_vec(&inside).map_err(|error| NestedError::Scratch(error.into()))?;
    let words = [VMM, COMMAND].into_iter().chain(console.input.as_ref().map(|_| INPUT)).chain([SPEC, OUTCOME]);
    let OuterPaths { inputs: mut files, targets } = paths;
    files.push((VMM.to_owned(), Source::File(artifacts.vmm.clone())));
    files.push((SPEC.to_owned(), Source::Bytes(text)));
    let collect = std::iter::once(PathBuf::from(OUTCOME)).chain(outputs(targets.len())).collect();
    Ok((OuterJob { command: words.map(str::to_owned).collect(), files, folders: Vec::new(), collect, gpus }, targets))
}

/// What the VMM in the outer machine reported, given the exit status it ended with.
pub(super) fn outcome(report: &Path, status: u8) -> Result<Outcome, NestedError> {
    let text = std::fs::read(report).map_err(NestedError::Scratch)?;
    if text.is_empty() {
        let hint = match status {
            137 => ": it was killed, most likely because memory ran out; give less --memory or touch less VRAM",
            STATUS_FAILED => "; its message is above",
            _ => "",
        };
        return Err(NestedError::VmmFailed { status, hint });
    }
    serde_json::from_slice(&text).map_err(NestedError::Report)
}

/// Why a guest could not be run by its description.
#[derive(Debug, thiserror::Error)]
pub enum BootSpecError {
    /// The description cannot be read.
    #[error("cannot read the guest's description {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The description cannot be parsed.
    #[error("{path} is not the description of a guest (both ends must be of one build)")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// The outcome cannot be written.
    #[error("cannot write the guest's outcome to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Reads the description of a guest, or of the half of it that boots.
///
/// # Errors
///
/// Fails if the file cannot be read or parsed.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, BootSpecError> {
    let text = std::fs::read(path).map_err(|source| BootSpecError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| BootSpecError::Parse { path: path.to_owned(), source })
}

/// Writes how the guest ended.
///
/// # Errors
///
/// Fails if the file cannot be written.
pub fn write_outcome(path: &Path, outcome: &Outcome) -> Result<(), BootSpecError> {
    serde_json::to_vec(outcome)
        .map_err(std::io::Error::from)
        .and_then(|text| std::fs::write(path, text))
        .map_err(|source| BootSpecError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;
    use std::time::Duration;

    use super::*;
    use crate::qemu::Qemu;
    use crate::spec::{GpuSpec, MachineSpec, Resources, RunSpec, WrittenPath};

    fn spec() -> GuestSpec {
        let gpu = |trace: Option<&str>| GpuSpec { trace: trace.map(WrittenPath::from), ..GpuSpec::new(1 << 30) };
        let machine = MachineSpec {
            kernel: "/host/vmlinux".into(),
            initramfs: "/host/initramfs".into(),
            command_line: "console=ttyS0".to_owned(),
            resources: Resources { vcpus: 2, memory: 1 << 30 },
        };
        let run = RunSpec {
            archives: vec!["/host/programs".into()],
            request: vec![0, 255, 7],
            devices: vec![gpu(None), gpu(Some("/host/t"))],
            vfio: Vec::new(),
            exit_counts: true,
            streams: false,
            timeout: Some(Duration::from_millis(1500)),
            silence: None,
        };
        GuestSpec { machine, run }
    }

    fn artifacts() -> Artifacts {
        Artifacts {
            qemu: Qemu::Host("/qemu".into()),
            kernel: "/k".into(),
            initramfs: "/i".into(),
            vmm: "/v".into(),
            via_vfio: false,
        }
    }

    fn console(input: Option<File>) -> Console {
        Console { input, output: Box::new(io::sink()), errors: Box::new(io::sink()) }
    }

    #[test]
    fn a_guest_gets_input_only_if_there_is_some() {
        let input = File::open("/dev/null").unwrap();
        let (job, _) = job(&spec(), &artifacts(), &console(Some(input))).unwrap();
        assert_eq!(job.command, [VMM, COMMAND, INPUT, SPEC, OUTCOME]);
    }

    #[test]
    fn a_guest_is_described_with_the_paths_of_the_outer_machine() {
        let (job, targets) = job(&spec(), &artifacts(), &console(None)).unwrap();
        assert_eq!(job.command, [VMM, COMMAND, SPEC, OUTCOME]);
        let Some((_, Source::Bytes(text))) = job.files.iter().find(|(path, _)| path == SPEC) else { panic!() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spec.json");
        std::fs::write(&path, text).unwrap();
        let inside: GuestSpec = read_json(&path).unwrap();
        let host = |path: &Path| match job.files.iter().find(|(inside, _)| Path::new(inside) == path) {
            Some((_, Source::File(host))) => host.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(host(&inside.machine.kernel), Path::new("/host/vmlinux"));
        assert_eq!(host(&inside.machine.initramfs), Path::new("/host/initramfs"));
        assert_eq!(host(&inside.run.archives[0]), Path::new("/host/programs"));
        assert_eq!((&inside.run.request, inside.run.timeout), (&spec().run.request, spec().run.timeout));
        assert_eq!(inside.run.devices[0].trace, None);
        assert_eq!(inside.run.devices[1].trace.as_deref(), Some(&*job.collect[1]));
        assert_eq!((targets, job.collect.len()), (vec![PathBuf::from("/host/t")], 2));
    }

    #[test]
    fn gpus_that_are_handed_through_stay_here_with_their_traces() {
        let artifacts = Artifacts { via_vfio: true, ..artifacts() };
        let (job, targets) = job(&spec(), &artifacts, &console(None)).unwrap();
        assert_eq!((&job.gpus, targets.len(), job.collect.len()), (&spec().run.devices, 0, 1));
        let Some((_, Source::Bytes(text))) = job.files.iter().find(|(path, _)| path == SPEC) else { panic!() };
        let inside: GuestSpec = serde_json::from_slice(text).unwrap();
        assert!(inside.run.devices.is_empty());
        assert_eq!(
            inside.run.vfio.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["0000:02:00.0", "0000:03:00.0"]
        );
    }

    #[test]
    fn every_outcome_comes_out_as_it_went_in() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for end in [
            Outcome::Exited(4),
            Outcome::Stopped,
            Outcome::Panicked,
            Outcome::Splat("WARNING: x".to_owned()),
            Outcome::TimedOut(vec!["vCPU 0".to_owned()]),
            Outcome::Interrupted,
        ] {
            write_outcome(file.path(), &end).unwrap();
            assert_eq!(outcome(file.path(), end.status()).unwrap(), end);
        }
    }

    #[test]
    fn a_vmm_that_reports_nothing_has_failed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(outcome(file.path(), 137), Err(NestedError::VmmFailed { status: 137, .. })));
        std::fs::write(file.path(), "{").unwrap();
        assert!(matches!(outcome(file.path(), 0), Err(NestedError::Report(_))));
    }

    #[test]
    fn a_description_that_makes_no_sense_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(read_json::<GuestSpec>(file.path()), Err(BootSpecError::Parse { .. })));
        assert!(matches!(read_json::<GuestSpec>(Path::new("/nowhere")), Err(BootSpecError::Read { .. })));
    }
}
