// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest runs on: what `--accel` asks for, and what that resolves to on this machine.

use std::path::PathBuf;

use clap::ValueEnum;
use ersatz_guest_image::manifest::Manifest;
use thiserror::Error;

use super::nested::Artifacts;
use super::probe::probe;
use crate::qemu::{MAILBOX, Qemu, UnfitError, VFIO_USER, check_devices};

/// What `--accel` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AcceleratorOption {
    /// kvm if it works here, else nested; says which and why.
    Auto,
    /// The VMM on this machine's KVM.
    Kvm,
    /// The VMM on the KVM of an outer machine that QEMU emulates, SVM included.
    Nested,
    /// The device under QEMU's emulation, over vfio-user.
    Tcg,
}

/// The accelerator that a guest runs on, with the files that it needs besides the guest's own.
#[derive(Clone, Debug)]
pub enum Accelerator {
    /// The VMM on this machine's KVM.
    Kvm,
    /// The VMM on the KVM of an emulated machine.
    Nested(Artifacts),
    /// QEMU's emulation.
    Tcg(Qemu),
}

/// Why an accelerator cannot be used.
#[derive(Debug, Error)]
pub enum AcceleratorError {
    /// Its files have not been built.
    #[error("--accel {0} needs what `cargo xtask build` builds; run that first")]
    NotBuilt(&'static str),
    /// There is no machine to hand GPUs through.
    #[error("--via vfio hands the GPUs through the outer machine of --accel nested; add that")]
    NotNested,
    /// The QEMU that `--qemu` names lacks something.
    #[error(transparent)]
    Unfit(#[from] UnfitError),
}

impl Accelerator {
    /// Resolves `--accel` and `--qemu`. Without `qemu` the toolchain root's QEMU is taken. With `cold` the guest boots and QEMU needs
    /// no mailbox. Calls `progress` with the choice and its reason if `option` is [`AcceleratorOption::Auto`].
    ///
    /// # Errors
    ///
    /// Fails if the files that the accelerator needs have not been built, or `qemu` lacks a device that the accelerator needs.
    pub fn resolve(
        option: AcceleratorOption,
        qemu: Option<PathBuf>,
        cold: bool,
        manifest: Option<&Manifest>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, AcceleratorError> {
        match option {
            AcceleratorOption::Kvm => Ok(Self::Kvm),
            AcceleratorOption::Nested => Self::nested(qemu, cold, manifest),
            AcceleratorOption::Tcg => Self::tcg(qemu, cold, manifest),
            AcceleratorOption::Auto => {
                let verdict = probe();
                if verdict.works() {
                    progress(&format!("--accel kvm, since {verdict}"));
                    Ok(Self::Kvm)
                } else {
                    progress(&format!("--accel nested, since {verdict}"));
                    Self::nested(qemu, cold, manifest)
                }
            }
        }
    }

    /// Passes the GPUs through the outer machine to the guest.
    ///
    /// # Errors
    ///
    /// Fails unless there is an outer machine to hand them through, whose QEMU can connect to them.
    pub fn via_vfio(self) -> Result<Self, AcceleratorError> {
        let Self::Nested(mut artifacts) = self else { return Err(AcceleratorError::NotNested) };
        if let Qemu::Host(_) = artifacts.qemu {
            check_devices(&artifacts.qemu, &[VFIO_USER])?;
        }
        artifacts.via_vfio = true;
        Ok(Self::Nested(artifacts))
    }

    fn nested(qemu: Option<PathBuf>, cold: bool, manifest: Option<&Manifest>) -> Result<Self, AcceleratorError> {
        let manifest = manifest.ok_or(AcceleratorError::NotBuilt("nested"))?;
        let is_named = qemu.is_some();
        let qemu = Qemu::choose(qemu.as_deref(), &manifest.toolchain_root);
        if is_named && !cold {
            check_devices(&qemu, &[MAILBOX])?;
        }
        Ok(Self::Nested(Artifacts::new(manifest, qemu)))
    }

    fn tcg(qemu: Option<PathBuf>, cold: bool, manifest: Option<&Manifest>) -> Result<Self, AcceleratorError> {
        match (qemu, manifest) {
            (Some(named), _) => {
                let qemu = Qemu::Host(named);
                check_devices(&qemu, if cold { &[VFIO_USER] } else { &[VFIO_USER, MAILBOX] })?;
                Ok(Self::Tcg(qemu))
            }
            (None, Some(manifest)) => Ok(Self::Tcg(Qemu::InRoot(manifest.toolchain_root.clone()))),
            (None, None) => Err(AcceleratorError::NotBuilt("tcg")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accelerator_without_its_files_is_refused() {
        for (option, name) in [(AcceleratorOption::Nested, "nested"), (AcceleratorOption::Tcg, "tcg")] {
            let error = Accelerator::resolve(option, None, false, None, &mut |_| ()).unwrap_err();
            assert!(matches!(error, AcceleratorError::NotBuilt(asked) if asked == name), "{error}");
        }
        assert!(matches!(
            Accelerator::resolve(AcceleratorOption::Kvm, None, false, None, &mut |_| ()),
            Ok(Accelerator::Kvm)
        ));
    }

    #[test]
    fn gpus_are_handed_through_an_outer_machine_alone() {
        assert!(matches!(Accelerator::Kvm.via_vfio(), Err(AcceleratorError::NotNested)));
    }

    #[test]
    fn a_qemu_that_cannot_reach_the_gpu_is_refused() {
        let error = Accelerator::resolve(AcceleratorOption::Tcg, Some("/bin/true".into()), true, None, &mut |_| ());
        assert!(matches!(error, Err(AcceleratorError::Unfit(_))));
    }
}
