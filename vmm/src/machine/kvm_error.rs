// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What KVM refused.

use thiserror::Error;
use vmm_sys_util::errno;

/// What KVM refused.
#[derive(Debug, Error)]
pub enum KvmError {
    /// `/dev/kvm` cannot be used.
    #[error("cannot open /dev/kvm; is the module kvm-intel or kvm-amd loaded, and may this user open it?")]
    Open(#[source] errno::Error),
    /// KVM lacks something without which this machine cannot be.
    #[error("this host's KVM lacks {0}")]
    Lacks(&'static str),
    /// An ioctl failed.
    #[error("KVM failed at {doing}")]
    Failed {
        /// What it was to do.
        doing: &'static str,
        /// What it said.
        #[source]
        source: errno::Error,
    },
    /// KVM refused the value of a model specific register.
    #[error("KVM does not let model specific register {index:#x} be {value:#x}")]
    Msr {
        /// The register.
        index: u32,
        /// The value.
        value: u64,
    },
    /// A list for KVM is too long.
    #[error("KVM does not take a list of {0} entries")]
    ListTooLong(usize),
}

impl KvmError {
    /// For `map_err`: says what KVM was doing when it failed.
    pub(super) fn doing(doing: &'static str) -> impl FnOnce(errno::Error) -> Self {
        move |source| Self::Failed { doing, source }
    }
}
